"""Which attribution method finds known circuits, and at which cost?

    python experiments/attribution_circuits.py

Each node of a network, a head, an MLP or a channel, gets a score by gradient times difference, integrated
gradients, DeepLift, Shapley values and ablation (`toumei.misc.circuits`), on five networks:

- a wired transformer with induction heads, whose circuit is two of its four heads,
- the small GPT that ships with the package, which was trained to recall facts in the MLP of layer 2 and to
  read them by the heads of layers 3 to 5,
- the transformer that adds modulo 113, which needs all of its heads and its MLP,
- a wired convolutional network with a redundancy: either of two channels suffices,
- ShapesCNN, whose circuit nobody knows.

The table has for each network the AUROC of the known nodes, the area under the faithfulness of the strongest
nodes (CPR), and the forward and backward passes of an input. Writes outputs/attribution_circuits.png.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mode
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import nn

from common import basic_parser
from toumei.attribution import KernelShap, Occlusion, ShapleySampling
from toumei.misc.circuits import CircuitDetector, Faithfulness, NodeCircuit
from toumei.models import InductionTransformer, ModularAddition, ShapesCNN, ShapesDataset, facts_gpt
from toumei.plots import look, save_figure
from toumei.transformers import HookedModel
from toumei.transformers.patching import logit_difference

METHODS: dict[str, Any] = {
    "gradient": "gradient",
    "integrated gradients": "integrated_gradients",
    "DeepLift": "deep_lift",
    "Shapley": partial(ShapleySampling, samples=64, verbose=False),
    "ablation": partial(Occlusion, window=1, verbose=False),
}
WIDTHS = (7.5, 5.8, 4.1, 2.4, 1.0)  # of the curves of the methods: those that coincide are all seen
TITLES = {
    "induction": "induction heads, wired",
    "facts": "facts in the small GPT",
    "addition": "addition modulo 113",
    "redundant channels": "redundant channels, wired",
    "shapes": "shapes in ShapesCNN",
}
EDGES = 224  # between all nodes of each network


@dataclass(frozen=True)
class Case:
    """A network, a question to it, and the nodes that are known to answer it.

    Attributes:
        model: The network.
        nodes: See `CircuitDetector`.
        data: Inputs, baselines, target.
        known: The nodes of the known circuit; empty where none is known, or all are needed.
    """

    model: nn.Module | HookedModel
    nodes: list[str] | None
    data: tuple[Any, Any, Any]
    known: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """What one method found in one network."""

    circuit: NodeCircuit
    curve: Faithfulness
    auroc: float | None


@look()
def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, Row]]:
    """Returns what was found, by network and method."""
    args = _arguments(argv)
    started = time.perf_counter()
    found = {name: rows(CASES[name](args)) for name in args.networks}
    for name, of_network in found.items():
        print(f"\n{name}: {len(next(iter(of_network.values())).circuit)} nodes\n")
        print("| method | AUROC | CPR | CPR of random nodes | forward | backward | strongest |")
        print("|---|---:|---:|---:|---:|---:|---|")
        for method, row in of_network.items():
            auroc = "-" if row.auroc is None else f"{row.auroc:.2f}"
            print(
                f"| {method} | {auroc} | {row.curve.cpr:.2f} | {row.curve.random_cpr:.2f} "
                f"| {row.circuit.passes:.0f} | {row.circuit.backward_passes:.0f} "
                f"| {', '.join(row.circuit.order[:4])} |"
            )
    save_figure(drawn(found), args.out)
    print(f"\nfigure in {args.out}, {time.perf_counter() - started:.0f} s")
    return found


def rows(case: Case) -> dict[str, Row]:
    """What each method finds in a network."""
    found = {}
    for name, method in METHODS.items():
        if name == "Shapley" and isinstance(case.model, ShapesCNN):
            method = partial(KernelShap, samples=512, verbose=False)  # orders of 224 nodes take too long
        detector = CircuitDetector(case.model, case.nodes, method, edges=EDGES if name == "DeepLift" else 0)
        circuit = detector(*case.data)
        curve = detector.faithfulness(circuit, *case.data, random=10)
        found[name] = Row(circuit, curve, circuit.auroc(case.known) if case.known else None)
    return found


def drawn(found: dict[str, dict[str, Row]]) -> Figure:
    """The faithfulness of each method on each network, and the circuit by DeepLift where it has edges."""
    names = list(found)
    figure = Figure(figsize=(3.4 * len(names), 6.6), dpi=130, layout="constrained")
    axes = figure.subplots(2, len(names), squeeze=False, height_ratios=(1, 1.2))
    for column, name in enumerate(names):
        curves, below = axes[:, column]
        for width, (method, row) in zip(WIDTHS, found[name].items(), strict=True):
            curves.plot(row.curve.sizes, row.curve.values, linewidth=width, label=method)
        random = next(iter(found[name].values())).curve
        curves.plot(random.sizes, random.random.mean(0), color="0.6", linestyle="--", label="random nodes")
        curves.axhline(1, color="0.6", linewidth=0.6)
        curves.set(title=TITLES[name], xlabel="nodes that are kept")
        curves.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        circuit = found[name]["DeepLift"].circuit
        (circuit.prune(5, by_site=True) if name == "shapes" else circuit.prune(10)).plot(below)
        below.set_title("the circuit by DeepLift")
    axes[0, 0].set_ylabel("share of the score")
    labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(*labels, loc="outside upper center", ncols=len(labels[1]))
    return figure


def induction(args: argparse.Namespace) -> Case:
    """A repeated sequence; in the baseline the token before the answer has not been there before."""
    model = InductionTransformer(vocabulary=32, positions=32)
    clean = model.sequences(args.inputs, 8)[:, :-1]
    answers = clean[:, 8]
    unused = torch.tensor([min({*range(1, 32)} - set(row)) for row in clean.tolist()])
    corrupt = clean.clone()
    corrupt[:, 7] = unused
    metric = logit_difference(answers, unused)
    return Case(HookedModel(model), None, (clean, corrupt, metric), ("0.0", "1.0"))


def facts(args: argparse.Namespace) -> Case:
    """A fact; in the baseline the same is asked about a subject with another answer.

    Phrasings have different lengths, so those of the most frequent length are taken.
    """
    model, tokenizer, world = facts_gpt()
    asked = [fact for fact in world.facts if fact.relation == "residence"]
    asked = [fact for fact in asked if len(fact.subject.split()) == 2]
    pairs = [
        (first.text, first.prompt.format(second.subject), first.target, second.target)
        for first, second in zip(asked[::2], asked[1::2], strict=False)
        if first.target != second.target
    ]
    counts = [len(tokenizer(text).input_ids) for text, *_ in pairs]
    pairs = [pair for pair, count in zip(pairs, counts, strict=True) if count == mode(counts)]
    clean, corrupt, answers, wrong = (list(column) for column in zip(*pairs[: args.inputs], strict=True))
    heads = tuple(f"{layer}.{head}" for layer in (3, 4, 5) for head in range(4))
    data = (clean, corrupt, logit_difference(answers, wrong))
    return Case(HookedModel(model, tokenizer), None, data, ("mlp.2", *heads))


def addition(args: argparse.Namespace) -> Case:
    """A sum; in the baseline both numbers are others."""
    model = ModularAddition(pretrained=True)
    tokens, sums = model.pairs()
    order = torch.randperm(len(sums), generator=torch.Generator().manual_seed(0))
    first, second = order[: args.inputs], order[args.inputs : 2 * args.inputs]
    differs = sums[first] != sums[second]
    first, second = first[differs], second[differs]
    data = (tokens[first], tokens[second], logit_difference(sums[first], sums[second]))
    return Case(HookedModel(model), None, data)


def redundant(args: argparse.Namespace) -> Case:
    """A network that says whether the first or the second colour is there: either of two channels suffices.

    Channel 0 of relu2 is on unless channel 0 or 1 of relu1 is on, and turns the output off. The other
    channels of both layers are active, too, and change the output a little.
    """
    model = nn.Sequential()
    for name, layer in (
        ("conv1", nn.Conv2d(3, 8, 1)),
        ("relu1", nn.ReLU()),
        ("conv2", nn.Conv2d(8, 8, 1)),
        ("relu2", nn.ReLU()),
        ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("head", nn.Linear(8, 1)),
    ):
        model.add_module(name, layer)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator))
        layers: dict[str, Any] = dict(model.named_children())
        conv1, conv2, head = (layers[name] for name in ("conv1", "conv2", "head"))
        conv1.weight[:2] = torch.eye(3)[:2, :, None, None]
        conv2.weight[0] = torch.tensor([-1.0, -1.0, *[0.0] * 6])[:, None, None]
        conv2.weight[1:, :2] = 0
        conv2.bias[0], conv1.bias[:2] = 1.0, 0.0
        head.weight.copy_(torch.tensor([[-1.0, *[0.005] * 7]]))
    images = torch.ones(args.inputs, 3, 4, 4) + 0.2 * torch.rand(args.inputs, 3, 4, 4, generator=generator)
    return Case(model, ["relu1", "relu2"], (images, 0.0, 0), ("relu1:0", "relu1:1", "relu2:0"))


def shapes(args: argparse.Namespace) -> Case:
    """Images of shapes before a gray baseline."""
    images, labels, _ = ShapesDataset(seed=5).batch(range(min(args.inputs, 4)))
    return Case(ShapesCNN(pretrained=True).eval(), ["relu5", "relu6"], (images, 0.5, labels))


CASES: dict[str, Callable[[argparse.Namespace], Case]] = {
    "induction": induction,
    "facts": facts,
    "addition": addition,
    "redundant channels": redundant,
    "shapes": shapes,
}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/attribution_circuits.png")
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--inputs", type=int, default=16, help="of each network")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
