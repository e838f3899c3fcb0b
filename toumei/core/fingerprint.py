"""A hash of the weights of a model, which tells one model from another."""

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .offloading import stored_weight
from .tensors import whole

_CHUNK, _CHUNKS = 4096, 64  # numbers that share a sum, and sums that are taken at once


def fingerprint_of(model: nn.Module, instead: Mapping[str, Tensor] | None = None) -> str:
    """Returns a hash of all weights and buffers of a model.

    It reads every element once where the weights are and moves only sums, so it takes about as long as
    reading the weights. It does not depend on the device.

    Args:
        model: The model.
        instead: Tensors that take the place of those with their names.

    Example:
        >>> first, second = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> fingerprint_of(first) == fingerprint_of(first), fingerprint_of(first) == fingerprint_of(second)
        (True, False)
    """
    digest = hashlib.sha256()
    read: dict[Any, bytes] = {}  # of weights that several names share
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):
            continue
        tensor = (instead or {}).get(name, tensor)
        plain = name.replace("_orig_mod.", "")  # of what `torch.compile` wrapped
        digest.update(f"{plain} {tuple(tensor.shape)} {tensor.dtype}".encode())
        place = None if tensor.is_meta else _place(tensor)
        tensor = stored_weight(model, name) if tensor.is_meta else tensor  # read anew, then its place is free
        if tensor is not None:
            found = read.get(place) or _sums(whole(tensor)).cpu().numpy().tobytes()
            digest.update(found)
            if place is not None:
                read[place] = found
    return digest.hexdigest()[:32]


def bits_of(tensor: Tensor) -> str:
    """Returns a hash of the numbers of a tensor, without their type and shape.

    Example:
        >>> zeros, ones = torch.zeros(2), torch.ones(2)
        >>> bits_of(zeros) == bits_of(torch.zeros(2)), bits_of(zeros) == bits_of(ones)
        (True, False)
    """
    plain = whole(tensor) if tensor.layout == torch.strided else tensor.detach().to_dense()
    return hashlib.sha256(_sums(plain).cpu().numpy().tobytes()).hexdigest()[:32]


def _place(tensor: Tensor) -> Any:
    """Where the numbers of a tensor are, the same for tied weights; None where that cannot be told."""
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided:
        return None
    return tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride()


def _sums(tensor: Tensor) -> Tensor:
    """Sums of the bits of a tensor, read as whole numbers, in chunks, each with a weight for its place.

    A changed number changes a sum, and so do two that change places. The upper half of each product is mixed
    into the lower one: else the signs of two numbers could change without changing the sum.
    """
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.is_quantized:  # its bytes cannot be viewed: whole numbers, and what they stand for
        plain = torch.stack([plain.int_repr().double(), plain.dequantize().double()])
    stored = plain.contiguous().flatten().view(torch.uint8)
    weights = _weights(tensor.device)
    size = _CHUNK * weights.element_size()
    sums = []
    buffers = torch.empty(
        2, min(_CHUNKS, -(-len(stored) // size)), _CHUNK, dtype=torch.int64, device=tensor.device
    )
    for part in stored.split(size * _CHUNKS):
        if len(part) % size or part.storage_offset() % weights.element_size():
            part = F.pad(part, (0, -len(part) % size))
        rows = part.view(torch.int64).view(-1, _CHUNK)
        products, upper = buffers[:, : len(rows)]
        torch.mul(rows, weights, out=products)
        torch.bitwise_right_shift(products, 32, out=upper)
        products ^= upper
        sums.append(products.sum(1))
    return torch.cat(sums)


@cache
def _weights(device: torch.device) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    numbers = torch.randint(2**62, (_CHUNK,), generator=draw, device="cpu")
    return (numbers | 1).to(device)  # odd: no bit is lost
