"""Modularity: building graphs, spectral clustering and null tests against networkx and scikit-learn.

In one run, in turns: a graph of a million edges clustered by us and by SpectralClustering on the same matrix;
a null test of 50 shuffles against one clustering; a networkx graph built by us and edge by edge; resnet18 and
vgg11 with graph, clustering and ten shuffles; published n-cuts of untrained networks.

    python benchmarks/modularity.py [--rounds 3]
"""

import statistics
import time
from itertools import pairwise

import networkx as nx
import torch
from torch import nn

from timing import Call, Times, basic_parser, in_turns, ratios, write
from toumei.misc import MLPGraph
from toumei.misc.modularity import WeightGraph, chain, ncut, null_test, spectral_partition
from toumei.models import SimpleMLP


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = basic_parser(__doc__, device=False)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    results = {
        **clustering(options.rounds),
        **building(options.rounds),
        **published(),
        **real_networks(),
    }
    write(results, options.json)
    return results


def clustering(rounds: int) -> dict[str, float]:
    from sklearn.cluster import SpectralClustering

    graph = glorot((770, 520, 520, 520), 0)
    matrix = graph.adjacency().double().numpy()
    print(f"{graph}, {len(graph)} nodes")
    peer = SpectralClustering(12, affinity="precomputed", n_init=10, random_state=0)
    own, theirs = spectral_partition(graph, 12).labels, torch.from_numpy(peer.fit_predict(matrix)).long()
    times = measured(
        {
            "ours": lambda: spectral_partition(graph, 12),
            "scikit-learn": lambda: peer.fit_predict(matrix),
            "null test": lambda: null_test(graph, 12, samples=50),
        },
        rounds,
    )
    figures = {
        "clustering: ours / scikit-learn": ratio(times, "ours", "scikit-learn"),
        "clustering: n-cut, ours / scikit-learn": ncut(graph, own) / ncut(graph, theirs),
        "null test of 50 / one clustering": ratio(times, "null test", "ours"),
    }
    wanted = ("at most 0.33", "within 0.01 of 1", "at most 60")
    show(figures, wanted)
    return figures


def building(rounds: int) -> dict[str, float]:
    model = SimpleMLP(256, 256, 256)
    times = measured(
        {
            "ours": lambda: MLPGraph(model),
            "ours, edges read": lambda: MLPGraph(model).number_of_edges(),
            "one by one": lambda: edge_by_edge(model),
        },
        rounds,
    )
    figures = {
        "building: one by one / ours": ratio(times, "one by one", "ours"),
        "building: one by one / ours, edges read": ratio(times, "one by one", "ours, edges read"),
    }
    show(figures, ("at least 20", ""))
    return figures


def published() -> dict[str, float]:
    """Untrained networks of Filan et al. (2021), 12 clusters."""
    figures = {}
    for name, initialise, wanted in (
        ("Glorot-uniform", glorot, "10.295 +- 0.05"),
        ("modular initialisation", modular, "6.799 +- 0.05"),
    ):
        cuts = []
        for seed in range(20):
            graph = initialise((784, 256, 256, 256, 256, 10), seed)
            cuts.append(ncut(graph, spectral_partition(graph, 12, seed).labels))
        key = f"n-cut of 20 networks, {name}"
        figures[key] = statistics.mean(cuts)
        print(f"  {key}: {figures[key]:.3f} +- {statistics.stdev(cuts):.3f}, published {wanted}")
    return figures


def real_networks() -> dict[str, float]:
    import torchvision

    figures = {}
    for name in ("resnet18", "vgg11_bn"):
        model = getattr(torchvision.models, name)(weights=None).eval()
        start = time.perf_counter()
        graph = WeightGraph.from_model(model)
        result = null_test(graph, 12, samples=10)
        figures[f"{name}, seconds"] = time.perf_counter() - start
        print(f"  {name}: {figures[f'{name}, seconds']:.1f} s wanted at most 60, {result}")
    return figures


def glorot(sizes: tuple[int, ...], seed: int) -> WeightGraph:
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.empty(after, before) for before, after in pairwise(sizes)]
    for weight in weights:
        nn.init.xavier_uniform_(weight, generator=generator)
    return chain(map(str, range(len(sizes))), weights)


def modular(sizes: tuple[int, ...], seed: int, modules: int = 10) -> WeightGraph:
    """Weights within a module times 4.6, between modules times 0.6, units dealt to modules at random."""
    generator = torch.Generator().manual_seed(1000 + seed)
    owners = [torch.randint(modules, (size,), generator=generator) for size in sizes]
    graph = glorot(sizes, seed)
    weights = [
        block.weight * torch.where(owners[i + 1][:, None] == owners[i], 1 + 0.4 * (modules - 1), 0.6)
        for i, block in enumerate(graph.blocks)
    ]
    return chain(graph.layers, weights)


def edge_by_edge(model: nn.Sequential) -> "nx.Graph[tuple[int, int]]":
    graph: nx.Graph[tuple[int, int]] = nx.Graph()
    layers = [module for module in model if isinstance(module, nn.Linear)]
    for index, layer in enumerate(layers):
        for target in range(layer.out_features):
            for source in range(layer.in_features):
                weight = abs(layer.weight[target, source].item())
                graph.add_edge((index, source), (index + 1, target), weight=weight)
    return graph


def measured(contenders: dict[str, Call], rounds: int) -> Times:
    times = in_turns(contenders, rounds)
    for name, values in times.items():
        print(f"  {name}: {1000 * statistics.median(values):.0f} ms")
    return times


def ratio(times: Times, name: str, over: str) -> float:
    return statistics.median(ratios(times, name, over))


def show(figures: dict[str, float], wanted: tuple[str, ...]) -> None:
    for (name, value), bar in zip(figures.items(), wanted, strict=True):
        print(f"  {name}: {value:.3f}{bar and f', wanted {bar}'}")


if __name__ == "__main__":
    main()
