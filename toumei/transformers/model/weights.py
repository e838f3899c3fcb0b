"""Weights of linear layers however they are stored: read whole, changed, and given back bit for bit.

A plain weight is changed in place, a sharded one too, each process its part. A quantized weight cannot hold a
small change; where it can be rebuilt in full precision, the rebuilt one stands in for it during an edit.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import EditError
from .discovery import is_conv1d

_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_CHUNK, _CHUNKS = 4096, 64  # numbers that share a sum, and sums that are taken at once


def editable(module: nn.Module) -> Tensor:
    """Returns the weight of a module, if it can be edited.

    Raises:
        EditError: It is offloaded, or quantized in a way that it cannot be rebuilt from.
    """
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.is_meta:
        raise EditError(
            f"the weight of {module} is not in memory ({type(weight).__name__}): load the model without "
            f"offloading to edit it"
        )
    if weight.dtype not in _PRECISIONS or not (_in_place(weight) or _can_stand_in(module, weight)):
        raise EditError(
            f"the weight of {module} is a {type(weight.data).__name__} of {weight.dtype}: a quantized weight "
            f"is edited only where `dequantize()` rebuilds it and the layer is a plain nn.Linear; load the "
            f"model in float32, bfloat16 or float16"
        )
    return weight


def whole(weight: Tensor) -> Tensor:
    """Returns a weight, or what a layer is given, as one plain tensor: itself, put together, dequantized."""
    if _sharded(weight):
        return weight.detach().full_tensor()  # type: ignore[attr-defined]
    return weight.detach() if _in_place(weight) else weight.detach().dequantize()


def kept(weight: Tensor) -> Tensor:
    """Returns what gives a weight back: a copy, or of a quantized one itself."""
    return weight.detach().clone() if _in_place(weight) else weight


@torch.no_grad()
def put(module: nn.Module, value: Tensor) -> None:
    """Makes a value the weight of a module: what `kept` returned, or a whole weight."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    if not _in_place(weight):  # the rebuilt one stands in
        module.weight = nn.Parameter(value.to(weight.dtype), requires_grad=False)
    elif isinstance(value, nn.Parameter):  # the quantized one comes back
        module.weight = value
    elif _sharded(weight) and not _sharded(value):
        from torch.distributed.tensor import distribute_tensor

        layout: Any = weight
        weight.copy_(distribute_tensor(value.to(weight.dtype), layout.device_mesh, layout.placements))
    else:
        weight.copy_(value)


def fingerprint(model: nn.Module, instead: Mapping[str, Tensor] | None = None) -> str:
    """Returns a hash of all weights of a model.

    It reads every element once where the weights are and moves only sums, so it takes about as long as
    reading the weights.

    Args:
        model: The model.
        instead: Tensors that count in the place of those of their names.

    Example:
        >>> first, second = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> fingerprint(first) == fingerprint(first), fingerprint(first) == fingerprint(second)
        (True, False)
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):
            continue
        tensor = (instead or {}).get(name, tensor)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if not tensor.is_meta:  # else it is on a disk until it is needed
            digest.update(_sums(whole(tensor)).cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def _in_place(weight: Tensor) -> bool:
    return type(weight.data) is Tensor or _sharded(weight)


def _sharded(weight: Tensor) -> bool:
    """Whether a weight is a `DTensor`, which is spread over processes."""
    return hasattr(weight, "full_tensor")


def _can_stand_in(module: nn.Module, weight: Tensor) -> bool:
    """Whether a layer multiplies by whatever its weight is, and the weight can be rebuilt."""
    if not (is_conv1d(module) or type(module).forward is nn.Linear.forward):
        return False
    try:
        return type(whole(weight)) is Tensor
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False


def _sums(tensor: Tensor) -> Tensor:
    """Sums of the bits of a tensor, read as whole numbers, in chunks, each with a weight for its place.

    A changed number changes a sum, and so do two that change places.
    """
    stored = tensor.detach().contiguous().flatten().view(torch.uint8)
    draw = torch.Generator().manual_seed(0)
    weights = torch.randint(2**31, (_CHUNK,), generator=draw, dtype=torch.int32) | 1  # odd: no bit is lost
    weights = weights.to(tensor.device)
    size = _CHUNK * weights.element_size()
    sums = []
    for part in stored.split(size * _CHUNKS):
        if len(part) % size or part.storage_offset() % weights.element_size():
            part = F.pad(part, (0, -len(part) % size))
        numbers = part.view(torch.int32).view(-1, _CHUNK)
        sums.append((numbers * weights).sum(1, dtype=torch.int32))
    return torch.cat(sums)
