"""Arguments and results that come back from the folder of a run."""

import base64
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..core.checksums import tensors_of
from ..core.errors import ArgumentError, ToumeiError
from ..core.optional import require
from .hashes import class_name, named_class
from .plain_objects import PLAIN_KEYS, plain_made
from .stored_values import tensor_file


class NotKept(str):
    """What is known of a value that was not kept, or that cannot be read back: what it was printed as.

    Example:
        >>> NotKept("<generator object>")
        NotKept('<generator object>')
    """

    def __repr__(self) -> str:
        return f"NotKept({str(self)!r})"


class Unmade(dict[str, Any]):
    """The parts of an object whose class is not there, or takes other parts now."""


def loaded(folder: Path, tree: Any) -> Any:
    """Returns the value that `Stored.tree` has written.

    Results of the library are loaded by their class. Pictures and pages come back as the paths of their
    files; what was not kept as a `NotKept`.

    Args:
        folder: The folder of the run.
        tree: What JSON has of it.

    Raises:
        ArgumentError: A file is missing or damaged.
    """
    if isinstance(tree, list):
        return [loaded(folder, item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    key = next(iter(tree), "")
    if not key.startswith("$"):
        return {name: loaded(folder, part) for name, part in tree.items()}
    if key not in _READ:
        raise ArgumentError(f"{folder} holds a value that this toumei cannot read, {key!r}")
    return _READ[key](folder, tree)


def not_kept(tree: Any) -> bool:
    """Whether something in a tree cannot be read back."""
    if isinstance(tree, list):
        return any(map(not_kept, tree))
    if isinstance(tree, dict):
        return bool({"$unkept", "$module", "$page", "$figure"} & set(tree)) or any(
            map(not_kept, tree.values())
        )
    return False


def lost(value: Any) -> bool:
    """Whether something in a value that `loaded` returned is not as it was: it is there in words or parts."""
    if isinstance(value, NotKept | Unmade):
        return True
    if isinstance(value, Mapping):
        return any(map(lost, [*value, *value.values()]))
    return isinstance(value, list | tuple | set | frozenset) and any(map(lost, value))


def saved_parts(tree: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the results that were kept by their `save` inside a stored value, and their places."""
    if isinstance(tree, list):
        for index, item in enumerate(tree):
            yield from saved_parts(item, f"{place}[{index}]")
    elif isinstance(tree, dict):
        if "$saved" in tree:
            yield place, tree
            return
        for name, part in tree.items():
            yield from saved_parts(part, place if name.startswith("$") else f"{place}.{name}")


def saved_results(folder: Path, tree: Any, kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """Yields the results of a class inside a stored value, and their places.

    Raises:
        ArgumentError: A file is missing or damaged.
    """
    for place, part in saved_parts(tree, "result"):
        if part["class"] == class_name(kind):
            yield place, loaded(folder, part)


def _plain(folder: Path, tree: Mapping[str, Any]) -> Any:
    key, text = next(iter(tree.items()))
    parts = loaded(folder, tree["parts"])
    try:
        return plain_made(key, text, parts)
    except Exception:  # it needs pandas, or a class or function of the user that is not there
        return NotKept(f"{text} {parts}")


def _tensor(folder: Path, tree: Mapping[str, Any]) -> torch.Tensor:
    place = tree.get("$tensor", tree.get("$array"))
    path = tensor_file(folder, str(place))
    safetensors = require("safetensors", "reading a run")
    try:
        with safetensors.safe_open(path, "pt") as file:
            (tensor,) = tensors_of(file, [place]).values()
    except (OSError, safetensors.SafetensorError) as error:
        raise ArgumentError(f"{path} has no tensor {place!r}: {error}") from error
    if str(tensor.dtype) != tree.get("dtype", str(tensor.dtype)):  # complex numbers that safetensors lacks
        tensor = torch.view_as_complex(tensor)
    if tree.get("class") == class_name(torch.nn.Parameter):
        return torch.nn.Parameter(tensor, bool(tree.get("requires_grad")))
    return tensor.requires_grad_(bool(tree.get("requires_grad")))


def _fields(folder: Path, tree: Mapping[str, Any]) -> Any:
    parts = {name: loaded(folder, part) for name, part in tree["$fields"].items()}
    kind = named_class(tree["class"])
    try:
        return Unmade(parts) if kind is None else kind(**parts)
    except Exception:  # of a class of the user, which may have changed
        return Unmade(parts)


def _saved(folder: Path, tree: Mapping[str, Any]) -> Any:
    kind = named_class(tree["class"])
    try:
        return NotKept(tree["text"]) if kind is None else kind.load(folder / tree["$saved"])
    except TypeError:  # it is loaded together with its model
        return folder / tree["$saved"]
    except ToumeiError:
        raise
    except Exception as error:  # of a class of the user
        raise ArgumentError(f"{folder / tree['$saved']} cannot be loaded: {error}") from error


def _sequence(tree: Mapping[str, Any]) -> Any:
    """What tuples and sets are made by."""
    kinds = {class_name(kind): kind for kind in (torch.Size, frozenset)}
    return kinds.get(tree.get("class", ""), set if "$set" in tree else tuple)


_READ: dict[str, Callable[[Path, Mapping[str, Any]], Any]] = {
    "$float": lambda folder, tree: float(tree["$float"]),
    "$complex": lambda folder, tree: complex(*map(float, tree["$complex"])),
    "$tuple": lambda folder, tree: _sequence(tree)(loaded(folder, tree["$tuple"])),
    "$set": lambda folder, tree: _sequence(tree)(loaded(folder, tree["$set"])),
    "$dict": lambda folder, tree: {loaded(folder, k): loaded(folder, v) for k, v in tree["$dict"]},
    "$bytes": lambda folder, tree: base64.b64decode(tree["$bytes"]),
    "$path": lambda folder, tree: Path(tree["$path"]),
    "$dtype": lambda folder, tree: getattr(torch, tree["$dtype"]),
    "$device": lambda folder, tree: torch.device(tree["$device"]),
    "$tensor": _tensor,
    "$array": lambda folder, tree: _tensor(folder, tree).numpy(),
    "$fields": _fields,
    "$saved": _saved,
    "$figure": lambda folder, tree: folder / tree["$figure"],
    "$page": lambda folder, tree: folder / tree["$page"],
    **dict.fromkeys(PLAIN_KEYS, _plain),
    "$module": lambda folder, tree: NotKept(tree["$module"]),
    "$unkept": lambda folder, tree: NotKept(tree["$unkept"]),
}
