"""Folds equal blocks in a row into one item: block x 12."""

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile

from ..nodes import Operation, TensorNode
from .items import Item

_LONGEST = 8  # blocks after which a row repeats, such as five local attentions and a global one
_FEWEST = 3  # blocks that are worth folding


def folded(root: Item, operations: Mapping[str, Operation]) -> Item:
    """Returns a tree in which blocks that repeat one after the other are the children of one item.

    Blocks are equal if their operations have the same functions, shapes, dtypes and connections, their
    modules the same types, and their names differ in numbers alone. A row may also repeat several blocks in
    turn, such as Swin's with and without shifted windows. Single operations are not folded.

    Args:
        root: The tree, which is changed.
        operations: All operations of the pass, in their order.
    """
    ids = _Signatures({name: number for number, name in enumerate(operations)})
    for item in list(root.everything()):
        if len(item.children) >= _FEWEST:
            item.children = _folded_children(item, ids)
    for item in list(root.everything()):
        item.children = [_without_container(child) for child in item.children]
    return root


def _folded_children(item: Item, ids: "_Signatures") -> list[Item]:
    children = item.children
    keys = [(ids[child], re.sub(r"\d+", "#", child.title)) for child in children]
    found: list[Item] = []
    start = 0
    while start < len(children):
        length, times = _repeats(keys, start)
        row = children[start : start + length * times]
        if times > 1 and len(row) >= _FEWEST and any(child.children for child in row):
            found.append(_fold(row, length))
            start += len(row)
        else:
            found.append(children[start])
            start += 1
    return found


def _repeats(keys: Sequence[object], start: int) -> tuple[int, int]:
    """How many keys repeat from a place on, and how often: of all choices the one that covers most keys."""
    best = 1, 1
    for length in range(1, min(_LONGEST, (len(keys) - start) // 2) + 1):
        first = keys[start : start + length]
        times = 1
        while keys[start + times * length : start + (times + 1) * length] == first:
            times += 1
        if times > 1 and length * times > best[0] * best[1]:
            best = length, times
    return best


def _fold(row: list[Item], length: int) -> Item:
    types = list(dict.fromkeys(child.type or child.title for child in row[:length]))
    parts = zip(*(child.path.split(".") for child in row), strict=False)
    around = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, parts)]
    return Item(
        title=f"{row[0].title} … {row[-1].title}",
        path=".".join(around),
        type=f"{' + '.join(types)} x {len(row)}",
        children=row,
        repeats=len(row),
    )


def _without_container(item: Item) -> Item:
    """A row of repeats in place of the container that holds nothing else, such as a ModuleList."""
    if len(item.children) == 1 and item.children[0].repeats:
        row = item.children[0]
        row.title, row.path = f"{item.title}.{row.title}", item.path
        return row
    return item


class _Signatures:
    """A number for each item, equal for items that are equal but for their place in the model."""

    def __init__(self, order: Mapping[str, int]) -> None:
        self._order, self._numbers = order, dict[object, int]()

    def __getitem__(self, item: Item) -> int:
        operations = list(item.operations())
        first = self._order[operations[0].name]
        outside: dict[TensorNode, int] = {}
        parts = []
        for operation in operations:
            taken = [self._place(node, first, outside) for node in operation.inputs]
            made = [(node.shape, node.dtype, node.device) for node in operation.outputs]
            parts.append((operation.function, operation.kind, operation.in_place, (*taken,), (*made,)))
        types = tuple((inner.type, len(inner.children)) for inner in item.everything())
        return self._numbers.setdefault((types, tuple(parts)), len(self._numbers))

    def _place(self, node: TensorNode, first: int, outside: dict[TensorNode, int]) -> tuple[object, ...]:
        """Where an argument comes from: the step and part in the item, or which of the tensors outside."""
        step = self._order.get(node.producer or "", -1) - first
        if step >= 0:
            part = node.name[len(node.producer or "") :] if "@" not in node.name else "view"
            return "inside", step, part, node.shape
        kind = "outside" if node.kind in ("result", "input") else node.kind
        return kind, outside.setdefault(node, len(outside)), node.shape, node.dtype
