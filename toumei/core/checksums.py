"""Checksums of the tensors in a file, which tell damaged numbers from whole ones."""

import json
from collections.abc import Iterable, Mapping
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from .json_files import from_json
from .optional import require
from .summaries import listed

CHECKSUMS = "toumei crc32"  # among the metadata of a safetensors file, which older versions pass over


def checksums_of(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Returns what the metadata of a file say of its tensors.

    Args:
        tensors: Contiguous tensors on the CPU.

    Example:
        >>> checksums_of({"x": torch.zeros(2)})
        {'toumei crc32': '{"x": 284112003}'}
    """
    sums = {name: _checksum(tensor) for name, tensor in tensors.items()}
    return {CHECKSUMS: json.dumps(sums)} if sums else {}


def tensors_of(file: Any, names: Iterable[str] | None = None, copied: bool = True) -> dict[str, Tensor]:
    """Returns tensors of a file that `safetensors.safe_open` has opened.

    Args:
        file: The open file. Without checksums, as other libraries and older versions write it, nothing is
            compared.
        names: Which tensors; by default all of them.
        copied: Whether they are in memory, so that they do not change with the file. Otherwise the system may
            read them again from the disk.

    Raises:
        SafetensorError: A tensor is not there, or is not the one that was written.
    """
    names = file.keys() if names is None else names
    tensors = {name: file.get_tensor(name) for name in names}
    if copied:
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    text = (file.metadata() or {}).get(CHECKSUMS)
    if text is not None:
        try:
            known = from_json(text)
            changed = [name for name, tensor in tensors.items() if known[name] != _checksum(tensor)]
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(f"its checksums are damaged, {type(error).__name__}: {error}") from error
        if changed:
            raise _damaged(f"the numbers of {listed(changed)} are not those that were written")
    return tensors


def _checksum(tensor: Tensor) -> int:
    """The checksum of the type, the shape and the numbers of a tensor."""
    begun = crc32(f"{tensor.dtype} {list(tensor.shape)}".encode())
    return crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, begun) if tensor.numel() else begun


def _damaged(why: str) -> Exception:
    """The error that safetensors itself raises of a damaged file."""
    error: Exception = require("safetensors", "reading a file").SafetensorError(why)
    return error
