"""PartitionSHAP: Owen values of a hierarchy of features."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

import torch
from torch import Tensor

from ...core.checks import check_counts, check_memory
from ...core.errors import ArgumentError
from ..base.batching import BATCH_SIZE
from ..base.inputs import Layers, Preprocess
from ..base.models import ModelLike
from .coalitions import CoalitionMethod, Game, Solution
from .features import FeaturesLike

Hierarchy = int | Sequence["Hierarchy"]

_SHARE = 4  # one in four of the groups that wait is split at a time


class PartitionShap(CoalitionMethod):
    """Owen values of features in a hierarchy (Owen, 1977; the partition explainer of the package shap).

    The value of a group is divided between its two halves, with the other groups shown or hidden as a whole:
    the mean over the orders that keep every group together. It takes at most M^2 passes, and fewer on
    request: the groups with the largest values are split first, and the value of a group that is not split is
    divided evenly. Which ones are split depends on the input and the target alone.

    Args:
        model: The network; as no gradients are needed, a function or an estimator will do (`as_network`).
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs.
        preprocess: Applied to the inputs before the network.
        hierarchy: Pairs of pairs of ... features, counted from 0 on in the order of their numbers; by default
            features are halved by their positions.
        samples: Most coalitions for each input and target; a coalition for several targets passes once.
        features: Which numbers belong together, as for every `CoalitionMethod`: whole numbers in the shape of
            the inputs, or a function from the inputs to them. By default superpixels of pictures, else each
            position, token or column.
        channel_axis: The axis of the channels; for signals (N, C, L), the inputs of an nn.Conv1d, give 1.
        baseline_samples: A score is the mean over so many samples of a random baseline, such as `FromData`.
        batch_size: How many inputs pass through the network at a time.
        seed: Seed of a random baseline.
        verbose: Show progress after two seconds.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
        >>> method = PartitionShap(model, hierarchy=((0, 3), (1, 2)))
        >>> result = method(torch.randn(5, 4), target=1)
        >>> bool(result.gap.abs().max() < 1e-5)
        True
    """

    def __init__(
        self,
        model: ModelLike,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        hierarchy: Hierarchy | None = None,
        samples: int = 500,
        features: FeaturesLike = None,
        channel_axis: int | None = None,
        baseline_samples: int = 10,
        batch_size: int = BATCH_SIZE,
        seed: int | None = 0,
        verbose: bool = True,
    ) -> None:
        super().__init__(
            model,
            layer,
            preprocess,
            features=features,
            channel_axis=channel_axis,
            baseline_samples=baseline_samples,
            batch_size=batch_size,
            seed=seed,
            verbose=verbose,
        )
        check_counts(0, samples=samples)
        self.hierarchy = hierarchy
        self.samples = samples
        if hierarchy is not None:
            list(_leaves(hierarchy))  # raises an error for groups that are not pairs

    def solve(self, game: Game) -> Solution:
        """Returns the values.

        Raises:
            ArgumentError: A hierarchy that does not hold each feature once.
        """
        check_memory(
            f"a hierarchy of {game.count:,} features",
            game.count**2 // 8,  # every group is a number with a bit for each feature
            "give fewer features=..., such as superpixels",
            itemsize=1,
            most=2**31,
        )
        if self.hierarchy is not None:
            trees = [_tree(self.hierarchy, game.count)] * len(game.rows)
        else:
            found = [centres(game.only(row)) for row in range(len(game.rows))]
            trees = [_halved(of_input, torch.arange(game.count)) for of_input in found]
        return Solution(owen_values(game, trees, self.samples))


@dataclass(frozen=True)
class Node:
    """A group of features, and its two halves unless it is a single feature.

    Attributes:
        features: Their numbers.
        halves: The two groups that form it.
        bits: The group as a coalition, a number whose bit i says that feature i is in it.
    """

    features: tuple[int, ...]
    halves: "tuple[Node, Node] | None" = None
    bits: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", sum(1 << feature for feature in self.features))


@dataclass(frozen=True)
class _Turn:
    """A group that is shown after some others.

    Attributes:
        node: The group.
        others: The coalition of those others.
        without: The score with the others alone.
        with_: The score with the others and the group.
        weight: The share of orders in which exactly these others come first.
    """

    node: Node
    others: int
    without: float
    with_: float
    weight: float


class _Splits:
    """The values of one input's features for one target, refined as groups are split."""

    def __init__(self, tree: Node, empty: float, full: float, samples: int) -> None:
        self.values = [0.0] * len(tree.features)
        self.left = samples // 2  # a split takes the scores of two coalitions
        self.made = 0
        self.waiting: list[tuple[float, int, _Turn]] = []
        self.splitting: list[_Turn] = []
        self._wait(_Turn(tree, 0, empty, full, 1.0))

    def ask(self) -> list[int]:
        """Returns the coalitions with which the groups with the largest values are split, none at the end."""
        number = min(-(-len(self.waiting) // _SHARE), self.left)
        self.left -= number
        self.splitting = [heappop(self.waiting)[2] for _ in range(number)]
        return [turn.others | half.bits for turn in self.splitting for half in turn.node.halves or ()]

    def split(self, scores: Sequence[float]) -> None:
        """Splits groups into their halves, given the scores of the coalitions from `ask`."""
        for turn, first, second in zip(self.splitting, scores[::2], scores[1::2], strict=True):
            assert turn.node.halves is not None
            left, right = turn.node.halves
            others, without, with_, weight = turn.others, turn.without, turn.with_, turn.weight / 2
            self._wait(_Turn(left, others, without, first, weight))
            self._wait(_Turn(left, others | right.bits, second, with_, weight))
            self._wait(_Turn(right, others, without, second, weight))
            self._wait(_Turn(right, others | left.bits, first, with_, weight))

    def finish(self) -> list[float]:
        """Returns the values; those of groups that were not split are divided evenly."""
        for _, _, turn in self.waiting:
            self._give(turn)
        return self.values

    def _wait(self, turn: _Turn) -> None:
        if turn.node.halves is None:
            self._give(turn)
            return
        self.made += 1
        urgency = -turn.weight * abs(turn.with_ - turn.without)
        heappush(self.waiting, (urgency, self.made, turn))

    def _give(self, turn: _Turn) -> None:
        share = turn.weight * (turn.with_ - turn.without) / len(turn.node.features)
        for feature in turn.node.features:
            self.values[feature] += share


def owen_values(game: Game, trees: Sequence[Node], samples: int) -> Tensor:
    """Returns the values (R, M, T) for the hierarchies of R inputs."""
    splits = {
        (row, target): _Splits(trees[row], float(empty), float(full), samples)
        for row, ends in enumerate(zip(game.empty, game.full, strict=True))
        for target, (empty, full) in enumerate(zip(*ends, strict=True))
    }
    known: dict[tuple[int, int], list[float]] = {}
    while True:
        asked = {key: split.ask() for key, split in splits.items()}
        wanted = dict.fromkeys((row, one) for (row, _), coalitions in asked.items() for one in coalitions)
        if not wanted:
            break
        new = [pair for pair in wanted if pair not in known]
        known.update(zip(new, _scores(game, new), strict=True))
        for (row, target), coalitions in asked.items():
            splits[row, target].split([known[row, one][target] for one in coalitions])
    values = [split.finish() for split in splits.values()]
    result: Tensor = torch.tensor(values, dtype=torch.float64).unflatten(0, (len(trees), -1)).transpose(1, 2)
    return result


def _scores(game: Game, asked: Sequence[tuple[int, int]]) -> list[list[float]]:
    """The scores for each target, means over baseline samples, of pairs of an input and a coalition."""
    if not asked:
        return []
    count = game.baseline_samples
    keep = torch.tensor([[bits >> feature & 1 for feature in range(game.count)] for _, bits in asked])
    which = torch.arange(len(asked)).repeat_interleave(count)
    rows = torch.tensor([row for row, _ in asked])[which]
    scores = game.scores(keep.bool(), which, rows, torch.arange(count).repeat(len(asked)))
    means: list[list[float]] = scores.reshape(len(asked), count, -1).mean(1).tolist()
    return means


def centres(game: Game) -> Tensor:
    """Returns the positions of the features of a game of one input, (M, axes): tensor and mean position."""
    segments = game.segments
    axes = max(tensor.dim() for tensor in game.masking.problem.tensors) - 1
    totals = torch.zeros(segments.count + 1, axes + 1, dtype=torch.float64)
    sizes = torch.zeros(segments.count + 1, dtype=torch.float64)
    for number, index in enumerate(segments.index):
        labels = (index[game.rows[0]] if segments.per_input else index).cpu()
        grid = torch.ones_like(labels).nonzero().double()
        sizes += torch.bincount(labels.flatten(), minlength=len(sizes))
        located = torch.zeros(labels.numel(), axes + 1, dtype=torch.float64)
        located[:, 0] = number * 1e6  # different tensors are separated first
        located[:, 1 : 1 + grid.shape[1]] = grid
        totals.index_add_(0, labels.flatten(), located)
    return (totals / sizes.clamp(min=1)[:, None])[game.members[0]]


def _halved(centres: Tensor, members: Tensor) -> Node:
    """The features of a group halved along the axis on which they are farthest apart, and so on."""
    features = tuple(members.tolist())
    if len(members) == 1:
        return Node(features)
    of_group = centres[members]
    axis = (of_group.amax(0) - of_group.amin(0)).argmax()
    order = members[of_group[:, axis].argsort(stable=True)]
    middle = (len(order) + 1) // 2
    return Node(features, (_halved(centres, order[:middle]), _halved(centres, order[middle:])))


def _tree(hierarchy: Hierarchy, count: int) -> Node:
    """The groups of a hierarchy that the user gave."""
    leaves = list(_leaves(hierarchy))
    if sorted(leaves) != list(range(count)):
        raise ArgumentError(f"a hierarchy holds each feature from 0 to {count - 1} once, got {leaves}")

    def build(part: Hierarchy) -> Node:
        if isinstance(part, int):
            return Node((part,))
        halves = (build(part[0]), build(part[1]))
        return Node(halves[0].features + halves[1].features, halves)

    return build(hierarchy)


def _leaves(part: Hierarchy) -> Iterator[int]:
    if isinstance(part, int):
        yield part
        return
    if not isinstance(part, list | tuple) or len(part) != 2:
        raise ArgumentError(f"a group of a hierarchy is a pair, got {part!r}")
    for half in part:
        yield from _leaves(half)
