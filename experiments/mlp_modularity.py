"""Two tasks in one perceptron: does it keep them apart by itself, and when it is asked to?

    python experiments/mlp_modularity.py

A perceptron learns two independent functions, each of its own half of the inputs: plainly, with the
clusterability of its weight graph in the loss (Filan et al., 2021), and with the length of its connections in
the loss and units that change places (Liu et al., 2023). Prints for each how well the two halves are found,
and writes the networks, their weights and their null distributions to outputs/mlp_modularity.png.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn
from torch.nn import functional as F

from common import basic_parser
from toumei.core import seeded
from toumei.misc.modularity import (
    LocalityCost,
    WeightGraph,
    clusterability_loss,
    null_test,
    plot_blocks,
    plot_layers,
    spectral_partition,
)
from toumei.models import SimpleMLP
from toumei.plots import look, save_figure

KINDS = ("plain", "clusterability", "locality")


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9), layout="constrained", dpi=110)
    grid = figure.add_gridspec(len(KINDS), 3, width_ratios=(1.2, 1.4, 0.8))
    print("training          loss   n-cut        z  inputs told apart")
    for row, kind in enumerate(KINDS):
        model, loss = trained(kind, options.steps, options.seed)
        graph = WeightGraph.from_model(model)
        labels = spectral_partition(graph, 2, options.seed).labels
        result = null_test(graph, 2, options.samples, options.seed)
        halves = adjusted_rand_score([0] * 6 + [1] * 6, graph.by_layer(labels)["input"])
        print(f"{kind:15} {loss:6.3f}  {result.value:6.3f}  {result.z:7.2f}  {halves:17.2f}", flush=True)
        plot_layers(graph, labels, figure.add_subplot(grid[row, 0]), edges=600).set_title(kind)
        plot_blocks(graph, labels, figure.add_subplot(grid[row, 1]))
        result.plot(figure.add_subplot(grid[row, 2]))
    save_figure(figure, options.out)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/mlp_modularity.png", steps=2000, seed=0)
    parser.add_argument("--samples", type=int, default=50)
    return parser.parse_args(argv)


def goals(inputs: Tensor) -> Tensor:
    """Two functions, (N, 2): each a product of signs and a sum, of its own six inputs."""
    halves = inputs.reshape(-1, 2, 6)
    return (halves[:, :, 0] * halves[:, :, 1]).tanh() + halves[:, :, 2:].sin().mean(2)


def trained(kind: str, steps: int, seed: int) -> tuple[nn.Module, float]:
    with seeded(seed):
        model = SimpleMLP(12, 24, 24, 2)
        cost = LocalityCost(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
        for step in range(steps):
            inputs = torch.randn(256, 12)
            loss = F.mse_loss(model(inputs), goals(inputs))
            extra = torch.zeros(())
            if kind == "clusterability":
                extra = 0.1 * clusterability_loss(model, 1)
            if kind == "locality":
                middle = steps // 4 <= step < steps // 2
                extra = (0.1 if middle else 0.01) * cost()
            optimizer.zero_grad()
            (loss + extra).backward()
            optimizer.step()
            if kind == "locality" and step % 200 == 199:
                cost.swap()
        inputs = torch.randn(2000, 12)
        with torch.no_grad():
            return model, float(F.mse_loss(model(inputs), goals(inputs)))


if __name__ == "__main__":
    main()
