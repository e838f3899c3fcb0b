"""Results of this room as files, which say in their header what they hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..core import stored
from ..core.errors import ArgumentError


def save_tensors(
    path: str | Path, kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> None:
    """Writes tensors and a header, and the folder if need be.

    Args:
        path: File to write, ending in ``.safetensors``.
        kind: What the file holds, for `load_tensors` to check.
        tensors: By name.
        header: Whatever JSON can hold.

    Raises:
        ArgumentError: The path has another ending.
    """
    check_ending(path, kind)
    stored.save_tensors(path, tensors, {"kind": kind, **header})


def load_tensors(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors and the header of a file that `save_tensors` wrote.

    Raises:
        ArgumentError: The file holds something of another kind, or is cut short.
    """
    return stored.load_tensors(path, kind, "kind", kind)


def check_ending(path: str | Path, kind: str) -> None:
    """Raises an `ArgumentError` unless the path ends in ``.safetensors``."""
    ending = Path(path).suffix
    if ending.lower() != ".safetensors":
        raise ArgumentError(f"cannot save as {ending!r}: a {kind} is saved as .safetensors")
