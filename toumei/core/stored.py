"""Results as files: tensors in safetensors, everything else in a JSON header, never pickle."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import ArgumentError, ToumeiError
from .optional import require


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Writes tensors and a header, and the folder if need be.

    The file is complete or as it was before, even if this is killed.

    Args:
        path: File to write.
        tensors: By name; several may share their memory.
        header: Whatever JSON can hold.

    Example:
        >>> import torch
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     save_tensors(f"{folder}/new/x.safetensors", {"x": torch.ones(2)}, {"kind": "X", "seed": 3})
        ...     load_tensors(f"{folder}/new/x.safetensors", "X", "kind", "X")
        ({'x': tensor([1., 1.])}, {'seed': 3})
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    save_file = require("safetensors.torch", "saving a result", "safetensors").save_file
    try:
        save_file(_apart(tensors), partial, {"toumei": json.dumps(header)})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_tensors(
    path: str | Path, what: str, key: str, value: Any = None, error: type[ToumeiError] = ArgumentError
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors and the header of a file that `save_tensors` wrote.

    Args:
        path: The file.
        what: What it should hold, for messages.
        key: A key that the header of such a file has.
        value: What the header has under this key, which is then left out; by default anything will do.
        error: What to raise.

    Raises:
        ArgumentError: The file holds something else, or is cut short; or the error that is given.
        FileNotFoundError: There is no such file.
    """
    safetensors = require("safetensors", "reading a result")
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("toumei", "{}"))
            if key in header and value in (None, header[key]):
                if value is not None:
                    del header[key]
                names = file.keys()
                return {name: file.get_tensor(name) for name in names}, header
    except safetensors.SafetensorError as failure:
        raise error(f"{path} is no saved {what} or cut short, it cannot be read: {failure}") from failure
    raise error(f"{path} is no saved {what}")


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
