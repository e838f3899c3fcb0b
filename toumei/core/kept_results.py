"""The results of a sweep in a folder: a file for each, under a hash of the function and of the item."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from .content import content_hash, function_parts
from .errors import ArgumentError
from .files import atomic_write, check_folder
from .json_files import from_json
from .kinds import shown
from .user_warnings import warn

_DIGITS = 64  # of the hash in front of the content of a file


class KeptResults:
    """The files of the results of one function for some items.

    Args:
        folder: Where they are; it is made where it is missing.
        function: The function.
        items: The items.

    Raises:
        ArgumentError: The content of an item or of the function cannot be read.
        FolderError: The folder is a file.
    """

    def __init__(self, folder: Path, function: Callable[[Any], Any], items: Sequence[Any]) -> None:
        check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.function = folder, function
        self._parts = function_parts(function)
        self._changing = folder / f"{next(iter(self._parts.values()))[:16]}.changing.json"
        self._changed = self._read_changed()
        self._noted = self._full = False
        seen: Counter[str] = Counter()
        self._items = []
        for item in items:  # equal items have a result each
            digest = content_hash(item)[:24]
            self._items.append(f"{digest}-{seen[digest]}")
            seen[digest] += 1

    def path(self, index: int) -> Path:
        """Returns the file of the item with this index."""
        parts = [f"{name} {part}" for name, part in self._parts.items() if name not in self._changed]
        function = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
        return self.folder / f"{function}-{self._items[index]}.result"

    def check_writable(self) -> None:
        """Makes sure that files can be written, before anything is computed.

        Raises:
            OSError: They cannot be written; the message names the path.
        """
        path = self.folder / f".{uuid4().hex}.empty"
        with atomic_write(path):
            pass
        path.unlink()

    def keep(self, index: int, result: Any, item: Any) -> None:
        """Writes the result of an item; on a disk that is full it is not kept, and the first time a warning.

        Raises:
            ArgumentError: It is nothing that can be read back without running code.
        """
        try:
            self._note_changes()
            keep(self.path(index), result, item)
        except OSError as error:
            if not self._full:
                self._full = True
                message = f"from item {index} on results are returned, but not all of them are kept: {error}"
                warn(message)

    def _note_changes(self) -> None:
        """Leaves out of account what the first call of the function has changed, now and in later sweeps."""
        if self._noted:
            return
        now = function_parts(self.function)
        changed = {name for name in {*now, *self._parts} if now.get(name) != self._parts.get(name)}
        changed = {name for name in changed if not name.endswith("code")}  # which tells functions apart
        if changed - self._changed:
            self._changed |= changed
            with atomic_write(self._changing) as partial:
                partial.write_text(json.dumps(sorted(self._changed)), encoding="utf-8")
        self._noted = True

    def _read_changed(self) -> set[str]:
        try:
            changed = from_json(self._changing.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # there is none, or it is damaged
            return set()
        return {name for name in changed if isinstance(name, str)} if isinstance(changed, list) else set()


def keep(path: Path, result: Any, item: Any) -> None:
    """Writes a result to a file, whole or not at all.

    Raises:
        ArgumentError: It is nothing that can be read back without running code.
        OSError: The file cannot be written.
    """
    with atomic_write(path) as partial:
        try:
            stream = BytesIO()
            torch.save(_as_plain(result), stream)
            content = stream.getvalue()
            _from_plain(_loaded(content))
        except Exception as error:
            why = str(error).partition("\n")[0].partition(". This file can still")[0]
            raise ArgumentError(
                f"the result for {repr(item)[:200]} cannot be kept on disk: {shown(result)} should be "
                f"tensors, numbers, strings, None, lists, tuples and dicts of them, or save and load: {why}"
            ) from error
        partial.write_bytes(hashlib.sha256(content).hexdigest().encode() + content)


def kept(path: Path) -> tuple[Any] | None:
    """Returns the result in a file; None if there is no such file, or it is damaged."""
    if not path.exists():
        return None
    try:
        data = path.read_bytes()
        if hashlib.sha256(data[_DIGITS:]).hexdigest().encode() != data[:_DIGITS]:
            return None
        return (_from_plain(_loaded(data[_DIGITS:])),)
    except Exception:  # what its class, or an older version of it, raises
        return None


def _loaded(content: bytes) -> Any:
    return torch.load(BytesIO(content), map_location="cpu", weights_only=True)


def _as_plain(result: Any) -> dict[str, Any]:
    """What torch saves of a result: the result, or the file that its `save` writes and its class."""
    kind = type(result)
    if isinstance(result, Tensor) or not (hasattr(result, "save") and hasattr(kind, "load")):
        return {"result": _small(result)}
    with TemporaryDirectory() as folder:
        path = Path(folder, "result.safetensors")
        result.save(path)
        saved = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    return {"class": f"{kind.__module__}:{kind.__qualname__}", "file": saved}


def _small(result: Any) -> Any:
    """A result whose tensors are no small parts of large ones, which torch would save whole."""
    if type(result) in (list, tuple):
        return type(result)(map(_small, result))
    if type(result) is dict:
        return {name: _small(part) for name, part in result.items()}
    if type(result) is not Tensor or result.layout != torch.strided:
        return result
    used = result.numel() * result.element_size()
    return result.clone() if result.untyped_storage().nbytes() > used else result


def _from_plain(plain: dict[str, Any]) -> Any:
    if "class" not in plain:
        return plain["result"]
    module, _, name = plain["class"].partition(":")
    kind: Any = import_module(module)
    for part in name.split("."):
        kind = getattr(kind, part)
    with TemporaryDirectory() as folder:
        path = Path(folder, "result.safetensors")
        with atomic_write(path) as partial:
            partial.write_bytes(plain["file"].numpy().tobytes())
        return kind.load(path)
