"""Results as files: tensors in safetensors, everything else in a JSON header, never pickle.

The fields of the dataclass and their annotations say what a file holds. The header has the name of the class
and the version of the format; `load` compares every field with its annotation and refuses what differs.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from .checks import checked
from .checksums import CHECKSUMS, checksums_of, tensors_of
from .errors import ArgumentError, FolderError, ToumeiError
from .files import atomic_write, check_regular
from .json_files import from_json
from .notebooks import Displayed
from .optional import require
from .stored_fields import Tensors, restored, stored
from .summaries import listed
from .tensor_specs import FieldError, Spec, check_specs

VERSION = 1  # of the format; a change that older versions of the package cannot read raises it
_KEY = "toumei"  # of the header among the metadata of a safetensors file

_TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}

Result = TypeVar("Result", bound="Saved")


class Saved(Displayed):
    """A dataclass that can be written to a file and read back, bit for bit.

    A subclass may declare four things. `_specs` has the shape and the type of numbers of its tensors, by
    field. `_not_stored` has the fields that a file does not hold, `_added` those that older files do not
    have: they are None there. `_load_error` is the error that a file raises which cannot be read.

    Example:
        >>> import torch
        >>> from dataclasses import dataclass
        >>> from tempfile import TemporaryDirectory
        >>> from toumei.core.tensor_specs import Spec, specs
        >>> @dataclass(frozen=True)
        ... class Line(Saved):
        ...     x: Tensor
        ...     y: Tensor
        ...     name: str = ""
        ...     _specs = specs(x="points", y=Spec("points", finite=True))
        >>> with TemporaryDirectory() as folder:
        ...     Line(torch.zeros(2), torch.ones(2), "a").save(f"{folder}/line.safetensors")
        ...     Line.load(f"{folder}/line.safetensors")
        Line(x=tensor([0., 0.]), y=tensor([1., 1.]), name='a')
    """

    _specs: ClassVar[Mapping[str, Spec]] = {}
    _not_stored: ClassVar[tuple[str, ...]] = ()
    _added: ClassVar[tuple[str, ...]] = ()
    _load_error: ClassVar[type[ToumeiError]] = ArgumentError

    @checked
    def save(self, path: str | Path) -> None:
        """Writes everything as ``.safetensors``, for `load`; the folder is made where it is missing.

        The file is written whole or not at all.

        Args:
            path: File to write, ending in ``.safetensors``.

        Raises:
            ArgumentError: The path has another ending, or a field is not what the class declares.
            OSError: The file cannot be written.
        """
        save_result(self, path)

    @classmethod
    @checked
    def load(cls: type[Result], path: str | Path) -> Result:
        """Returns what was saved.

        Args:
            path: The file.

        Raises:
            ArgumentError: The file is damaged, holds something else, or has a newer format.
            FileNotFoundError: There is no such file.
        """
        return load_result(cls, path)[0]


def save_result(result: Saved, path: str | Path, notes: Mapping[str, str] | None = None) -> None:
    """Writes a result as `Saved.save` does, with notes.

    Args:
        result: The result.
        path: File to write, ending in ``.safetensors``.
        notes: What else is to be remembered.
    """
    name = type(result).__name__
    check_ending(path, name)
    tensors = Tensors()
    try:
        check_specs(result)
        header = stored(result, type(result), "", tensors)
        content = {"what": name, "version": VERSION, "header": header, "notes": dict(notes or {})}
        text = json.dumps({**content, "digest": _digest(content)})
        with atomic_write(path) as partial:
            write_safetensors(tensors.named, partial, {_KEY: text})
    except FolderError:
        raise
    except (FieldError, ArgumentError) as error:
        raise ArgumentError(f"cannot save {name} to {path}: {error}") from None


def load_result(kind: type[Result], path: str | Path, **more: Any) -> tuple[Result, dict[str, str]]:
    """Returns a saved result and its notes.

    Args:
        kind: The class of the result.
        path: The file.
        more: The fields that are not stored.

    Raises:
        ArgumentError: The file is damaged, holds something else, or has a newer format; or the
            `_load_error` of the class.
        FileNotFoundError: There is no such file.
    """
    safetensors = require("safetensors", "reading a result")
    try:
        content, tensors = _read(path, safetensors)
        _check_content(content, kind.__name__)
        notes = restored(content["notes"], dict[str, str], "notes", tensors)
        result: Result = restored(content["header"], kind, "", tensors, **more)
        tensors.check_used()
        check_specs(result)
        if content["digest"] != _digest(content):
            raise _Refused("its header has been changed")
    except (_Refused, FieldError, ToumeiError) as error:  # some classes check what they are given
        message = f"{path} is no saved {kind.__name__} that this toumei can read: {error}"
        raise kind._load_error(message) from error
    return result, notes


def check_ending(path: str | Path, what: str) -> None:
    """Raises an `ArgumentError` unless the path ends in ``.safetensors``."""
    ending = Path(path).suffix
    if ending.lower() != ".safetensors":
        raise ArgumentError(f"cannot save {what} as {ending!r}: results are saved as .safetensors")


def is_storable(dtype: torch.dtype) -> bool:
    """Returns whether safetensors has a type of numbers.

    Example:
        >>> is_storable(torch.bfloat16), is_storable(torch.complex128)
        (True, False)
    """
    return dtype in _TYPES


def write_safetensors(tensors: Mapping[str, Tensor], partial: Path, metadata: Mapping[str, str]) -> None:
    """Writes tensors to the partial file of `atomic_write`.

    `safetensors.save_file` leaves a temporary file of its own if the process is killed, and its `save` needs
    the memory of all tensors a second time. Among the metadata are checksums, which `tensors_of` compares.

    Args:
        tensors: Any tensors.
        partial: The file.
        metadata: Texts beside them.

    Raises:
        ArgumentError: The format has no such type of numbers.
        OSError: The file cannot be written, because the disk is full, for example.
    """
    tensors = _apart(tensors)
    header: dict[str, Any] = {"__metadata__": {**metadata, **checksums_of(tensors)}}
    offset = 0
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps numbers aligned
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _TYPES:
            raise ArgumentError(f"tensor {[name]} is of {tensor.dtype}, which safetensors lacks")
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            if tensors[name].numel():
                file.write(tensors[name].reshape(-1).view(torch.uint8).numpy().data)


class _Refused(Exception):
    """A file that cannot be read, and why."""


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as the format takes them: on the CPU, contiguous, and none in the memory of another."""
    result: dict[str, Tensor] = {}
    places = set()
    for name, tensor in tensors.items():
        tensor = tensor.cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if place in places else tensor
        places.add(place)
    return result


def _read(path: str | Path, safetensors: ModuleType) -> tuple[dict[str, Any], Tensors]:
    """The header and the tensors of a file, which do not change with the file."""
    try:
        check_regular(path, "read")
        Path(path).open("rb").close()  # safetensors says of any file that it may not read that it is missing
    except ArgumentError as error:
        raise _Refused(str(error)) from error
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            header = metadata.get(_KEY)
            if header is None:
                raise _Refused("toumei did not write this file")
            if unknown := set(metadata) - {_KEY, CHECKSUMS, "format"}:
                raise _Refused(
                    f"its metadata have {listed(map(repr, unknown))}, which this toumei does not know"
                )
            tensors = tensors_of(file)
    except safetensors.SafetensorError as failure:
        reason = f"it cannot be read, for it is cut short, damaged or of another format: {failure}"
        raise _Refused(reason) from failure
    try:
        content = from_json(header)
    except ValueError as failure:
        raise _Refused(f"its header is no JSON: {failure}") from failure
    if not isinstance(content, dict):
        raise _Refused(f"its header should be a JSON object, got {type(content).__name__}")
    return content, Tensors(tensors)


def _check_content(content: dict[str, Any], name: str) -> None:
    """Compares the class, the version and the parts of a header."""
    if "version" not in content:
        raise _Refused(
            "its header has no version of the format. Files of toumei 0.1 had none, and they are not read "
            "any more: make the result again, or load it with toumei 0.1"
        )
    version = content["version"]
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise _Refused(f"its version of the format should be a whole number from 1 on, got {version!r}")
    if version > VERSION:
        raise _Refused(
            f"it has version {version} of the format, and this toumei reads versions up to {VERSION}: "
            f"a newer toumei reads it"
        )
    if content.get("what") != name:
        raise _Refused(f"it holds {content.get('what')!r}")
    expected = {"what", "version", "header", "notes", "digest"}
    if set(content) != expected:
        raise _Refused(f"its header should have {sorted(expected)}, got {sorted(content)}")


def _digest(content: Mapping[str, Any]) -> str:
    """A hash of the header, which tells a damaged header from a whole one."""
    text = json.dumps([content[name] for name in ("what", "version", "header", "notes")])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
