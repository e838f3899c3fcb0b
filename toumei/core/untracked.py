"""Finds what takes part in a forward pass unseen by modes of functions, since it is no function of torch."""

from typing import Any

import torch
from torch import Tensor

_made: Any = torch._C._autograd._get_sequence_nr  # how many nodes of graphs this thread has made


class Untracked:
    """The nodes of a graph that were not made by functions of torch.

    Custom autograd functions and TorchScript make nodes too, and nodes are numbered as they are made: those
    made outside of all functions, in each of which a ``with`` block of this is to run, are strangers.

    Example:
        >>> x, strangers = torch.ones(2, requires_grad=True), Untracked()
        >>> with strangers:
        ...     y = x * 2
        >>> strangers.among(y), strangers.among(y.tanh())
        ([], ['TanhBackward0'])
    """

    def __init__(self) -> None:
        self._known: int = _made()
        self._depth = 0
        self._unknown: list[range] = []

    def __enter__(self) -> None:
        if not self._depth:
            self._look()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        self._known = _made()

    def among(self, output: Tensor) -> list[str]:
        """Returns the names of the strangers that an output depends on."""
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

    def _look(self) -> None:
        made = _made()
        if made != self._known:
            self._unknown.append(range(self._known, made))
            self._known = made


def _name(node: Any) -> str:
    custom = getattr(node, "_forward_cls", None)
    return str(node.name()) if custom is None else custom.__name__
