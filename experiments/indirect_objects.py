"""Who gets the drink: from raw logits to the heads that decide it.

    python experiments/indirect_objects.py
    python experiments/indirect_objects.py --model HuggingFaceTB/SmolLM2-135M-Instruct

"When Mary and John went to the store, John gave a drink to" is answered with Mary (Wang et al., 2022,
arXiv:2211.00593). In the corrupt sentence Mary gives the drink. The figure outputs/indirect_objects.png shows
the logit differences of all sentences, where the residual stream carries the answer, which heads restore it,
which of them act on the logits directly, and which heads it cannot do without (mean ablation). By default the
model is the small GPT that ships with toumei, with facts of its world: the sentences of a pair differ in the
name that is asked about, and the answers are the facts of both.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.figure import Figure
from torch import Tensor

from common import basic_parser, language_model
from toumei.models import facts_gpt
from toumei.plots import look, save_figure
from toumei.transformers import (
    HeadAblation,
    HookedModel,
    PatchingResult,
    activation_patching,
    attribution_patching,
    head_ablation,
    logit_difference,
    path_patching,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = ("Mary", "John", "Tom", "James", "Anna", "Kate", "Paul", "Mark")
SENTENCE = "When {} and {} went to the store, {} gave a drink to"


class Pairs(NamedTuple):
    """Sentences of one length, and their answers."""

    clean: list[str]
    corrupt: list[str]
    answers: list[str]
    wrong: list[str]


class Findings(NamedTuple):
    """What the experiment found."""

    differences: Tensor
    stream: PatchingResult
    heads: PatchingResult
    direct: PatchingResult
    needed: HeadAblation


@look()
def main(argv: Sequence[str] | None = None) -> Findings:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, pairs = loaded(options)
    metric = logit_difference(pairs.answers, pairs.wrong)
    given = pairs.clean, pairs.corrupt, metric
    heads = activation_patching(model, *given, "z", "head", verbose=True)
    needed = head_ablation(model, pairs.clean, "mean", metric=metric, pooled=False, verbose=True)
    found = Findings(
        differences=needed.before,
        stream=activation_patching(model, *given, verbose=True),
        heads=heads,
        direct=path_patching(model, *given, verbose=True),
        needed=needed,
    )
    right = int((found.differences > 0).sum())
    print(f"{right} of {len(pairs.clean)} right, mean logit difference {found.differences.mean():.2f}")
    for result in found[1:]:
        print(result, end="\n\n")
    print(attribution_patching(model, *given))
    save_figure(drawn(found), options.out)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return found


def drawn(found: Findings) -> Figure:
    """The figure with all that was found."""
    layers = len(found.heads.layer_names)
    figure = Figure(figsize=(14, 5 + 0.22 * layers), dpi=130, layout="constrained")
    places = figure.subplot_mosaic([["logits", "stream", "stream"], ["heads", "direct", "needed"]])
    draw_differences(places["logits"], found.differences)
    found.stream.plot(places["stream"])
    places["stream"].set_title("the residual stream of the clean sentence in the corrupt one")
    found.heads.plot(places["heads"])
    places["heads"].set_title("heads of the clean sentence in the corrupt one")
    found.direct.plot(places["direct"])
    places["direct"].set_title("corrupt heads, direct paths to the logits only")
    found.needed.plot(places["needed"])
    places["needed"].set_title("mean ablation")
    return figure


def draw_differences(ax: "Axes", differences: Tensor) -> None:
    ax.hist(differences.tolist(), bins=12, color="0.7", edgecolor="white")
    ax.axvline(0, color="black", linewidth=1)
    right = int((differences > 0).sum())
    ax.set(xlabel="logit of the answer minus logit of the wrong one", ylabel="sentences")
    ax.set_title(f"{right} of {len(differences)} right, mean {differences.mean():.2f}")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/indirect_objects.png", device="cpu")
    parser.add_argument("--model", help="a causal language model to download, or a folder with one")
    parser.add_argument("--count", type=int, default=40, help="pairs of sentences")
    return parser.parse_args(argv)


def loaded(options: argparse.Namespace) -> tuple[HookedModel, Pairs]:
    """The model and its sentences."""
    if options.model is None:
        network, tokenizer, _ = facts_gpt()
        model = HookedModel(network.to(options.device), tokenizer)
        return model, facts(model, options.count)
    network, tokenizer = language_model(options.model)
    model = HookedModel(network.to(options.device).eval(), tokenizer)
    named = list(permutations(NAMES, 2))[: options.count]
    return model, Pairs(
        clean=[SENTENCE.format(first, second, second) for first, second in named],
        corrupt=[SENTENCE.format(first, second, first) for first, second in named],
        answers=[first for first, _ in named],
        wrong=[second for _, second in named],
    )


def facts(model: HookedModel, count: int) -> Pairs:
    """Pairs of facts of the same question and length about two persons, with other answers."""
    world = facts_gpt()[2]
    kinds: dict[tuple[str, int, int], list[tuple[str, str]]] = {}
    for fact in world.facts:
        before = len(model.tokenizer.tokenize(fact.text[: fact.text.index(fact.subject)]))
        length = len(model.tokenizer.tokenize(fact.text))
        question = fact.text.replace(fact.subject, "")
        kinds.setdefault((question, before, length), []).append((fact.text, fact.target))
    listed = max(kinds.values(), key=len)
    pairs = [
        (clean, corrupt)
        for clean, corrupt in zip(listed, listed[1:] + listed[:1], strict=True)
        if clean[1] != corrupt[1]
    ][:count]
    return Pairs(
        clean=[clean[0] for clean, _ in pairs],
        corrupt=[corrupt[0] for _, corrupt in pairs],
        answers=[clean[1] for clean, _ in pairs],
        wrong=[corrupt[1] for _, corrupt in pairs],
    )


if __name__ == "__main__":
    main()
