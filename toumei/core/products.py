"""Products of float32 matrices on a CPU, by the library that uses all of its vector units.

PyTorch multiplies float32 matrices by MKL, which leaves AVX-512 unused on the processors of AMD. The oneDNN
that comes with PyTorch does not: its products take half the time there. Results differ by rounding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode


class OneDnnProducts(TorchFunctionMode):
    """While it is entered, `torch.nn.functional.linear` and `torch.addmm` of float32 use oneDNN.

    Calls that need gradients, run under autocast, or have tensors on other devices, of other types or of
    subclasses are left as they are; so is everything on a CPU without AVX-512.

    Example:
        >>> layer, vectors = nn.Linear(8, 4), torch.randn(100, 8)
        >>> with torch.no_grad(), OneDnnProducts():
        ...     found = layer(vectors)
        >>> torch.allclose(found, layer(vectors), atol=1e-5)
        True
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if _product is not None and not kwargs and not torch.is_grad_enabled():
            if func is linear and _is_map(args[0], args[1], *args[2:]):
                return _product(args[0], args[1], args[2] if len(args) > 2 else None, "none", [], "")
            if func is torch.addmm and _is_map(args[1], _transposed(args[2]), args[0]):
                return _product(args[1], _transposed(args[2]), args[0], "none", [], "")
        return func(*args, **(kwargs or {}))


def _is_map(vectors: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether these are a linear map of plain float32 on the CPU, whose shapes fit."""
    given = [vectors, weight] if bias is None else [vectors, weight, bias]
    return (
        all(map(_is_plain, given))
        and not torch.is_autocast_enabled("cpu")
        and vectors.dim() > 1
        and weight.dim() == 2
        and vectors.shape[-1] == weight.shape[-1]
        and (bias is None or bias.shape == weight.shape[:1])
    )


def _transposed(weight: Tensor) -> Tensor:
    return weight.mT if _is_plain(weight) and weight.dim() == 2 else weight


def _is_plain(tensor: Tensor) -> bool:
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and tensor.numel() > 0
    )


def _found() -> Any:
    """The product of oneDNN, where it is there and faster than that of MKL."""
    if torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512":
        return getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return None


_product = _found()
