"""The state of a training in a file, from which it goes on bit for bit."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from ...core.checksums import tensors_of
from ...core.errors import ArgumentError
from ...core.files import atomic_write
from ...core.json_files import from_json
from ...core.optional import require
from ...core.serialization import check_ending, write_safetensors
from .settings import DictionarySettings

_KEY, _VERSION = "toumei dictionary training", 1


def write_checkpoint(path: str | Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Writes tensors and notes to a file, whole or not at all.

    Raises:
        ArgumentError: The file does not end in ``.safetensors``.
        OSError: The file cannot be written.
    """
    check_ending(path, "a checkpoint")
    with atomic_write(path) as partial:
        write_safetensors(tensors, partial, {_KEY: json.dumps({"version": _VERSION, **notes})})


def read_checkpoint(
    path: str | Path, settings: DictionarySettings, wanted: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors and notes of a file.

    Args:
        path: The file.
        settings: Those of the training.
        wanted: Other notes that must be the same.

    Raises:
        ArgumentError: The file is damaged, or belongs to another training.
    """
    safetensors = require("safetensors", "reading a checkpoint")
    try:
        with safetensors.safe_open(path, "pt") as file:
            notes = from_json((file.metadata() or {})[_KEY])
            if not isinstance(notes, dict):
                raise ValueError(f"its notes are a {type(notes).__name__}")
            tensors = tensors_of(file)
    except (safetensors.SafetensorError, ValueError, KeyError, OSError) as error:
        raise ArgumentError(f"{path} is no checkpoint of a training, or is damaged: {error}") from error
    expected = {"version": _VERSION, "settings": asdict(settings), **wanted}
    for name, value in expected.items():
        if notes.get(name) != value:
            raise ArgumentError(
                f"{path} belongs to another training, whose {name} is {notes.get(name)!r}, not {value!r}: "
                f"remove it, or give another path"
            )
    return tensors, notes
