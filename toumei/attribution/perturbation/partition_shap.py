"""PartitionSHAP: Owen values, which follow a hierarchy of features."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

import torch
from torch import Tensor

from ...core.errors import ArgumentError
from .coalitions import CoalitionMethod, Game, Solution

Hierarchy = int | Sequence["Hierarchy"]

_SHARE = 4  # of the groups that wait, one in so many is opened at a time


class PartitionShap(CoalitionMethod):
    """Owen values of features in a hierarchy (Owen, 1977; the partition explainer of the package shap).

    A group is shared out between its two halves, with the other groups shown or hidden as wholes: the mean
    over the orders in which no group is torn apart. It takes M^2 passes at most, and fewer on request: the
    groups that add most are opened first, and those that were not opened are shared out evenly. Which they
    are depends on the input and the target, not on the others or on the size of batches.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs.
        preprocess: Applied to the inputs before the network.

    Example:
        >>> from torch import nn
        >>> method = PartitionShap(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)))
        >>> result = method(torch.randn(5, 4), target=1, hierarchy=((0, 3), (1, 2)))
        >>> bool(result.gap.abs().max() < 1e-5)
        True
    """

    def solve(
        self, game: Game, *, seed: int | None, hierarchy: Hierarchy | None = None, samples: int = 500
    ) -> Solution:
        """Returns the values.

        Args:
            game: The scores of coalitions.
            seed: Not needed.
            hierarchy: Pairs of pairs of ... features, counted from 0 on in the order of their numbers; by
                default features are halved by where they lie.
            samples: At most so many coalitions for each input and target; those that several targets ask for
                pass once.

        Raises:
            ArgumentError: A hierarchy that is not made of pairs, or does not hold each feature once.
        """
        if hierarchy is not None:
            trees = [_tree(hierarchy, game.count)] * len(game.rows)
        else:
            own = [centres(game.only(row)) for row in range(len(game.rows))]
            trees = [_halved(places, torch.arange(game.count)) for places in own]
        return Solution(owen_values(game, trees, samples))


@dataclass(frozen=True)
class Node:
    """A group of features, and its two halves unless it is a single one.

    Attributes:
        features: Their numbers.
        halves: The groups it is made of.
        bits: The group as a coalition, a number whose bit i says that feature i is in it.
    """

    features: tuple[int, ...]
    halves: "tuple[Node, Node] | None" = None
    bits: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", sum(1 << feature for feature in self.features))


@dataclass(frozen=True)
class _Turn:
    """A group that is shown behind some others.

    Attributes:
        node: The group.
        others: The coalition of those others.
        without: The score with the others alone.
        with_: The score with the group as well.
        weight: The share of orders in which this is so.
    """

    node: Node
    others: int
    without: float
    with_: float
    weight: float


class _Sharing:
    """What one input's features get for one target, as groups are opened."""

    def __init__(self, tree: Node, empty: float, full: float, samples: int) -> None:
        self.values = [0.0] * len(tree.features)
        self.left = samples // 2  # each group takes the scores of two coalitions
        self.made = 0
        self.waiting: list[tuple[float, int, _Turn]] = []
        self.opening: list[_Turn] = []
        self._wait(_Turn(tree, 0, empty, full, 1.0))

    def ask(self) -> list[int]:
        """Returns the coalitions whose scores open the groups that add most, none at the end."""
        number = min(-(-len(self.waiting) // _SHARE), self.left)
        self.left -= number
        self.opening = [heappop(self.waiting)[2] for _ in range(number)]
        return [turn.others | half.bits for turn in self.opening for half in turn.node.halves or ()]

    def open(self, scores: Sequence[float]) -> None:
        """Shares groups out between their halves, given the scores of the coalitions that it asked for."""
        for turn, first, second in zip(self.opening, scores[::2], scores[1::2], strict=True):
            assert turn.node.halves is not None
            left, right = turn.node.halves
            others, without, with_, weight = turn.others, turn.without, turn.with_, turn.weight / 2
            self._wait(_Turn(left, others, without, first, weight))
            self._wait(_Turn(left, others | right.bits, second, with_, weight))
            self._wait(_Turn(right, others, without, second, weight))
            self._wait(_Turn(right, others | left.bits, first, with_, weight))

    def finish(self) -> list[float]:
        """Returns the values; groups that were not opened are shared out evenly."""
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
    """Returns the values (R, M, T) for the hierarchies of R inputs, the groups that add most opened first."""
    sharings = {
        (row, target): _Sharing(trees[row], float(empty), float(full), samples)
        for row, ends in enumerate(zip(game.empty, game.full, strict=True))
        for target, (empty, full) in enumerate(zip(*ends, strict=True))
    }
    known: dict[tuple[int, int], list[float]] = {}
    while True:
        asked = {key: sharing.ask() for key, sharing in sharings.items()}
        wanted = dict.fromkeys((row, own) for (row, _), coalitions in asked.items() for own in coalitions)
        if not wanted:
            break
        new = [own for own in wanted if own not in known]
        known.update(zip(new, _scores(game, new), strict=True))
        for (row, target), coalitions in asked.items():
            sharings[row, target].open([known[row, own][target] for own in coalitions])
    values = [sharing.finish() for sharing in sharings.values()]
    return torch.tensor(values, dtype=torch.float64).unflatten(0, (len(trees), -1)).transpose(1, 2)


def _scores(game: Game, asked: Sequence[tuple[int, int]]) -> list[list[float]]:
    """The scores for each target, means over draws of the baseline, of inputs and coalitions of theirs."""
    if not asked:
        return []
    draws = game.masking.draws
    keep = torch.tensor([[own >> feature & 1 for feature in range(game.count)] for _, own in asked])
    which = torch.arange(len(asked)).repeat_interleave(draws)
    rows = torch.tensor([row for row, _ in asked])[which]
    scores = game.scores(keep.bool(), which, rows, torch.arange(draws).repeat(len(asked)))
    means: list[list[float]] = scores.reshape(len(asked), draws, -1).mean(1).tolist()
    return means


def centres(game: Game) -> Tensor:
    """Returns where the features of a game of one input lie, (M, axes): which tensor, and the mean place."""
    segments = game.segments
    axes = max(tensor.dim() for tensor in game.masking.problem.tensors) - 1
    totals = torch.zeros(segments.count + 1, axes + 1, dtype=torch.float64)
    sizes = torch.zeros(segments.count + 1, dtype=torch.float64)
    for number, index in enumerate(segments.index):
        labels = (index[game.rows[0]] if segments.own else index).cpu()
        places = torch.ones_like(labels).nonzero().double()
        sizes += torch.bincount(labels.flatten(), minlength=len(sizes))
        own = torch.zeros(labels.numel(), axes + 1, dtype=torch.float64)
        own[:, 0] = number * 1e6  # whole tensors are told apart first
        own[:, 1 : 1 + places.shape[1]] = places
        totals.index_add_(0, labels.flatten(), own)
    return (totals / sizes.clamp(min=1)[:, None])[game.members[0]]


def _halved(centres: Tensor, members: Tensor) -> Node:
    """The features of a group halved along the axis on which they are farthest apart, and so on."""
    features = tuple(members.tolist())
    if len(members) == 1:
        return Node(features)
    own = centres[members]
    order = members[own[:, (own.amax(0) - own.amin(0)).argmax()].argsort(stable=True)]
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
    if len(part) != 2:
        raise ArgumentError(f"a group of a hierarchy is a pair, got {part!r}")
    for half in part:
        yield from _leaves(half)
