"""Results as files: tensors in safetensors, everything else in a JSON header, never pickle."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import ArgumentError, ToumeiError
from .optional import require


def save_tensors(
    path: str | Path, what: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> None:
    """Writes tensors and a header, and the folder if need be.

    The file is complete or as it was before, even if this is killed.

    Args:
        path: File to write, ending in ``.safetensors``.
        what: What it holds, for `load_tensors` to check.
        tensors: By name; several may share their memory.
        header: Whatever JSON can hold.

    Raises:
        ArgumentError: The path has another ending.

    Example:
        >>> import torch
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     save_tensors(f"{folder}/new/x.safetensors", "X", {"x": torch.ones(2)}, {"seed": 3})
        ...     load_tensors(f"{folder}/new/x.safetensors", "X")
        ({'x': tensor([1., 1.])}, {'seed': 3})
    """
    check_ending(path, what)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    save_file = require("safetensors.torch", "saving a result", "safetensors").save_file
    try:
        written = json.dumps({"what": what, "header": dict(header)})
        save_file(_apart(tensors), partial, {"toumei": written})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_tensors(
    path: str | Path, what: str, error: type[ToumeiError] = ArgumentError
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors and the header of a file that `save_tensors` wrote.

    Args:
        path: The file.
        what: What it should hold.
        error: What to raise.

    Raises:
        ArgumentError: The file holds something else, or is cut short; or the error that is given.
        FileNotFoundError: There is no such file.
    """
    safetensors = require("safetensors", "reading a result")
    try:
        with safetensors.safe_open(path, "pt") as file:
            written = json.loads((file.metadata() or {}).get("toumei", "{}"))
            if written.get("what") == what:
                names = file.keys()
                return {name: file.get_tensor(name) for name in names}, written["header"]
    except safetensors.SafetensorError as failure:
        raise error(f"{path} is no saved {what} or cut short, it cannot be read: {failure}") from failure
    raise error(f"{path} is no saved {what}")


def check_ending(path: str | Path, what: str) -> None:
    """Raises an `ArgumentError` unless the path ends in ``.safetensors``."""
    ending = Path(path).suffix
    if ending.lower() != ".safetensors":
        raise ArgumentError(f"cannot save {what} as {ending!r}: results are saved as .safetensors")


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as the format takes them: contiguous, and none in the memory of another."""
    result: dict[str, Tensor] = {}
    places = set()
    for name, tensor in tensors.items():
        tensor = tensor.contiguous()
        place = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if place in places else tensor
        places.add(place)
    return result
