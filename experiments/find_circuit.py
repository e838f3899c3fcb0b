"""Which edges of a transformer carry a behaviour: a circuit, its faithfulness, a picture and a page.

    python experiments/find_circuit.py
    python experiments/find_circuit.py --task induction
    python experiments/find_circuit.py --model HuggingFaceTB/SmolLM2-135M-Instruct --task greater-than

All edges between embeddings, heads, MLPs and logits are scored by edge attribution patching (EAP) and by its
integrated gradients (EAP-IG). On other prompts the model then runs with the strongest 1, 5 and 20 % of them
only, beside as many random ones, and the share of the metric that is left is printed. The strongest edges are
drawn in outputs/find_circuit.png beside these curves, and outputs/find_circuit.html lets one explore them.

By default the model is the small GPT that ships with toumei, and the prompts of a pair ask the same about two
persons: the circuit goes from the name to the MLP of layer 2, and from there through the values of heads in
layers 3 to 5, as its training imposed. ``--task induction`` takes a transformer that is wired by hand, whose
true edges are known: the area under the ROC curve (AUROC) of the scores is printed, too. With ``--model`` the
task is ``ioi``, who gets the drink, or ``greater-than``, in which year a war ended.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from indirect_objects import facts
from matplotlib.figure import Figure

from common import basic_parser, language_model
from toumei.models import InductionTransformer, facts_gpt
from toumei.plots import look, save_figure
from toumei.transformers import HookedModel, logit_difference
from toumei.transformers.circuits import (
    AttributionGraph,
    FaithfulnessCurves,
    PromptPairs,
    attribution_graph,
    faithfulness_curves,
    greater_than,
    indirect_objects,
)

REAL = {"ioi": indirect_objects, "greater-than": greater_than}
METHODS = {"EAP": "eap", "EAP-IG": "eap-ig"}


class Findings(NamedTuple):
    """What the experiment found."""

    graphs: dict[str, AttributionGraph]
    curves: FaithfulnessCurves


@look()
def main(argv: Sequence[str] | None = None) -> Findings:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, pairs, others = loaded(options)
    print(model)
    settings = {"ablation": "zero" if options.task == "induction" else "resample", "verbose": True}
    graphs: dict[str, AttributionGraph] = {}
    for name, method in METHODS.items():
        graphs[name] = attribution_graph(model, *pairs, method, steps=options.steps, **settings)
        print(graphs[name], end="\n\n")
    if isinstance(model.model, InductionTransformer):
        print_auroc(model, graphs, pairs, settings)
    curves = faithfulness_curves(
        model, graphs, *others, shares=options.shares, random=options.random, **settings
    )
    print(curves)
    save_figure(drawn(graphs["EAP-IG"], curves, options.edges), options.out)
    page = Path(options.out).with_suffix(".html")
    graphs["EAP-IG"].save_html(page)
    print(f"{options.out}, {page}, {time.perf_counter() - started:.0f} s")
    return Findings(graphs, curves)


def drawn(graph: AttributionGraph, curves: FaithfulnessCurves, edges: int) -> Figure:
    """The strongest edges, and the faithfulness of circuits."""
    layers = 1 + max(int(label[1:]) for label in graph.writers if label[0] == "m") if len(graph) > 100 else 3
    figure = Figure(figsize=(13, min(4.5 + 0.28 * layers, 14)), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    graph.plot(left, edges=min(edges, len(graph)))
    curves.plot(right)
    right.set_box_aspect(0.8)
    return figure


def print_auroc(
    model: HookedModel, graphs: dict[str, AttributionGraph], pairs: Any, settings: dict[str, Any]
) -> None:
    """How well scores tell the true edges of the wired transformer."""
    true = true_edges(model.model)
    exact = attribution_graph(model, *pairs, "exact", **settings)
    for name, graph in {**graphs, "exact": exact}.items():
        print(f"AUROC of {name}: {graph.auroc(true):.3f}")
    print(f"true edges: {', '.join(true)}\nstrongest by EAP-IG: {graphs['EAP-IG'].top(len(true))}\n")


def true_edges(model: InductionTransformer) -> list[str]:
    """The edges without which the wired transformer predicts something else, by the names of circuits."""
    found = []
    for edge in model.edges:
        writer = edge.sender if "embed" in edge.sender else f"a{edge.sender}"
        found.append(
            f"{writer}->a{edge.receiver}<{edge.kind}>" if edge.kind else f"{writer}->{edge.receiver}"
        )
    return found


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = basic_parser(__doc__, "outputs/find_circuit.png", device="cpu")
    parser.add_argument("--model", help="a causal language model to download, or a folder with one")
    parser.add_argument(
        "--task", choices=("facts", "induction", *REAL), help="default: facts, ioi with --model"
    )
    parser.add_argument("--count", type=int, default=24, help="pairs of prompts")
    parser.add_argument("--steps", type=int, default=5, help="of integrated gradients")
    parser.add_argument("--edges", type=int, default=60, help="edges in the picture")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=(0.01, 0.05, 0.2), help="edges that are kept"
    )
    parser.add_argument("--random", type=int, default=2, help="random circuits for each share")
    options = parser.parse_args(argv)
    options.task = options.task or ("ioi" if options.model else "facts")
    if (options.task in REAL) != (options.model is not None):
        parser.error(f"--task {options.task} goes {'with' if options.task in REAL else 'without'} --model")
    return options


def loaded(options: argparse.Namespace) -> tuple[HookedModel, Any, Any]:
    """The model, the prompts to score edges with, and others to test circuits with."""
    if options.task == "induction":
        model = HookedModel(InductionTransformer(vocabulary=16, positions=24).to(options.device))
        return model, induction(model, options.count, 0), induction(model, options.count, 1)
    if options.model is None:
        network, tokenizer, _ = facts_gpt()
        model = HookedModel(network.to(options.device), tokenizer)
        pairs = facts(model, 2 * options.count)
        return model, of_facts(pairs, slice(0, None, 2)), of_facts(pairs, slice(1, None, 2))
    network, tokenizer = language_model(options.model)
    model = HookedModel(network.to(options.device).eval(), tokenizer)
    first, second = (REAL[options.task](tokenizer, options.count, seed) for seed in range(2))
    return model, first, second


def of_facts(pairs: Any, half: slice) -> PromptPairs:
    """Some of the pairs of facts."""
    metric = logit_difference(pairs.answers[half], pairs.wrong[half])
    return PromptPairs(tuple(pairs.clean[half]), tuple(pairs.corrupt[half]), metric)


def induction(model: HookedModel, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Sequences that repeat up to the middle, others in which another token followed, and the next token."""
    length = 6
    tokens = model.model.sequences(count, length, seed)  # type: ignore[operator]
    clean = tokens[:, : 1 + length + 3]
    answers = clean[:, 4]
    corrupt = clean.clone()
    corrupt[:, 3] = corrupt[:, 5]  # the token before the answer is another one
    wrong = torch.where(answers == 1, 2, 1)
    return clean, corrupt, logit_difference(answers, wrong)


if __name__ == "__main__":
    main()
