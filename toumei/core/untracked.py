"""Finds what takes part in a forward pass unseen by a `FunctionMode`, since it is no function of torch."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .functions import tensors_among


def graph_nodes_made() -> int:
    """Returns how many nodes of autograd graphs this thread has made."""
    number: int = torch._C._autograd._get_sequence_nr()
    return number


class Untracked:
    """The nodes of a graph that were not made by functions of torch.

    Custom autograd functions and TorchScript make nodes too, and nodes are numbered as they are made. Run
    every function of torch in a ``with`` block of this object: what was made outside is untracked.

    Example:
        >>> x, untracked = torch.ones(2, requires_grad=True), Untracked()
        >>> with untracked:
        ...     y = x * 2
        >>> untracked.among(y), untracked.among(y.tanh())
        ([], ['TanhBackward0'])
    """

    def __init__(self) -> None:
        self._known = graph_nodes_made()
        self._depth = 0
        self._unknown: list[range] = []

    def __enter__(self) -> None:
        if not self._depth:
            self._look()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        self._known = graph_nodes_made()

    def among(self, output: Tensor) -> list[str]:
        """Returns the names of the untracked nodes that an output depends on."""
        self._look()
        if not self._unknown or output.grad_fn is None:
            return []
        seen: set[Any] = set()
        found: dict[str, None] = {}
        ahead: list[Any] = [output.grad_fn]
        while ahead:
            node = ahead.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            ahead += [below for below, _ in node.next_functions]
            if any(node._sequence_nr() in numbers for numbers in self._unknown):
                found[_name(node)] = None
        return sorted(found)

    def described(self, output: Tensor) -> str:
        """Returns a phrase that names the untracked nodes that an output depends on; empty without any.

        Example:
            >>> x, untracked = torch.ones(2, requires_grad=True), Untracked()
            >>> untracked.described(x.tanh())
            "'TanhBackward0' (of TorchScript, or a custom function of autograd)"
        """
        names = ", ".join(map(repr, self.among(output)))
        return f"{names} (of TorchScript, or a custom function of autograd)" if names else ""

    def _look(self) -> None:
        made = graph_nodes_made()
        if made != self._known:
            self._unknown.append(range(self._known, made))
            self._known = made


def in_transform() -> bool:
    """Returns whether a transform of `torch.func`, such as `torch.vmap`, runs now."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def transformed(values: Iterable[Any]) -> bool:
    """Returns whether a transform of `torch.func` hides that one of some arguments depends on a leaf.

    Example:
        >>> hidden = []
        >>> _ = torch.vmap(lambda x: hidden.append(transformed([x])) or x)(torch.ones(2, requires_grad=True))
        >>> hidden, transformed([torch.ones(2, requires_grad=True)])
        ([True], False)
    """
    functorch = torch._C._functorch
    return in_transform() and any(
        functorch.is_functorch_wrapped_tensor(tensor) and functorch.get_unwrapped(tensor).requires_grad
        for tensor in tensors_among(values)
    )


def _name(node: Any) -> str:
    custom = getattr(node, "_forward_cls", None)
    return str(node.name()) if custom is None else custom.__name__
