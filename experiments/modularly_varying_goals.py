"""Do goals that keep changing make a network modular? Sums of two digits, whose signs alternate.

    python experiments/modularly_varying_goals.py [--seeds 5]

A perceptron sees two of scikit-learn's digits x and y beside each other and learns a * x + b * y. The goal
stays (a, b) = (1, 1), or alternates with (-1, 1): such goals share their parts and differ in how they are put
together, which makes evolved networks modular (Kashtan and Alon, 2005). A third kind of network has two
modules by construction. Prints error, normalized cut into two and modularity, with z-scores against shuffled
weights, and writes outputs/modularly_varying_goals.png.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn
from torch.nn import functional as F

from common import basic_parser
from toumei.core import seeded
from toumei.misc.modularity import WeightGraph, null_test, plot_layers, spectral_partition
from toumei.models import SimpleMLP
from toumei.plots import look, save_figure

KINDS = ("fixed goal", "varying goals", "known modules")
SIZES = (128, 48, 24, 1)
MEASURES = {
    "n-cut": ("how much is cut, seed by seed", "n-cut"),
    "z": ("against shuffled networks", "z of the n-cut"),
    "halves": ("are the two digits kept apart?", "adjusted Rand index"),
}


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    images, digits = two_digits()
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    drawn = []
    print("network         seed   error   n-cut        z       Q        z  halves found")
    for kind in KINDS:
        for seed in range(options.seeds):
            model, error = trained(kind, images, digits, options, seed)
            graph = WeightGraph.from_model(model)
            labels = spectral_partition(graph, 2, seed).labels
            cut = null_test(graph, 2, options.samples, seed)
            quality = null_test(graph, 2, options.samples, seed, measure="modularity")
            halves = adjusted_rand_score([0] * 64 + [1] * 64, graph.by_layer(labels)["input"])
            row = {"error": error, "n-cut": cut.value, "z": cut.z, "Q": quality.value, "z of Q": quality.z}
            rows[kind].append({**row, "halves": halves})
            print(
                f"{kind:15} {seed:4} {error:7.3f} {cut.value:7.3f} {cut.z:8.2f} {quality.value:7.3f} "
                f"{quality.z:8.2f} {halves:13.2f}",
                flush=True,
            )
        drawn.append((kind, graph, labels))
    for kind, own in rows.items():
        means = {key: statistics.mean(row[key] for row in own) for key in own[0]}
        print(f"{kind}: " + ", ".join(f"{key} {value:.3f}" for key, value in means.items()))
    draw(options.out, drawn, rows)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/modularly_varying_goals.png")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--period", type=int, default=25, help="epochs between two changes of the goal")
    parser.add_argument("--samples", type=int, default=50)
    return parser.parse_args(argv)


def two_digits(count: int = 4000) -> tuple[Tensor, Tensor]:
    """Pairs of images (N, 128) in [0, 1] and of digits (N, 2)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pairs = torch.randint(len(data.data), (count, 2), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(data.data).float()[pairs].flatten(1) / 16
    return images, torch.from_numpy(data.target).float()[pairs]


def trained(
    kind: str, images: Tensor, digits: Tensor, options: argparse.Namespace, seed: int
) -> tuple[nn.Module, float]:
    """A network and its mean squared error on held-out pairs, as a share of the variance."""
    with seeded(seed):
        model = SimpleMLP(*SIZES)
        hidden = [layer for layer in model if isinstance(layer, nn.Linear)][:-1]
        masks = [module_mask(layer) if kind == "known modules" else 1.0 for layer in hidden]
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
        held_out = len(images) // 5
        for epoch in range(options.epochs):
            target = goal(digits, kind == "varying goals" and epoch // options.period % 2 == 1)
            for rows in (torch.randperm(len(images) - held_out) + held_out).split(200):
                optimizer.zero_grad()
                F.mse_loss(model(images[rows])[:, 0], target[rows]).backward()
                optimizer.step()
                with torch.no_grad():
                    for layer, mask in zip(hidden, masks, strict=True):
                        layer.weight *= mask
        with torch.no_grad():
            wanted = target[:held_out]
            error = F.mse_loss(model(images[:held_out])[:, 0], wanted) / wanted.var()
    return model, float(error)


def goal(digits: Tensor, turned: bool) -> Tensor:
    return (digits[:, 1] - digits[:, 0] if turned else digits.sum(1)) / 10


def module_mask(layer: nn.Linear) -> Tensor:
    out, into = layer.weight.shape
    result: Tensor = torch.block_diag(*[torch.ones(out // 2, into // 2)] * 2)
    return result


def draw(
    path: str, drawn: list[tuple[str, WeightGraph, Tensor]], rows: dict[str, list[dict[str, float]]]
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained", dpi=110)
    grid = figure.add_gridspec(2, 3, height_ratios=(1.4, 1))
    for column, (kind, graph, labels) in enumerate(drawn):
        plot_layers(graph, labels, figure.add_subplot(grid[0, column]), edges=1000).set_title(kind)
    for column, key in enumerate(MEASURES):
        place = figure.add_subplot(grid[1, column])
        for index, (kind, own) in enumerate(rows.items()):
            place.plot([index] * len(own), [row[key] for row in own], "o", alpha=0.6, label=kind)
        place.set_xticks(range(len(rows)), rows)
        title, label = MEASURES[key]
        place.set(title=title, ylabel=label)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
