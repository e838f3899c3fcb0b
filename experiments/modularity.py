"""Does a trained convolutional network fall into modules? Its weight graph, clusters, and the null model.

    python experiments/modularity.py
    python experiments/modularity.py --model resnet18 --weights DEFAULT

Prints modularity and normalized cut with their z-scores against shuffled weights, and what it costs to remove
clusters from ShapesCNN, and writes outputs/modularity.png: the network in layers, its weight matrices sorted
by cluster, the eigenvalues, and the null distribution.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from common import basic_parser
from toumei.misc import CNNGraph
from toumei.misc.modularity import (
    NullTest,
    SpectralPartition,
    WeightGraph,
    lesion_test,
    modularity,
    null_test,
    plot_blocks,
    plot_layers,
    spectral_partition,
)
from toumei.models import ShapesCNN, ShapesDataset
from toumei.plots import look, save_figure


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model = network(options)
    graph = WeightGraph.from_model(model)
    convolutions = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    graph = graph.without(*[name for name in graph.layers if name not in convolutions])
    print(graph)
    partition = spectral_partition(graph, options.clusters)
    print(partition, f"modularity {modularity(graph, partition.labels):.3f}")
    result = null_test(graph, options.clusters, options.samples, verbose=True)
    print(result)
    print(null_test(graph, options.clusters, options.samples, measure="modularity"))
    if options.model == "shapes":
        found = CNNGraph(model).get_model_modularity(method="louvain")
        print(f"Louvain: {len(found.communities)} communities, Q {found.modularity:.3f}")
        images, classes, _ = ShapesDataset(seed=9).batch(range(options.images))
        print(lesion_test(model, graph, partition.labels, images, classes, samples=options.samples // 2))
    name = "ShapesCNN" if options.model == "shapes" else options.model
    draw(options.out, name, graph, partition, result)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/modularity.png")
    parser.add_argument("--model", default="shapes", help="shapes, or a convolutional network of torchvision")
    parser.add_argument("--weights", help="DEFAULT to download trained ones; else random ones")
    parser.add_argument("--clusters", type=int, default=8)
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--images", type=int, default=200)
    return parser.parse_args(argv)


def network(options: argparse.Namespace) -> nn.Module:
    if options.model == "shapes":
        return ShapesCNN(pretrained=True).eval()
    import torchvision

    model: nn.Module = torchvision.models.get_model(options.model, weights=options.weights)
    return model.eval()


def draw(path: str, name: str, graph: WeightGraph, partition: SpectralPartition, result: NullTest) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), layout="constrained", dpi=110)
    grid = figure.add_gridspec(2, 4)
    layers = plot_layers(graph, partition.labels, figure.add_subplot(grid[0, :3]))
    layers.set_title(
        "channels (points) and the strongest weights: coloured inside a cluster, gray between two"
    )
    blocks = plot_blocks(graph, partition.labels, figure.add_subplot(grid[1, :3]))
    blocks.set_title("sizes of the kernels: rows are channels, columns their inputs, both sorted by cluster")
    partition.plot(figure.add_subplot(grid[0, 3])).set_title("a gap shows the number of clusters")
    null = result.plot(figure.add_subplot(grid[1, 3]))
    null.set_title(f"weights cut, network against shuffled\n{null.get_title()}")
    clusters = partition.n_clusters
    figure.suptitle(f"{name}: {len(graph)} channels in {clusters} clusters by spectral clustering")
    save_figure(figure, path)


if __name__ == "__main__":
    main()
