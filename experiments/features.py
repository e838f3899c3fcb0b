"""What an activation is made of: a dictionary of features, what the model loses by it, and what they mean.

    python experiments/features.py
    python experiments/features.py --model HuggingFaceTB/SmolLM2-135M --texts train.txt --held-out test.txt \
        --name blocks.15.hook_resid_post --features 4608 --k 32 --tokens 700000 --corpus-tokens 164000

Trains a sparse autoencoder, by default on the output of the MLP in which the small GPT that ships with toumei
keeps its facts. The figure outputs/features.png shows the training, how often features are active, and the
texts of some features; the page outputs/features.html shows those of all features that are active. The
dictionary is saved in outputs/features.safetensors, and in the files of SAELens in outputs/features_saelens.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from matplotlib.figure import Figure

from common import basic_parser, language_model
from toumei.models import facts_gpt
from toumei.plots import look, save_figure
from toumei.transformers import (
    ActivationSource,
    ActivationStore,
    DictionaryEvaluation,
    DictionarySettings,
    DictionaryTraining,
    FeatureTable,
    HookedModel,
    evaluate_dictionary,
    save_saelens,
    show_features,
    train_dictionary,
)

HELD_OUT = 300  # texts about the facts of the small GPT


@look()
def main(argv: Sequence[str] | None = None) -> DictionaryEvaluation:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, texts, held_out = loaded(options)
    out = Path(options.out)
    source = ActivationSource(
        model, texts, options.name, batch_size=options.batch_size, max_tokens=options.corpus_tokens
    )
    settings = DictionarySettings(
        features=options.features,
        activation=options.activation,
        k=options.k,
        tokens=options.tokens,
        batch_size=options.step,
        learning_rate=options.learning_rate,
        buffer=max(2**13, options.step),
        seed=options.seed,
    )
    with TemporaryDirectory() as folder:
        store = ActivationStore.write(source, options.store or folder)
        training = train_dictionary(store, settings, device=options.device)
    sizes = {"batch_size": options.batch_size, "max_tokens": options.shown_tokens}
    evaluation = evaluate_dictionary(training.dictionary, model, held_out, **sizes)
    table = show_features(training.dictionary, model, texts, options.show, **sizes)
    chosen = options.show or clearest(table, options.count)
    save_figure(drawn(training, evaluation, table, chosen), out)
    table.save_page(out.with_suffix(".html"))
    training.dictionary.save(out.with_suffix(".safetensors"))
    if options.activation != "batch_topk" or not training.dictionary.is_transcoder:
        save_saelens(training.dictionary, out.with_name(f"{out.stem}_saelens"))
    print(training)
    print(evaluation)
    print(f"{out}, {time.perf_counter() - started:.0f} s")
    return evaluation


def clearest(table: FeatureTable, count: int) -> list[int]:
    """The features whose strongest tokens are the same word most often; of equal ones the rarer ones."""

    def repeats(row: int) -> float:
        peaks = [
            words[int(table.activations[row, place, : len(words)].argmax())].strip()
            for place, words in enumerate(table.texts[row])
            if float(table.values[row, place]) > 0
        ]
        if len(peaks) < len(table.texts[row]):  # too few texts activate it
            return -1.0
        return max(map(peaks.count, peaks)) / len(peaks) - float(table.rates[row])

    order = sorted(range(len(table.features)), key=repeats, reverse=True)
    return [table.features[row] for row in order[:count]]


def drawn(
    training: DictionaryTraining,
    evaluation: DictionaryEvaluation,
    table: FeatureTable,
    chosen: Sequence[int],
) -> Figure:
    """The figure: the curves and the densities on top, and a panel of texts for each feature."""
    rows = -(-len(chosen) // 2)
    figure = Figure(figsize=(13, 3 + 1.9 * rows), dpi=110, layout="constrained")
    grid = figure.add_gridspec(1 + rows, 2, height_ratios=[1.7, *[1] * rows])
    training.plot(figure.add_subplot(grid[0, 0]))
    evaluation.reconstruction.plot(figure.add_subplot(grid[0, 1]))
    for place, feature in enumerate(chosen):
        table.plot(figure.add_subplot(grid[1 + place // 2, place % 2]), feature, texts=3)
    return figure


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = basic_parser(__doc__, "outputs/features.png", seed=0, device="auto")
    parser.add_argument("--model", help="a causal language model to download, or a folder with one")
    parser.add_argument("--texts", help="with --model: a file with a text on each line, to train on")
    parser.add_argument("--held-out", help="with --model: another one, to measure the dictionary on")
    parser.add_argument("--name", default="blocks.2.hook_mlp_out", help="the activation")
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--activation", choices=("topk", "batch_topk", "jump_relu", "relu"), default="topk")
    parser.add_argument("--k", type=int, default=8, help="features that are active")
    parser.add_argument("--tokens", type=int, default=400_000, help="activations that the training sees")
    parser.add_argument("--corpus-tokens", type=int, default=20_000, help="tokens of the corpus at most")
    parser.add_argument(
        "--shown-tokens", type=int, default=20_000, help="tokens that are evaluated and shown"
    )
    parser.add_argument("--step", type=int, default=1024, help="activations of a step")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=16, help="texts in a forward pass")
    parser.add_argument("--store", help="a folder for the activations, to go on from after a stop")
    parser.add_argument("--show", type=int, nargs="*", help="the features of the figure and the page")
    parser.add_argument("--count", type=int, default=6, help="without --show: how many are in the figure")
    options = parser.parse_args(argv)
    if options.model and not (options.texts and options.held_out):
        parser.error("--model needs --texts and --held-out")
    return options


def loaded(options: argparse.Namespace) -> tuple[HookedModel, Any, Any]:
    """The model, the texts to train on and those to measure on."""
    if options.model:
        model, tokenizer = language_model(options.model)
        return HookedModel(model.eval().to(options.device), tokenizer), options.texts, options.held_out
    model, tokenizer, world = facts_gpt()
    texts = list(islice(world.texts(seed=options.seed), 10 * HELD_OUT))
    return HookedModel(model.to(options.device), tokenizer), texts[HELD_OUT:], texts[:HELD_OUT]


if __name__ == "__main__":
    main()
