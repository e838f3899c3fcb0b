"""The values of tensors that are kept while a forward pass goes on and may overwrite them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction

from ..core.errors import OutOfMemoryError
from ..core.functions import tensors_among
from ..core.summaries import counted, listed
from .nodes import TensorNode

Keep = Callable[[TensorNode], bool]


class Values:
    """Keeps values of tensors by reference, and copies them just before an operation overwrites them.

    Args:
        keep: Says of a result whether its value is kept.
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
        """Keeps a tensor that the pass began with; parameters and buffers stay in the model.

        A parameter that is no `nn.Parameter` is there for the pass alone, by `torch.func.functional_call`.
        """
        self._names.setdefault(memory_of(tensor)[0], []).append(node.name)
        swapped = node.kind == "parameter" and not isinstance(tensor, nn.Parameter)
        if swapped or node.kind not in ("parameter", "buffer"):
            self.first[node.name] = tensor

    def add(self, node: TensorNode, tensor: Tensor) -> None:
        """Keeps a result if it is wanted."""
        if not self._keep(node):
            return
        with DisableTorchFunction():  # so that a second recorder does not take it for the model's
            value = tensor.detach()
            if self._device is None or self._device == tensor.device:
                self._names.setdefault(memory_of(tensor)[0], []).append(node.name)
            else:
                value = moved(value, self._device, self.results)
        self.results[node.name] = value

    def before_overwriting(self, target: Any) -> None:
        """Copies what shares memory with tensors among some arguments that are about to be overwritten."""
        for tensor in tensors_among([target]):
            for name in self._names.pop(memory_of(tensor)[0], ()):
                for values in (self.results, self.first):
                    if name in values:
                        with DisableTorchFunction():
                            values[name] = values[name].detach().clone()
                if name not in self.results:
                    self.overwritten.add(name)

    def described(self) -> str:
        """Returns what is kept, in words, and how to keep less."""
        return _described(self.results)


def moved(tensor: Tensor, device: torch.device | None, kept: Mapping[str, Tensor]) -> Tensor:
    """Returns a tensor on a device, by default where it is.

    Raises:
        OutOfMemoryError: There is no memory for it; the message names the tensors that are kept already.
    """
    try:
        return tensor if device is None else tensor.to(device)
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        raise OutOfMemoryError(f"no memory for more tensors: {_described(kept)}") from error


def _described(kept: Mapping[str, Tensor]) -> str:
    size = sum(one.nbytes for one in kept.values())
    return (
        f"the pass keeps {counted(len(kept), 'tensor')} of {size / 1e9:.2f} GB ({listed(kept, 3)}): keep "
        "fewer with track(only=...), or write them to a folder"
    )


def memory_of(tensor: Tensor) -> tuple[int, int]:
    """Returns where the memory of a tensor begins, 0 if it has none of the usual kind, and its bytes."""
    try:
        storage = tensor.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    except (RuntimeError, NotImplementedError):
        return 0, 0
