"""Results as files: tensors in safetensors, everything else in a JSON header, never pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise ArgumentError(f"cannot save as {path.suffix!r}: a {kind} is saved as .safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    save_file(own, path, {"toumei": json.dumps({"kind": kind, **header})})


def load_tensors(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors and the header of a file that `save_tensors` wrote.

    Raises:
        ArgumentError: The file holds something of another kind.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("toumei", "{}"))
            if header.pop("kind", None) == kind:
                names = file.keys()
                return {name: file.get_tensor(name) for name in names}, header
    except SafetensorError as error:  # no such format, or cut off
        raise ArgumentError(f"{path} is no saved {kind}: {error}") from error
    raise ArgumentError(f"{path} is no saved {kind}")
