"""PartitionSHAP: Owen values, which follow a hierarchy of features."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import torch
from torch import Tensor

from ..core.errors import ArgumentError
from .coalitions import CoalitionMethod, Game, Solution

Hierarchy = int | Sequence["Hierarchy"]


class PartitionShap(CoalitionMethod):
    """Owen values of features in a hierarchy (Owen, 1977; the partition explainer of the package shap).

    A group is shared out between its two halves, with the other groups shown or hidden as wholes: the mean
    over the orders in which no group is torn apart. It takes M^2 passes at most, and fewer on request: the
    groups that add most are opened first, and those that were not opened are shared out evenly.

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
            samples: At most so many coalitions for each input.

        Raises:
            ArgumentError: A hierarchy that is not made of pairs, or does not hold each feature once.
        """
        given = None if hierarchy is None else _tree(hierarchy, game.count)
        values = []
        for row in range(len(game.rows)):
            own = game.only(row)
            tree = given or _halved(centres(own), torch.arange(game.count))
            values.append(owen_values(own, tree, samples))
        return Solution(torch.stack(values))


@dataclass(frozen=True, eq=False)
class Node:
    """A group of features, (M,) bool, and its two halves unless it is a single one."""

    members: Tensor
    halves: "tuple[Node, Node] | None" = None


def owen_values(game: Game, tree: Node, samples: int) -> Tensor:
    """Returns the values (M, T) for the one input of a game.

    The groups that add most are opened first.
    """
    values = torch.zeros(game.count, game.targets, dtype=torch.float64)
    waiting: list[tuple[float, int, tuple[Node, Tensor, Tensor, Tensor, float]]] = []
    made = 0

    def wait(node: Node, others: Tensor, without: Tensor, with_: Tensor, weight: float) -> None:
        """A group, which of the others are shown, the scores without and with it, and its share of orders."""
        nonlocal made
        if node.halves is None:
            values[node.members] += weight * (with_ - without)
            return
        made += 1
        urgency = -weight * float((with_ - without).abs().max())
        heappush(waiting, (urgency, made, (node, others, without, with_, weight)))

    wait(tree, torch.zeros(game.count, dtype=torch.bool), game.empty[0], game.full[0], 1.0)
    at_once = max(1, game.masking.batch_size // (2 * game.masking.draws))
    while waiting and samples >= 2:
        number = min(len(waiting), at_once, samples // 2)
        samples -= 2 * number
        opened = [heappop(waiting)[2] for _ in range(number)]
        keep = [others | half.members for node, others, *_ in opened for half in node.halves or ()]
        scores = game.values(torch.stack(keep))[:, 0].unflatten(0, (-1, 2))
        for (node, others, without, with_, weight), (first, second) in zip(opened, scores, strict=True):
            assert node.halves is not None
            left, right = node.halves
            wait(left, others, without, first, weight / 2)
            wait(left, others | right.members, second, with_, weight / 2)
            wait(right, others, without, second, weight / 2)
            wait(right, others | left.members, first, with_, weight / 2)
    for *_, (node, _, without, with_, weight) in waiting:
        values[node.members] += weight * (with_ - without) / node.members.sum()
    return values


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
    mask = torch.zeros(len(centres), dtype=torch.bool)
    mask[members] = True
    if len(members) == 1:
        return Node(mask)
    own = centres[members]
    order = members[own[:, (own.amax(0) - own.amin(0)).argmax()].argsort(stable=True)]
    middle = (len(order) + 1) // 2
    return Node(mask, (_halved(centres, order[:middle]), _halved(centres, order[middle:])))


def _tree(hierarchy: Hierarchy, count: int) -> Node:
    """The groups of a hierarchy that the user gave."""
    leaves: list[int] = []

    def build(part: Hierarchy) -> Node:
        mask = torch.zeros(count, dtype=torch.bool)
        if isinstance(part, int):
            leaves.append(part)
            if 0 <= part < count:
                mask[part] = True
            return Node(mask)
        if len(part) != 2:
            raise ArgumentError(f"a group of a hierarchy is a pair, got {part!r}")
        halves = (build(part[0]), build(part[1]))
        return Node(halves[0].members | halves[1].members, halves)

    tree = build(hierarchy)
    if sorted(leaves) != list(range(count)):
        raise ArgumentError(f"a hierarchy holds each feature from 0 to {count - 1} once, got {leaves}")
    return tree
