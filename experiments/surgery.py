"""Which layers a language model can lose: its perplexity without each, with two swapped, with one repeated.

    python experiments/surgery.py
    python experiments/surgery.py --model HuggingFaceTB/SmolLM2-135M-Instruct --texts wikitext.txt \
        --prompt "The Eiffel Tower is located in the city of" --length 256 --max-tokens 4096

By default on the small GPT that ships with toumei and texts of its world. The figure outputs/surgery.png
shows the three curves. Then layers are deleted one after the other, those first that cost least alone, and
each time the perplexity and what the model writes after a prompt are printed.
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
from toumei.transformers import HookedModel
from toumei.transformers.surgery import LayerPerplexities, delete_layers, perplexity_by_layer

CHANGES = ("delete", "swap", "repeat")


@look()
def main(argv: Sequence[str] | None = None) -> dict[str, LayerPerplexities]:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, tokenizer, texts, prompt = loaded(options)
    sizes = {"length": options.length, "max_tokens": options.max_tokens, "batch_size": options.batch_size}
    found = {
        change: perplexity_by_layer(model, tokenizer, texts, change, verbose=True, **sizes)
        for change in options.changes
    }
    save_figure(drawn(found), Path(options.out))
    for result in found.values():
        print(result)
    if "delete" in found:
        for count in range(min(options.without, len(found["delete"]) - 1) + 1):
            print(
                without(model, tokenizer, texts, prompt, found["delete"].least(count) if count else (), sizes)
            )
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return found


def drawn(found: dict[str, LayerPerplexities]) -> Figure:
    """The figure: a curve for each change, with one scale."""
    figure = Figure(figsize=(9, 2.9 * len(found)), dpi=130, layout="constrained")
    for ax, result in zip(
        figure.subplots(len(found), squeeze=False, sharey=True)[:, 0], found.values(), strict=True
    ):
        result.plot(ax)
        ax.set_xlim(-0.3, max(max(one.layers) for one in found.values()) + 0.3)
    return figure


def without(
    model: Any, tokenizer: Any, texts: Any, prompt: str, layers: Sequence[int], sizes: dict[str, Any]
) -> str:
    """The perplexity of the model without some layers, and how it continues the prompt."""
    if not layers:
        text = HookedModel(model, tokenizer).generate(prompt, 12)
        return f"whole model: {prompt} ...{text!r}"
    with delete_layers(model, layers):
        found = perplexity_by_layer(model, tokenizer, texts, layers=[0], **sizes)
        text = HookedModel(model, tokenizer).generate(prompt, 12)
    return f"without {sorted(layers)}: perplexity {found.baseline:.2f}, ...{text!r}"


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/surgery.png", seed=0, device="auto")
    parser.add_argument("--model", help="a causal language model to download, or a folder with one")
    parser.add_argument("--texts", help="with --model: a file with a text on each line")
    parser.add_argument("--prompt", help="a text that the model continues with fewer layers")
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=CHANGES)
    parser.add_argument("--without", type=int, default=3, help="how many layers are deleted together at most")
    parser.add_argument("--length", type=int, default=64, help="tokens that are read together")
    parser.add_argument("--max-tokens", type=int, default=8192)
    parser.add_argument("--batch-size", type=int, default=16, help="so many times --length in a pass")
    options = parser.parse_args(argv)
    if options.model and not (options.texts and options.prompt):
        parser.error("--model needs --texts and --prompt")
    return options


def loaded(options: argparse.Namespace) -> tuple[Any, Any, Any, str]:
    """The model, its tokenizer, texts and a prompt."""
    model: Any
    tokenizer: Any
    if options.model:
        model, tokenizer = language_model(options.model)
        return model.to(options.device).eval(), tokenizer, Path(options.texts), options.prompt
    model, tokenizer, world = facts_gpt()
    texts = list(islice(world.texts(seed=options.seed), 2000))
    return model.to(options.device), tokenizer, texts, options.prompt or world.facts[3].text


if __name__ == "__main__":
    main()
