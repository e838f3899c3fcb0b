"""Arguments and outputs of a pass with the nodes of a graph in place of tensors."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from .nodes import TensorNode

_PLAIN = (str, int, float, bool, complex, type(None))


def with_nodes(value: Any, node_of: Callable[[Tensor], TensorNode]) -> Any:
    """Returns arguments with nodes in place of tensors."""
    if isinstance(value, Tensor):
        return node_of(value)
    kind = type(value)
    if kind is tuple or kind is list:
        return kind([with_nodes(one, node_of) for one in value])
    if kind is dict:
        return {key: with_nodes(one, node_of) for key, one in value.items()}
    if kind is slice:
        return slice(*(with_nodes(one, node_of) for one in (value.start, value.stop, value.step)))
    return value


def plain_with_nodes(output: Any, node_of: Callable[[Tensor], TensorNode]) -> Any:
    """Returns an output as tuples, lists and dictionaries of nodes and plain values, else None."""
    if isinstance(output, Tensor):
        return node_of(output)
    if isinstance(output, Mapping):
        return {key: plain_with_nodes(value, node_of) for key, value in output.items()}
    if isinstance(output, tuple | list):
        kind = tuple if isinstance(output, tuple) else list
        return kind(plain_with_nodes(value, node_of) for value in output)
    if is_dataclass(output) and not isinstance(output, type):
        return {one.name: plain_with_nodes(getattr(output, one.name), node_of) for one in fields(output)}
    return output if isinstance(output, _PLAIN) else None
