"""Products of float32 matrices on a CPU, by the library that uses all of its vector units.

PyTorch multiplies float32 matrices by MKL, which leaves AVX-512 unused on the processors of AMD. The oneDNN
that comes with PyTorch does not: its products take half the time there. Results differ by rounding.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .functions import Function, innermost_handler, intercepted


def onednn_products() -> AbstractContextManager[None]:
    """Returns a block in which `torch.nn.functional.linear` and `torch.addmm` of float32 use oneDNN.

    Calls under autocast, and those with tensors on other devices, of other types or of subclasses are left as
    they are. So is everything where gradients are recorded as the block begins, on a CPU without AVX-512, and
    where `torch.backends.mkldnn` is switched off.

    Example:
        >>> layer, vectors = nn.Linear(8, 4), torch.randn(100, 8)
        >>> with torch.no_grad(), onednn_products():
        ...     found = layer(vectors)
        >>> torch.allclose(found, layer(vectors), atol=1e-5)
        True
    """
    usable = _product is not None and torch.backends.mkldnn.enabled
    if not usable or torch.is_grad_enabled() or innermost_handler() is _multiplied:
        return nullcontext()
    return intercepted(_multiplied)


def _multiplied(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a function returns, by oneDNN if it is a linear map."""
    if not kwargs and not torch.is_grad_enabled():
        if function is linear and _is_map(args[0], args[1], *args[2:]):
            return _product(args[0], args[1], args[2] if len(args) > 2 else None, "none", [], "")
        if function is torch.addmm and _is_map(args[1], _transposed(args[2]), args[0]):
            return _product(args[1], _transposed(args[2]), args[0], "none", [], "")
    return function(*args, **kwargs)


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
    """The product of oneDNN, where it is there and may be faster than that of MKL."""
    if torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512":
        return getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return None


_product = _found()
