"""Arguments and results on their way to a folder: JSON, tensors, files of results, pictures and pages.

What JSON lacks is written as an object with one key that begins with ``$``.
"""

import base64
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.files import atomic_write
from ..core.fingerprint import fingerprint_of
from ..core.kinds import shown
from ..core.serialization import is_storable, write_safetensors
from ..plots.image_files import save_figure
from .hashes import class_name
from .plain_objects import DEEPEST, plain_of

_LONGEST_TEXT = 20_000


class Stored:
    """The files of the values of a run.

    Args:
        folder: The folder of the run.

    Attributes:
        unkept: Why a value is not kept, by its place, such as ``result.model``.
        figures: The files of pictures, by the places of the figures.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unkept: dict[str, str] = {}
        self.figures: dict[str, str] = {}
        self._tensors: dict[str, Tensor] = {}
        self._files = 0
        self._inside: list[int] = []
        self._drawn: dict[int, tuple[Any, str]] = {}

    def tree(self, value: Any, place: str) -> Any:
        """Returns what JSON can hold of a value; files that belong to it are written, except for tensors.

        Args:
            value: Anything; what cannot be kept is named in `unkept`.
            place: Where it stands.

        Raises:
            OSError: A file cannot be written.
        """
        if value is None or type(value) in (bool, str):
            return value
        if id(value) in self._inside:
            return self._refused(value, place, "it holds itself")
        if len(self._inside) > DEEPEST:
            return self._refused(value, place, f"it is nested more than {DEEPEST} levels deep")
        self._inside.append(id(value))
        try:
            return self._tree(value, place)
        except OSError:
            raise
        except Exception as error:  # of a class of the user, or of a figure that cannot be drawn
            return self._refused(value, place, f"{type(error).__name__}: {error}")
        finally:
            self._inside.pop()

    def write_tensors(self, place: str) -> None:
        """Writes the tensors of the values that were stored at a place."""
        if self._tensors:
            with atomic_write(tensor_file(self.folder, place)) as partial:
                write_safetensors(self._tensors, partial, {})
            self._tensors = {}

    def without(self, value: Any, place: str, reason: str) -> Any:
        """Returns what JSON can hold of a value that could not be written; its tensors are forgotten."""
        self._tensors = {}
        return self._refused(value, place, reason)

    def add_figure(self, figure: Any, place: str) -> str:
        """Writes a figure as PNG, once, and returns the name of the file."""
        number = id(figure)
        if number not in self._drawn:
            name = f"figures/{len(self._drawn)}.png"
            save_figure(figure, self.folder / name)
            self._drawn[number] = figure, name
        self.figures[place] = self._drawn[number][1]
        return self.figures[place]

    def _tree(self, value: Any, place: str) -> Any:
        plain = plain_of(value)
        if plain is not None:
            key, text, parts = plain
            return {key: text, "parts": self.tree(parts, place)}
        if isinstance(value, str):
            return str(value)
        for kinds, storing in _KINDS:
            if isinstance(value, kinds):
                return storing(self, value, place)
        figure = figure_of(value)
        if figure is not None:
            return {"$figure": self.add_figure(figure, place)}
        kind = type(value)
        if callable(getattr(value, "save", None)) and hasattr(kind, "load"):
            return self._saved(value, place)
        if is_dataclass(value) and not isinstance(value, type):
            parts = {one.name: getattr(value, one.name) for one in fields(value)}
            return {"$fields": self._parts(parts, place), "class": class_name(kind)}
        if callable(getattr(value, "_repr_html_", None)):
            return self._page(value, place)
        return self._refused(value, place, f"{kind.__name__} can be written to no file")

    def _parts(self, parts: Mapping[str, Any], place: str) -> dict[str, Any]:
        return {name: self.tree(part, f"{place}.{name}") for name, part in parts.items()}

    def _items(self, items: Iterable[Any], place: str) -> list[Any]:
        return [self.tree(item, f"{place}[{index}]") for index, item in enumerate(items)]

    def _number(self, value: float, place: str) -> Any:
        if isinstance(value, complex):
            return {"$complex": [repr(value.real), repr(value.imag)]}
        if isinstance(value, float) and value - value != 0:  # NaN or infinite
            return {"$float": repr(float(value))}
        return int(value) if isinstance(value, int) else float(value)

    def _tuple(self, value: tuple[Any, ...], place: str) -> Any:
        if hasattr(value, "_fields"):
            parts = dict(zip(value._fields, value, strict=True))
            return {"$fields": self._parts(parts, place), "class": class_name(type(value))}
        return {"$tuple": self._items(value, place)}

    def _mapping(self, value: Mapping[Any, Any], place: str) -> Any:
        if callable(getattr(value, "save", None)) and hasattr(type(value), "load"):
            return self._saved(value, place)
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return self._parts(value, place)
        pairs = [
            [self.tree(key, f"{place}.key{index}"), self.tree(value[key], f"{place}.value{index}")]
            for index, key in enumerate(value)
        ]
        return {"$dict": pairs}

    def _set(self, value: Iterable[Any], place: str) -> Any:
        items = self._items(sorted(value, key=repr), place)
        return {"$set": items, "class": class_name(type(value))}

    def _array(self, value: np.ndarray, place: str) -> Any:
        if isinstance(value, np.ma.MaskedArray):
            return self._refused(value, place, "a masked array: return its data and its mask")
        if value.dtype.kind in "USOMm":  # texts, objects and times
            cells = value if value.dtype.kind in "SO" else value.astype(str)
            parts = {"shape": list(value.shape), "cells": list(cells.ravel())}
            return {"$cells": str(value.dtype), "parts": self.tree(parts, place)}
        return self._tensor(value, place)

    def _tensor(self, value: Tensor | np.ndarray, place: str) -> Any:
        array = isinstance(value, np.ndarray)
        try:
            tensor = torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value.detach()
        except TypeError as error:
            return self._refused(value, place, str(error))
        if tensor.is_nested:
            return self._refused(value, place, "a nested tensor")
        dtype = tensor.dtype
        if tensor.is_complex() and not is_storable(dtype) and not tensor.is_meta:
            tensor = torch.view_as_real(tensor.resolve_conj())
        if tensor.layout != torch.strided or tensor.is_meta or not is_storable(tensor.dtype):
            return self._refused(
                value, place, f"a {tensor.layout} tensor of {tensor.dtype} on {tensor.device}"
            )
        # a copy: the experiment may go on to write into it
        self._tensors[place] = tensor.clone().cpu()
        kept: dict[str, Any] = {
            "$array" if array else "$tensor": place,
            "shape": list(value.shape),
            "dtype": str(dtype),
        }
        if isinstance(value, nn.Parameter):
            kept["class"] = class_name(nn.Parameter)
        if isinstance(value, Tensor) and value.requires_grad and value.is_leaf:
            kept["requires_grad"] = True
        return kept

    def _module(self, value: nn.Module, place: str) -> Any:
        return {"$module": class_name(type(value)), "fingerprint": fingerprint_of(value)}

    def _saved(self, value: Any, place: str) -> Any:
        name = f"results/{self._files}.safetensors"
        self._files += 1
        value.save(self.folder / name)
        return {"$saved": name, "class": class_name(type(value)), "text": text_of(value)}

    def _page(self, value: Any, place: str) -> Any:
        page = value._repr_html_()
        name = f"pages/{self._files}.html"
        self._files += 1
        with atomic_write(self.folder / name) as partial:
            partial.write_text(str(page), encoding="utf-8", errors="xmlcharrefreplace")
        return {"$page": name, "class": class_name(type(value)), "text": text_of(value)}

    def _refused(self, value: Any, place: str, reason: str) -> Any:
        self.unkept[place] = reason
        return {"$unkept": shown(value), "class": class_name(type(value))}


_Storing = Callable[[Stored, Any, str], Any]
_KINDS: list[tuple[Any, _Storing]] = [
    ((int, float, complex), Stored._number),
    (Tensor, Stored._tensor),
    (np.ndarray, Stored._array),
    (torch.Size, lambda stored, value, place: {"$tuple": list(value), "class": class_name(torch.Size)}),
    (tuple, Stored._tuple),
    (list, lambda stored, value, place: stored._items(value, place)),
    (Mapping, Stored._mapping),
    ((set, frozenset), Stored._set),
    (bytes, lambda stored, value, place: {"$bytes": base64.b64encode(value).decode()}),
    (Path, lambda stored, value, place: {"$path": str(value)}),
    (torch.dtype, lambda stored, value, place: {"$dtype": str(value).removeprefix("torch.")}),
    (torch.device, lambda stored, value, place: {"$device": str(value)}),
    (nn.Module, Stored._module),
]


def tensor_file(folder: Path, place: str) -> Path:
    """Returns the file with the tensors of a place and of all places inside it."""
    return folder / f"{re.split(r'[.[]', place)[0]}.safetensors"


def figure_of(value: Any) -> Any:
    """Returns the matplotlib figure that a value is or is drawn in; None if it is neither."""
    drawn = sys.modules.get("matplotlib.figure"), sys.modules.get("matplotlib.axes")
    if drawn[0] is not None and isinstance(value, drawn[0].Figure):
        return value
    return value.figure if drawn[1] is not None and isinstance(value, drawn[1].Axes) else None


def text_of(value: Any) -> str:
    """Returns what `print` shows of a value, cut where it is very long."""
    try:
        return str(value)[:_LONGEST_TEXT]
    except Exception:  # of a class of the user
        return object.__repr__(value)
