"""The tensors that were kept of forward passes, by name, in memory or in files."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.functional import pad as padded

from ..core.checks import answer_of, checked
from ..core.checksums import tensors_of
from ..core.errors import ArgumentError, LayerError, ShapeError
from ..core.files import atomic_write, check_folder
from ..core.kinds import shown
from ..core.serialization import write_safetensors
from ..core.summaries import counted, listed
from .nodes import TensorNode, name_of

_FILE = "pass_{:06d}.safetensors"


class TensorMap(Mapping[str, Any]):
    """The tensors that were kept, by name; without the number of a run it is the last run of a pass.

    Args:
        passes: The tensors of each forward pass by name.
        batched: Whether a value is the list of the tensors of all passes, not one tensor.

    Example:
        >>> kept = TensorMap([{"fc": torch.zeros(2, 3)}, {"fc": torch.ones(1, 3)}], batched=True)
        >>> kept
        TensorMap(1 tensor of 2 passes: fc)
        >>> kept.get_cat("fc").shape
        torch.Size([3, 3])
    """

    def __init__(self, passes: Sequence[Mapping[str, Tensor]], batched: bool = False) -> None:
        self._passes, self._batched = passes, batched

    def __getitem__(self, place: "str | TensorNode") -> Any:
        name = name_of(place, TensorNode)
        keys = [(kept, _key(kept, name)) for kept in self._passes]
        found = [kept[key] for kept, key in keys if key is not None]
        if not found:
            raise LayerError(f"no tensor {name!r} was kept: {_there_is(self)}")
        return found if self._batched else found[-1]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for kept in self._passes for name in kept))

    def __len__(self) -> int:
        return len(dict.fromkeys(iter(self)))

    def __contains__(self, place: object) -> bool:
        name = place.name if isinstance(place, TensorNode) else place
        return isinstance(name, str) and any(_key(kept, name) is not None for kept in self._passes)

    def __repr__(self) -> str:
        tensors = counted(len(self), "tensor")
        passes = f" of {counted(len(self._passes), 'pass')}" if self._batched else ""
        return f"TensorMap({tensors}{passes}: {listed(self, 3)})"

    @checked
    def get_cat(self, place: "str | TensorNode", dim: int = 0, pad: float | None = None) -> Tensor:
        """Returns the tensors of all passes as one; passes without the tensor are left out.

        Args:
            place: Name of the tensor.
            dim: The axis along which they are joined.
            pad: The number that shorter tensors get at their ends along the other axes; by default tensors
                of several lengths are an error.

        Raises:
            LayerError: No such tensor was kept.
            ShapeError: The tensors differ along other axes, or in their number, or are nested.
            ArgumentError: Tensors of whole numbers or of truth values cannot hold the number to pad with.
        """
        name = name_of(place, TensorNode)
        given = self[place]
        tensors: list[Tensor] = given if isinstance(given, list) else [given]
        if any(one.is_nested for one in tensors):
            raise ShapeError(f"{name!r} is a nested tensor: take the list with get()")
        rank = tensors[0].dim()
        if any(one.dim() != rank for one in tensors) or not -rank <= dim < rank:
            shapes = listed(dict.fromkeys(tuple(one.shape) for one in tensors))
            raise ShapeError(f"{name!r} cannot be joined along axis {dim}: the passes have {shapes}")
        longest = [max(one.shape[axis] for one in tensors) for axis in range(rank)]
        joined = []
        for one in tensors:
            lacking = [most - length for most, length in zip(longest, one.shape, strict=True)]
            lacking[dim] = 0
            if any(lacking):
                if pad is None:
                    shapes = listed(dict.fromkeys(tuple(other.shape) for other in tensors))
                    raise ShapeError(
                        f"{name!r} has other lengths in other passes ({shapes}): give the number to pad "
                        f"with, pad=0, or take the list with get()"
                    )
                if not (one.is_floating_point() or one.is_complex()) and one.new_full((), pad).item() != pad:
                    raise ArgumentError(f"{name!r} of {str(one.dtype)[6:]} cannot hold pad={pad}")
                one = padded(one, [side for lack in reversed(lacking) for side in (0, lack)], value=pad)
            joined.append(one)
        return torch.cat(joined, dim)

    @checked
    def filter_ids(self, wanted: Callable[[str], bool]) -> "TensorMap":
        """Returns the tensors whose names a function accepts."""
        names = [name for name in self if answer_of("wanted", wanted(name))]
        passes = [{name: kept[name] for name in names if name in kept} for kept in self._passes]
        return TensorMap(passes, self._batched)

    @checked
    def save(self, folder: str | Path) -> None:
        """Writes the tensors of each pass as one ``.safetensors`` file in a folder.

        Raises:
            ArgumentError: The folder holds tensors already.
        """
        files = TensorFiles(folder)
        for kept in self._passes:
            files.append(kept)

    @staticmethod
    @checked
    def load(folder: str | Path) -> "TensorMap":
        """Returns the tensors of a folder that `save` wrote; a tensor is read when it is asked for.

        Raises:
            ArgumentError: There are no tensors in the folder, or a file is damaged.
        """
        files = sorted(Path(folder).glob("pass_*.safetensors"))
        if not files:
            raise ArgumentError(f"there are no files pass_*.safetensors in {str(folder)!r}")
        return TensorMap([_Stored(file) for file in files], batched=len(files) > 1)


def _there_is(names: Iterable[str]) -> str:
    first = [*names][:8]
    return f"there is {', '.join(first)}" if first else "there is none"


class TensorFiles(Sequence[Mapping[str, Tensor]]):
    """The tensors of passes in the files of a folder.

    Raises:
        ArgumentError: The folder holds tensors already, or is a file.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._files: list[_Stored] = []
        check_folder(self._folder)
        there = sorted(self._folder.glob("pass_*.safetensors"))
        if there:
            raise ArgumentError(
                f"{str(folder)!r} holds tensors of {counted(len(there), 'pass')}: give an empty folder"
            )

    def append(self, kept: Mapping[str, Tensor]) -> None:
        """Writes the tensors of the next pass, whole or not at all.

        Raises:
            ArgumentError: Files cannot hold one of them, a sparse or a nested one.
        """
        for name, tensor in kept.items():
            if tensor.is_nested or tensor.layout != torch.strided:
                raise ArgumentError(f"files hold no {shown(tensor)}, as {name!r} is: keep others, only=[...]")
        file = self._folder / _FILE.format(len(self._files))
        with atomic_write(file) as partial:
            write_safetensors(kept, partial, {})
        self._files.append(_Stored(file))

    def __getitem__(self, index: Any) -> Any:
        return self._files[index]

    def __len__(self) -> int:
        return len(self._files)


class _Stored(Mapping[str, Tensor]):
    """The tensors of a file, read one by one."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        try:
            with self._opened() as file:
                return tensors_of(file, [name], copied=False)[name]
        except SafetensorError as error:
            raise self._unreadable(error) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    @cached_property
    def _names(self) -> dict[str, None]:
        with self._opened() as file:
            return dict.fromkeys(file.keys())

    def _opened(self) -> Any:
        try:
            return safe_open(self._file, "pt")
        except (SafetensorError, OSError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> ArgumentError:
        return ArgumentError(f"{str(self._file)!r} cannot be read as tensors: {error}")


def _key(kept: Mapping[str, Any], name: str) -> str | None:
    """The name of a tensor in a pass, that of its last run for a name without a number; None without one."""
    if name in kept:
        return name
    operation, bracket, part = name.partition("[")
    main = "" if bracket else r"(?:\[0\])?"  # of an operation that returned several
    runs = re.compile(rf"{re.escape(operation)}#(\d+){re.escape(bracket + part)}{main}")
    numbers = {key: int(match[1]) for key in kept if (match := runs.fullmatch(key))}
    return max(numbers, key=numbers.__getitem__, default=None)
