"""What a language model predicts from each of its layers: the logit lens beside a tuned lens.

    python experiments/lenses.py
    python experiments/lenses.py --fact 12 --steps 250
    python experiments/lenses.py --model HuggingFaceTB/SmolLM2-135M --texts train.txt --held-out test.txt \
        --prompt "The Eiffel Tower is located in the city of" --tokens 16384 --length 256

Trains a tuned lens (Belrose et al., 2023), by default on texts of the world that the small GPT knows which
ships with toumei. The figure outputs/lenses.png shows both lenses on a prompt, in the colour of how far each
prediction is from that of the model, and their losses on texts that the lens was not trained on. The lens is
saved in outputs/lenses.safetensors.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from common import basic_parser, language_model
from toumei.models import facts_gpt
from toumei.plots import look, save_figure
from toumei.transformers.lenses import LensEvaluation, LensTable, TunedLens, logit_lens

HELD_OUT = 2000  # texts about the facts of the small GPT


@look()
def main(argv: Sequence[str] | None = None) -> LensEvaluation:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, tokenizer, prompt, texts, held_out = loaded(options)
    lens = TunedLens.train(
        model,
        tokenizer,
        texts,
        steps=options.steps,
        tokens_per_step=options.tokens,
        length=options.length,
        batch_size=options.batch_size,
        optimizer=options.optimizer,
        seed=options.seed,
    )
    evaluation = lens.evaluate(
        model, tokenizer, held_out, max_tokens=options.max_tokens, batch_size=options.batch_size
    )
    tables = logit_lens(model, tokenizer, prompt, embedding=True), lens(model, tokenizer, prompt)
    out = Path(options.out)
    save_figure(drawn(tables, evaluation), out)
    lens.save(out.with_suffix(".safetensors"))
    print(lens)
    print(evaluation)
    print(f"{out}, {time.perf_counter() - started:.0f} s")
    return evaluation


def drawn(tables: Sequence[LensTable], evaluation: LensEvaluation) -> Figure:
    """The figure: the table of each lens, and the losses of both."""
    width, height = 1.6 + 0.7 * len(tables[0].tokens), 0.9 + 0.22 * len(tables[0].layers)
    figure = Figure(figsize=(width + 4, 2 * height), dpi=130, layout="constrained")
    places = figure.subplot_mosaic([[0, 2], [1, 2]], width_ratios=(width, 4))
    # what is read out of the embedding is so far off that it would leave no colours for the layers
    limit = float(tables[0].divergences[1:].max())
    for number, table in enumerate(tables):
        table.plot(places[number], color="divergence", limit=limit)
        places[number].label_outer()
    evaluation.plot(places[2])
    places[2].set_title("texts held out")
    return figure


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(
        __doc__, "outputs/lenses.png", steps=60, seed=0, device="auto"
    )
    parser.add_argument("--model", help="a causal language model to download, or a folder with one")
    parser.add_argument("--texts", help="with --model: a file with a text on each line, to train on")
    parser.add_argument("--held-out", help="with --model: another one, to compare the lenses on")
    parser.add_argument("--prompt", help="the text on which both lenses are shown")
    parser.add_argument("--fact", type=int, default=3, help="number of the fact to show, without a prompt")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a step")
    parser.add_argument("--length", type=int, default=64, help="tokens that are read together")
    parser.add_argument("--batch-size", type=int, default=32, help="so many times --length in a pass")
    parser.add_argument("--max-tokens", type=int, default=2**15, help="tokens to compare the lenses on")
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd")
    options = parser.parse_args(argv)
    if options.model and not (options.texts and options.held_out and options.prompt):
        parser.error("--model needs --texts, --held-out and --prompt")
    return options


def loaded(options: argparse.Namespace) -> tuple[Any, Any, str, Any, Any]:
    """The model, its tokenizer, the prompt, and the texts to train on and to compare on."""
    model: Any
    tokenizer: Any
    if options.model:
        model, tokenizer = language_model(options.model)
        model.to(options.device)
        return model, tokenizer, options.prompt, Path(options.texts), Path(options.held_out)
    model, tokenizer, world = facts_gpt()
    model.to(options.device)
    prompt = options.prompt or world.facts[options.fact].text
    held_out = list(islice(world.texts(seed=options.seed + 1), HELD_OUT))
    return model, tokenizer, prompt, world.texts(seed=options.seed), held_out


if __name__ == "__main__":
    main()
