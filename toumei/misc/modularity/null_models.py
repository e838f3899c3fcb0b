"""Null tests: is a network more modular than graphs with the same weights in shuffled positions?"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.parallel import sweep
from ...core.seeding import make_generator
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import specs
from ...plots.style import look_of
from .graph import Block, GraphLike, WeightGraph, as_graph
from .plots import plot_null_test
from .quality import modularities, ncuts
from .spectral import CLUSTERING_TOLERANCE, k_means, laplacian_eigenpairs, spectral_partition

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Shuffle = Literal["layer", "layer-nonzero"]
ModularityMeasure = Literal["ncut", "modularity"]
_MEASURES = {"ncut": ncuts, "modularity": modularities}
_BYTES = 2**30  # for the weights of the shuffled graphs that an accelerator clusters at once


@dataclass(frozen=True, eq=False)
class NullTest(Saved):
    """A measured value, and those of shuffled networks.

    Attributes:
        measure: The measured quantity.
        value: The value of the network.
        samples: (S,) the values of the shuffled networks, on the CPU.
        n_clusters: How many clusters each graph was divided into.

    Example:
        >>> test = NullTest("ncut", 0.1, torch.linspace(0.5, 0.9, 99), 2)
        >>> test.verdict, round(test.p, 2)
        ('more modular than shuffled', 0.01)
    """

    measure: ModularityMeasure
    value: float
    samples: Tensor
    n_clusters: int

    _specs = specs(samples="shuffles")

    @property
    def z(self) -> float:
        """The difference of the value from the mean of the samples, in standard deviations.

        If the network is more modular than chance, it is negative for a normalized cut, positive for
        modularity.
        """
        deviation = float(self.samples.std())
        difference = self.value - float(self.samples.mean())
        return difference / deviation if deviation else difference and difference * float("inf")

    @property
    def p(self) -> float:
        """The one-sided p-value of being more modular than chance, (r + 1) / (S + 1)."""
        better = self.samples <= self.value if self.measure == "ncut" else self.samples >= self.value
        return (int(better.sum()) + 1) / (len(self.samples) + 1)

    @property
    def verdict(self) -> str:
        """Whether the network is more modular than the shuffled ones, in words, at a level of 0.05."""
        return f"{'more' if self.p <= 0.05 else 'not more'} modular than shuffled"

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the distribution of the samples and the measured value."""
        axes = plot_null_test(self.samples, self.value, self.measure, ax)
        with look_of(ax):
            axes.set_title(f"{self.verdict}: z {self.z:.1f}, p {self.p:.2g}")
        return axes

    def __repr__(self) -> str:
        return (
            f"NullTest({self.measure} {self.value:.4g} of {counted(self.n_clusters, 'cluster')} against "
            f"{self.samples.mean():.4g} +- {self.samples.std():.2g} of "
            f"{counted(len(self.samples), 'shuffle')}: {self.verdict}, z {self.z:.2f}, p {self.p:.3g})"
        )


@checked
def null_test(
    graph: GraphLike,
    n_clusters: int | None = None,
    samples: int = 50,
    seed: int = 0,
    *,
    shuffle: Shuffle = "layer",
    measure: ModularityMeasure = "ncut",
    jobs: int = 1,
    verbose: bool = False,
) -> NullTest:
    """Returns how modular a graph is, compared with graphs whose weights are shuffled within each block.

    The network and each shuffled graph are clustered in the same way, into the same number of clusters (Filan
    et al., Clusterability in Neural Networks, 2021).

    Args:
        graph: A graph, or a network.
        n_clusters: As for `spectral_partition`; 12 in the paper.
        samples: How many shuffled graphs.
        seed: Seed of the shuffles and the clusterings.
        shuffle: ``"layer"`` permutes all weights of a block, ``"layer-nonzero"`` those that are not zero,
            so that the zeros of a pruned network keep their positions.
        measure: ``"ncut"`` or ``"modularity"``.
        jobs: How many shuffled graphs are clustered at once, in processes or on a cluster; see
            `toumei.core.sweep`. Any number gives the same values.
        verbose: Show a progress bar.

    Raises:
        ArgumentError: Fewer than two samples, an unknown shuffle or measure, or more clusters than units.

    Example:
        >>> from toumei.misc.modularity import chain
        >>> blocks = [torch.block_diag(*[torch.rand(8, 8) for _ in range(2)]) for _ in range(3)]
        >>> null_test(chain("abcd", blocks), 2, samples=10).z < -3
        True
    """
    if samples < 2:
        raise ArgumentError(f"a null test needs at least 2 samples, got {samples}")
    if shuffle not in get_args(Shuffle) or measure not in get_args(ModularityMeasure):
        raise ArgumentError(
            f"shuffle is one of {get_args(Shuffle)} and measure one of {get_args(ModularityMeasure)}, "
            f"got {shuffle!r} and {measure!r}"
        )
    graph = as_graph(graph)
    found = spectral_partition(graph, n_clusters, seed)
    task = _ShuffleTask(graph, found.n_clusters, seed, shuffle, measure)
    values = sweep(task, _seeds(graph, samples, seed), jobs=jobs, verbose=verbose)
    value = float(_MEASURES[measure](graph, found.labels))
    return NullTest(measure=measure, value=value, samples=torch.cat(values), n_clusters=found.n_clusters)


@dataclass(frozen=True)
class _ShuffleTask:
    """The function of a sweep over shuffled graphs; the attributes are arguments of `null_test`."""

    graph: WeightGraph
    n_clusters: int
    seed: int
    shuffle: Shuffle
    measure: ModularityMeasure

    def __call__(self, seeds: list[int]) -> Tensor:
        """Returns the measure of shuffled graphs, one for each seed."""
        shuffled = _shuffled(self.graph, seeds, self.shuffle)
        labels = _labels(shuffled, self.n_clusters, self.seed)
        return _MEASURES[self.measure](shuffled, labels).cpu()


def _labels(graph: WeightGraph, n_clusters: int, seed: int) -> Tensor:
    """The clusters of S graphs in one, (S, nodes)."""
    degrees = graph.degrees()
    _, vectors = laplacian_eigenpairs(graph, n_clusters, seed, tolerance=CLUSTERING_TOLERANCE)
    points = vectors * torch.where(degrees > 0, degrees, 1).rsqrt()[..., None]
    return torch.stack(
        [k_means(each, kept, n_clusters, seed) for each, kept in zip(points, degrees > 0, strict=True)]
    )


def _seeds(graph: WeightGraph, samples: int, seed: int) -> list[list[int]]:
    """The seeds of shuffled graphs, those together that are clustered at once.

    As many are clustered at once as fit into the memory of an accelerator; on the CPU one.
    """
    size = sum(block.weight.numel() * block.weight.element_size() for block in graph.blocks)
    batch = 1 if graph.device.type == "cpu" else max(1, min(samples, _BYTES // size))
    seeds = torch.randint(2**63 - 1, (samples,), generator=make_generator(seed))
    return [some.tolist() for some in seeds.split(batch)]


def _shuffled(graph: WeightGraph, seeds: list[int], shuffle: Shuffle) -> WeightGraph:
    """Several shuffled graphs in one."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    blocks = [
        replace(block, weight=torch.stack([_permuted(block, shuffle, each) for each in generators]))
        for block in graph.blocks
    ]
    return replace(graph, blocks=tuple(blocks))


def _permuted(block: Block, shuffle: Shuffle, generator: torch.Generator) -> Tensor:
    """The weights of a block in shuffled positions; symmetric if the block is."""
    within = block.source == block.target
    if shuffle == "layer" and not within:
        order = torch.randperm(block.weight.numel(), generator=generator)
        return block.weight.flatten()[order.to(block.weight.device)].reshape(block.weight.shape)
    weight = block.weight.triu(1) if within else block.weight
    movable = torch.ones_like(weight, dtype=torch.bool)
    movable = movable.triu(1) if within else movable
    if shuffle == "layer-nonzero":
        movable = movable & (weight != 0)
    values = weight[movable]
    order = torch.randperm(len(values), generator=generator).to(values.device)
    result = torch.zeros_like(weight).masked_scatter(movable, values[order])
    return result + result.mT if within else result
