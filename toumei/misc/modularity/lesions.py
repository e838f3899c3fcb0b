"""Lesion tests: the accuracy of a network without a cluster, compared with random sets of units."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...core.checks import checked
from ...core.errors import ArgumentError, ShapeError
from ...core.finite import check_finite
from ...core.hooks import hooked
from ...core.layout import channel_axis_of
from ...core.modules import evaluating
from ...core.outputs import main_tensor
from ...core.parallel import sweep
from ...core.repeats import check_repeats
from ...core.seeding import make_generator
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.surveys import Survey, survey
from .graph import GraphLike, Labels, WeightGraph, as_graph, check_labels

Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Lesion:
    """The effect of removing the units of a cluster from one layer.

    Attributes:
        layer: The layer.
        cluster: The cluster.
        units: How many units were removed.
        drop: How much the score fell.
        random_mean: The mean drop for random sets of as many units of the layer.
        random_deviation: Its standard deviation; NaN for a single random set.
        p: One-sided p-value of a larger drop than random sets have, (r + 1) / (samples + 1).

    Example:
        >>> lesion = Lesion("fc0", 1, units=4, drop=0.3, random_mean=0.1, random_deviation=0.05, p=0.01)
        >>> lesion.drop > lesion.random_mean
        True
    """

    layer: str
    cluster: int
    units: int
    drop: float
    random_mean: float
    random_deviation: float
    p: float


@dataclass(frozen=True)
class LesionTest(Saved):
    """The lesions of all clusters and layers.

    Attributes:
        score: The score of the whole network.
        lesions: One for each part of a cluster in a layer that can be tested.
        samples: How many random sets each was compared with.

    Example:
        >>> lesion = Lesion("fc0", 1, units=4, drop=0.3, random_mean=0.1, random_deviation=0.05, p=0.01)
        >>> print(LesionTest(0.9, (lesion,), samples=100))
        score 0.900, combined p 0.00505
          fc0 without 4 units of cluster 1: drop 0.300, random 0.100 +- 0.050, p 0.010
    """

    score: float
    lesions: tuple[Lesion, ...]
    samples: int

    @property
    def p(self) -> float:
        """The p-values combined by Fisher's method, each minus half of the smallest possible p-value."""
        from scipy.stats import combine_pvalues

        half = 1 / (2 * (self.samples + 1))
        return float(combine_pvalues([lesion.p - half for lesion in self.lesions]).pvalue)

    def __str__(self) -> str:
        rows = "".join(
            f"\n  {lesion.layer} without {counted(lesion.units, 'unit')} of cluster {lesion.cluster}: "
            f"drop {lesion.drop:.3f}, "
            f"random {lesion.random_mean:.3f} +- {lesion.random_deviation:.3f}, p {lesion.p:.3f}"
            for lesion in self.lesions
        )
        return f"score {self.score:.3f}, combined p {self.p:.3g}{rows}"

    def __repr__(self) -> str:
        return (
            f"LesionTest({counted(len(self.lesions), 'lesion')}, each against "
            f"{counted(self.samples, 'random set')}: score {self.score:.3f}, combined p {self.p:.3g})"
        )


@checked
@torch.no_grad()
def lesion_test(
    model: nn.Module,
    graph: GraphLike,
    labels: Labels,
    inputs: Tensor,
    targets: Tensor,
    *,
    samples: int = 100,
    seed: int = 0,
    score: Score | None = None,
    batch_size: int = 1000,
    jobs: int = 1,
    verbose: bool = False,
) -> LesionTest:
    """Returns how much the score falls without the units of a cluster in a layer, compared with random sets.

    A unit is removed by setting its output to zero. Parts of at least two units and at most 99 % of a layer
    are tested, in all layers of the graph except its inputs and outputs (Filan et al., 2021).

    Args:
        model: The network of the graph.
        graph: The graph, or the network again for all of its layers.
        labels: (nodes,) cluster of each node, or what has them, such as a `SpectralPartition`.
        inputs: (N, ...).
        targets: (N,) classes, or anything that `score` takes.
        samples: How many random sets for each lesion.
        seed: Seed of the random sets.
        score: From outputs and targets to one score for each input, (N,); by default 1 for the right class,
            else 0.
        batch_size: Inputs at a time.
        jobs: How many sets of units are removed at once, in processes or on a cluster; see
            `toumei.core.sweep`. Any number gives the same scores.
        verbose: Show a progress bar.

    Raises:
        ArgumentError: No cluster has a part that can be tested, or fewer than one sample.
        LayerError: A layer of the graph that the model does not have.
        ShapeError: Another number of targets than of inputs.
        NonFiniteError: Outputs that are NaN or infinite.

    Example:
        >>> from toumei.misc import WeightGraph, spectral_partition
        >>> from toumei.models import SimpleMLP
        >>> model = SimpleMLP(4, 8, 2)
        >>> graph = WeightGraph.from_model(model)
        >>> labels = spectral_partition(graph, 2).labels
        >>> inputs, targets = torch.rand(20, 4), torch.randint(2, (20,))
        >>> found = lesion_test(model, graph, labels, inputs, targets, samples=5)
        >>> found.lesions[0].layer, found.samples
        ('fc0', 5)
    """
    graph = as_graph(graph)
    labels = check_labels(graph, labels)
    if samples < 1:
        raise ArgumentError(f"a lesion is compared with at least one random set, got samples={samples}")
    if not inputs.dim() or targets.shape[:1] != inputs.shape[:1]:
        raise ShapeError(
            f"expected inputs (N, ...) and a target for each, got {tuple(inputs.shape)} and "
            f"{tuple(targets.shape)}"
        )
    batches = list(zip(inputs.split(batch_size), targets.split(batch_size), strict=True))
    generator = make_generator(seed)
    parts = list(_parts(graph, labels))
    if not parts:
        raise ArgumentError(
            "no cluster has at least two but not all units of a layer between input and output"
        )
    found = survey(model, [layer for layer, *_ in parts], lambda: model(inputs[:1]))
    without = _ScoreWithout(model, found, batches, score or _is_right)
    removed = [(parts[0][0], torch.zeros(0, dtype=torch.long))]
    for layer, size, _, units in parts:
        drawn = [torch.randperm(size, generator=generator)[: len(units)] for _ in range(samples)]
        removed += [(layer, each) for each in (units, *drawn)]
    lesions = []
    with evaluating(model):
        check_repeats(model, inputs[:1])
        whole, *others = sweep(without, removed, jobs=jobs, verbose=verbose)
        for (layer, _, cluster, units), start in zip(parts, range(0, len(others), samples + 1), strict=True):
            drop, *drops = [whole - each for each in others[start : start + samples + 1]]
            random = torch.tensor(drops)
            p = (int((random >= drop - 1e-12).sum()) + 1) / (samples + 1)
            deviation = float(random.std()) if samples > 1 else float("nan")
            lesion = Lesion(
                layer=layer,
                cluster=cluster,
                units=len(units),
                drop=drop,
                random_mean=float(random.mean()),
                random_deviation=deviation,
                p=p,
            )
            lesions.append(lesion)
    return LesionTest(whole, tuple(lesions), samples)


@dataclass(frozen=True)
class _ScoreWithout:
    """The function of a sweep over sets of units: the mean score without them."""

    model: nn.Module
    found: Survey
    batches: list[tuple[Tensor, Tensor]]
    score: Score

    @torch.no_grad()
    def __call__(self, removed: tuple[str, Tensor]) -> float:
        """Returns the mean score without these units of a layer."""
        layer, units = removed

        def remove(activation: Tensor) -> Tensor:
            axis = channel_axis_of(activation, self.found.layouts[layer], layer)
            return activation.index_fill_(axis, units.to(activation.device), 0)

        with hooked(self.model, edit={self.found.names[layer]: remove} if len(units) else {}):
            scores = []
            for inputs, targets in self.batches:
                outputs = self.model(inputs)
                check_finite(main_tensor(outputs), "the outputs of the network")
                scores.append(self.score(outputs, targets).double().sum())
        return float(torch.stack(scores).sum()) / sum(len(inputs) for inputs, _ in self.batches)


def _parts(graph: WeightGraph, labels: Tensor) -> list[tuple[str, int, int, Tensor]]:
    """Layer, its size, cluster and units of each part of a cluster that can be tested."""
    sources = {block.source for block in graph.blocks}
    targets = {block.target for block in graph.blocks}
    parts = []
    for index, (layer, clusters) in enumerate(graph.by_layer(labels).items()):
        if index in sources and index in targets:
            for cluster in clusters[clusters >= 0].unique().tolist():
                units = (clusters == cluster).nonzero().flatten().cpu()
                if 2 <= len(units) <= 0.99 * len(clusters):
                    parts.append((layer, len(clusters), cluster, units))
    return parts


def _is_right(outputs: Tensor, targets: Tensor) -> Tensor:
    classes = outputs.argmax(-1)
    if classes.shape != targets.shape:
        raise ShapeError(
            f"expected a class for each output {tuple(classes.shape)}, got {tuple(targets.shape)}"
        )
    return classes == targets
