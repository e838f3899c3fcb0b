"""The operations of a pass as a tree by module path, with repeated blocks folded."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from ..nodes import Operation
from .folding import folded
from .items import ForwardPass, Item

_CONTAINERS = ("ModuleList", "ModuleDict")  # which have no forward pass


def module_tree(graph: ForwardPass) -> Item:
    """Returns the item of the whole model, with an item for each module that ran and for each operation.

    Operations stay in their order: a module that ran twice, with other operations in between, is two items,
    so edges between the items of a level never form a circle. A module that called a single operation is an
    item with that operation; a module whose only item is a module is one item with it. Equal blocks in a row
    are folded, see `folded`.

    Example:
        >>> import torch
        >>> from toumei.instrument import instrument
        >>> layers = [torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU()) for _ in range(4)]
        >>> model = torch.nn.Sequential(*layers, torch.nn.Linear(3, 2))
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     output = model(torch.ones(1, 3))
        >>> [(item.title, item.type) for item in module_tree(tracker.build_graph()).children]
        [('0 … 3', 'Sequential x 4'), ('4', 'Linear')]
    """
    children = _items(list(graph.operations.values()), (), graph.modules)
    root = Item(title="", path="", type=graph.modules.get("", ""), children=children)
    return folded(root, graph.operations)


def _items(operations: Sequence[Operation], path: tuple[str, ...], modules: Mapping[str, str]) -> list[Item]:
    """The items of operations that all ran inside a module."""
    depth = len(path)

    def part(operation: Operation) -> tuple[str, ...]:
        return tuple(operation.module.split(".")[: depth + 1]) if operation.module else ()

    items = []
    for inner, group in groupby(operations, part):
        if len(inner) <= depth:
            items += [Item(one.function, one.module, "", one) for one in group]
        else:
            items.append(_module(inner, list(group), modules))
    return items


def _module(path: tuple[str, ...], operations: list[Operation], modules: Mapping[str, str]) -> Item:
    """The item of a run of a module, or of the only item in it with the names of both."""
    children = _items(operations, path, modules)
    name, title = ".".join(path), path[-1]
    if len(children) > 1:
        return Item(title, name, modules.get(name, ""), children=children)
    only = children[0]
    if only.operation is not None and only.path == name:
        return Item(title, name, modules.get(name, ""), only.operation)
    if only.type in _CONTAINERS and modules.get(name, "") not in _CONTAINERS:
        for child in only.children:
            child.title = f"{only.title}.{child.title}"
        return Item(title, name, modules.get(name, ""), children=only.children)
    only.title = f"{title}.{only.title}"
    return only
