"""Edges by name, in tables of readers and writers."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import torch
from torch import Tensor

from ...core.errors import ArgumentError
from ...core.kinds import shown

ARROW = "->"


def edge_name(writer: str, reader: str) -> str:
    """Returns the name of an edge.

    Example:
        >>> edge_name("a0.1", "m2")
        'a0.1->m2'
    """
    return f"{writer}{ARROW}{reader}"


def edge_place(
    edge: object, writers: Sequence[str], readers: Sequence[str], allowed: Tensor
) -> tuple[int, int]:
    """Returns the numbers of the reader and the writer of an edge.

    Args:
        edge: Its name, or the labels of writer and reader.
        writers: The labels of all writers.
        readers: Those of all readers.
        allowed: Which edges there are, (readers, writers).

    Raises:
        ArgumentError: There is no such edge.
    """
    pair = edge.split(ARROW) if isinstance(edge, str) else edge
    if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(one, str) for one in pair):
        raise ArgumentError(f"an edge is 'a0.1->m2' or ('a0.1', 'm2'), got {shown(edge)}")
    for kind, label, known in (("writes", pair[0], writers), ("reads", pair[1], readers)):
        if label not in known:
            near = ", ".join(get_close_matches(label, known, n=4, cutoff=0.3) or known[:4])
            raise ArgumentError(f"no node {label!r} {kind} the stream: there is {near}")
    place = readers.index(pair[1]), writers.index(pair[0])
    if not allowed[place]:
        raise ArgumentError(f"there is no edge from {pair[0]!r} to {pair[1]!r}, which comes before it")
    return place


def edge_mask(
    edges: Iterable[object], writers: Sequence[str], readers: Sequence[str], allowed: Tensor
) -> Tensor:
    """Returns which edges are meant, (readers, writers)."""
    if isinstance(edges, str):
        edges = [edges]
    mask = torch.zeros_like(allowed)
    for edge in edges:
        mask[edge_place(edge, writers, readers, allowed)] = True
    return mask


def strongest(scores: Tensor, count: int) -> Tensor:
    """Returns a mask of the scores of the largest size that are not NaN; of equal ones the first.

    Example:
        >>> strongest(torch.tensor([[0.5, -2.0], [torch.nan, 1.0]]), 2)
        tensor([[False,  True],
                [False,  True]])
    """
    order = scores.abs().nan_to_num(-1.0).flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[order[:count]] = True
    return mask.view_as(scores) & scores.isfinite()
