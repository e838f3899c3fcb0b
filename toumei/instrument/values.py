"""The values of tensors that are kept while a forward pass goes on and may overwrite them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..core.errors import OutOfMemoryError
from ..core.functions import tensors_among
from ..core.summaries import listed
from .nodes import TensorNode

Keep = Callable[[TensorNode], bool]


class Values:
    """Keeps values of tensors by reference, and copies them just before an operation overwrites them.

    Args:
        keep: Says of which results the values are kept.
        device: Where they go; by default they stay where they are.

    Attributes:
        results: The kept results of operations, by name.
        first: What the pass began with, by name: inputs and constants.
        overwritten: Names of tensors that the pass began with and overwrote.
    """

    def __init__(self, keep: Keep, device: torch.device | None) -> None:
        self.results: dict[str, Tensor] = {}
        self.first: dict[str, Tensor] = {}
        self.overwritten: set[str] = set()
        self._keep, self._device = keep, device
        self._names: dict[int, list[str]] = {}  # of what shares memory with tensors of the pass, by its begin

    def begin_with(self, node: TensorNode, tensor: Tensor) -> None:
        """Keeps a tensor that the pass began with; parameters and buffers stay in the model."""
        self._names.setdefault(memory_of(tensor)[0], []).append(node.name)
        if node.kind not in ("parameter", "buffer"):
            self.first[node.name] = tensor

    def add(self, node: TensorNode, tensor: Tensor) -> None:
        """Keeps a result if it is wanted."""
        if not self._keep(node):
            return
        value = tensor.detach()
        if self._device is None or self._device == tensor.device:
            self._names.setdefault(memory_of(tensor)[0], []).append(node.name)
        else:
            value = self._moved(value)
        self.results[node.name] = value

    def before_overwriting(self, target: Any) -> None:
        """Copies what shares memory with tensors among some arguments that are about to be overwritten."""
        for tensor in tensors_among([target]):
            for name in self._names.pop(memory_of(tensor)[0], ()):
                for values in (self.results, self.first):
                    if name in values:
                        values[name] = values[name].detach().clone()
                if name not in self.results:
                    self.overwritten.add(name)

    def described(self) -> str:
        """Returns what is kept, in words, and how to keep less."""
        size = sum(one.nbytes for one in self.results.values())
        return (
            f"{len(self.results)} tensors of {size / 1e9:.2f} GB are kept ({listed(self.results, 3)}): keep "
            f"fewer with track(only=...), or write them to a folder"
        )

    def _moved(self, tensor: Tensor) -> Tensor:
        try:
            return tensor.to(self._device)
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            raise OutOfMemoryError(f"no memory for more tensors: {self.described()}") from error


def memory_of(tensor: Tensor) -> tuple[int, int]:
    """Returns where the memory of a tensor begins, 0 if it has none of the usual kind, and its bytes."""
    try:
        storage = tensor.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    except (RuntimeError, NotImplementedError):
        return 0, 0
