"""Are networks that learned digits more modular than chance? Plain ones against pruned ones with dropout.

    python experiments/digits_modularity.py [--seeds 5]

Trains perceptrons on scikit-learn's digits, plain and with dropout and pruning to 90 % (Filan et al.,
Clusterability in Neural Networks, 2021), cuts each into 12 clusters, and compares its normalized cut with
those of shuffled weights. The clusters of one pruned network are then removed layer by layer. Prints a table
and writes outputs/digits_modularity.png.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import basic_parser
from toumei.core import seeded
from toumei.misc.modularity import (
    NullTest,
    WeightGraph,
    lesion_test,
    null_test,
    plot_layers,
    spectral_partition,
)
from toumei.plots import look, save_figure

KINDS = ("untrained", "plain", "pruned, dropout")


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    train, test = digits()
    results: dict[str, list[NullTest]] = {kind: [] for kind in KINDS}
    print("network            seed  accuracy   n-cut  shuffled        z")
    for kind in KINDS:
        for seed in range(options.seeds):
            model = trained(kind, train, options.width, options.epochs, seed)
            graph = WeightGraph.from_model(model)
            result = null_test(graph, options.clusters, options.samples, seed)
            results[kind].append(result)
            accuracy = (model(test[0]).argmax(1) == test[1]).double().mean()
            print(
                f"{kind:18} {seed:4}  {accuracy:8.3f}  {result.value:6.3f}  {result.samples.mean():8.3f}  "
                f"{result.z:7.2f}",
                flush=True,
            )
    for kind, tests in results.items():
        print(f"{kind}: mean z {sum(result.z for result in tests) / len(tests):.2f}")
    labels = spectral_partition(graph, options.clusters, seed).labels
    print(lesion_test(model, graph, labels, *test, samples=options.samples, seed=seed))
    draw(options.out, graph, labels, results)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/digits_modularity.png")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--clusters", type=int, default=12)
    parser.add_argument("--samples", type=int, default=50)
    return parser.parse_args(argv)


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images (N, 64) in [0, 1] and classes; a quarter of them is held out."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.data), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(data.data).float()[order] / 16
    classes = torch.from_numpy(data.target).long()[order]
    held_out = len(images) // 4
    return (images[held_out:], classes[held_out:]), (images[:held_out], classes[:held_out])


def trained(kind: str, data: tuple[Tensor, Tensor], width: int, epochs: int, seed: int) -> nn.Module:
    """A perceptron with four hidden layers; pruning begins half-way and leaves a tenth of the weights."""
    with seeded(seed):
        sizes = (64, width, width, width, width, 10)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(0.5 if "dropout" in kind else 0.0)]
        model = nn.Sequential(*layers[:-2])
        if kind == "untrained":
            epochs = 0
        linear = [layer for layer in model if isinstance(layer, nn.Linear)]
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for epoch in range(epochs):
            share = max(0.0, 2 * (epoch + 1) / epochs - 1)  # how far pruning has come
            pruned = 0.9 * (1 - (1 - min(1.0, 1.5 * share)) ** 3) if "pruned" in kind else 0.0
            masks = [largest(layer.weight, 1 - pruned) for layer in linear]
            for rows in torch.randperm(len(data[0])).split(128):
                optimizer.zero_grad()
                F.cross_entropy(model(data[0][rows]), data[1][rows]).backward()
                optimizer.step()
                with torch.no_grad():
                    for layer, mask in zip(linear, masks, strict=True):
                        layer.weight *= mask
    return model.eval()


def largest(weight: Tensor, share: float) -> Tensor:
    """Where the largest weights of a layer are."""
    count = max(1, round(share * weight.numel()))
    return weight.detach().abs() >= weight.detach().abs().flatten().topk(count).values[-1]


def draw(path: str, graph: WeightGraph, labels: Tensor, results: dict[str, list[NullTest]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), layout="constrained", dpi=110)
    grid = figure.add_gridspec(2, len(results), height_ratios=(1, 1.4))
    for column, (kind, tests) in enumerate(results.items()):
        place = tests[-1].plot(figure.add_subplot(grid[0, column]))
        place.set_title(f"{kind}\n{place.get_title()}")
    layers = plot_layers(graph, labels, figure.add_subplot(grid[1, :]), edges=1500)
    layers.set_title(f"{KINDS[-1]}: units by cluster, and the largest weights between them")
    save_figure(figure, path)


if __name__ == "__main__":
    main()
