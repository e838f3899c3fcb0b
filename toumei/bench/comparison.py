"""Whether two runs have the same result, and in what two versions differ."""

import difflib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from ..core.checksums import tensors_of
from ..core.errors import ArgumentError
from ..core.json_files import from_json
from ..core.optional import require
from ..core.summaries import counted, listed, shortened
from .hashes import named_class
from .loaded_values import loaded
from .runs import Run

_SKIPPED = (
    "text",
    "class",
    "shape",
    "dtype",
    "requires_grad",
)  # of stored values: they follow from the rest, or are compared by it

_PARTS = ("source", "helpers", "values", "argument_hashes", "model", "tools")  # of a version


@dataclass(frozen=True)
class Rerun:
    """Whether an experiment that ran again has the same result.

    Attributes:
        equal: Whether all numbers agree within the tolerance, and everything else is the same.
        exact: Whether they are the same bit for bit.
        tolerance: How far numbers may be apart, relative to the largest one of their tensor.
        largest: How far they are apart at most, relative to that.
        differences: The places that differ by more, and how.
        not_compared: The places that could not be kept, have only a page, or are times.
        changed: What of the version is not as it was, such as ``"source"`` or ``"model"``.
        before: The name of the run that it is compared with.
        run: The name of the new run.

    Example:
        >>> Rerun(True, True, 0.0, 0.0, (), (), (), "run-1", "run-2")
        Rerun(equal bit for bit)
    """

    equal: bool
    exact: bool
    tolerance: float
    largest: float
    differences: tuple[str, ...]
    not_compared: tuple[str, ...]
    changed: tuple[str, ...]
    before: str
    run: str

    def __repr__(self) -> str:
        how = "bit for bit" if self.exact else f"to {self.largest:.2g}"
        said = f"equal {how}" if self.equal else f"not equal: {listed(self.differences, 2)}"
        unknown = f", {listed(self.not_compared, 3)} not compared" if self.not_compared else ""
        changed = f", {' and '.join(self.changed)} changed" if self.changed else ""
        return f"Rerun({shortened(said, 120)}{unknown}{changed})"

    def __str__(self) -> str:
        lines = [f"run {self.run} again of {self.before}: {repr(self)[6:-1]}"]
        return "\n".join([*lines, *(f"  {difference}" for difference in self.differences)])


def compare_results(before: Run, after: Run, tolerance: float) -> Rerun:
    """Returns whether two runs have the same result.

    Args:
        before: A run.
        after: Another one.
        tolerance: How far numbers may be apart, relative to the largest one of their tensor.

    Raises:
        ArgumentError: A file is missing or damaged.
    """
    parts = [(run.folder, run.record.get("result"), run.error) for run in (before, after)]
    found = list(_differing(parts[0][:2], parts[1][:2], "result"))
    errors = [None if error is None else (error["type"], error["message"]) for *_, error in parts]
    if errors[0] != errors[1]:
        found.append(("error", None, f"{_said(errors[0])}, now {_said(errors[1])}"))
    far = [(place, text) for place, distance, text in found if distance is None or not distance <= tolerance]
    distances = [distance for _, distance, _ in found if distance is not None]
    return Rerun(
        equal=not far,
        exact=not found,
        tolerance=tolerance,
        largest=max(distances, default=0.0),
        differences=tuple(f"{place}: {text}" for place, text in far),
        not_compared=tuple(_unknown(before.record.get("result"), "result")),
        changed=tuple(part for part in _PARTS if _differ(before.record[part], after.record[part])),
        before=before.id,
        run=after.id,
    )


def _differ(old: Any, new: Any) -> bool:
    """Whether a part of two versions differs; settings of models were not noted before toumei 0.3."""
    if isinstance(old, dict) and "weights" in old and "settings" not in old:
        new = {name: value for name, value in new.items() if name != "settings"}
    return bool(old != new)


@dataclass(frozen=True)
class VersionDifference:
    """In what two versions differ.

    Attributes:
        first: The first version.
        second: The second one.
        source: The lines of the source and of what it calls that differ, as `diff -u` shows them.
        others: What else differs, such as ``"argument text"``, in the first and in the second version.

    Example:
        >>> VersionDifference("abc", "def", "", {"argument layer": ("0", "1")})
        VersionDifference(abc to def: 0 lines of source, argument layer)
    """

    first: str
    second: str
    source: str
    others: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        changed = sum(
            line[:1] in "+-" and line[:3] not in ("+++", "---") for line in self.source.splitlines()
        )
        others = f", {listed(self.others)}" if self.others else ""
        return (
            f"VersionDifference({self.first} to {self.second}: {counted(changed, 'line')} of source{others})"
        )

    def __str__(self) -> str:
        lines = [f"{name}: {old}, then {new}" for name, (old, new) in self.others.items()]
        return "\n".join([f"{self.first} to {self.second}", *lines, self.source]).rstrip()


def compare_versions(first: Run, second: Run) -> VersionDifference:
    """Returns in what the versions of two runs differ."""
    old, new = first.record, second.record
    others = {}
    shown = [record["shown"]["arguments"] for record in (old, new)]
    for name, before, after in _changed_keys(old["argument_hashes"], new["argument_hashes"]):
        texts = [one.get(name, "not there") for one in shown]
        others[f"argument {name}"] = (
            (texts[0], texts[1]) if texts[0] != texts[1] else (before[:12], after[:12])
        )
    for what in ("values", "model", "tools"):
        for name, before, after in _changed_keys(old[what], new[what]):
            label = f"{what.removesuffix('s')} {name}" if what != "model" else f"model's {name}"
            others[label] = (shortened(before), shortened(after))
    sources = [
        {first.experiment: old["source"], **old["helpers"]},
        {second.experiment: new["source"], **new["helpers"]},
    ]
    return VersionDifference(first.version, second.version, source_diff(*sources), others)


def source_diff(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Returns the lines in which sources differ, by the name of the function.

    Example:
        >>> print(source_diff({"f": "a = 1"}, {"f": "a = 2"}))
        --- f
        +++ f
        @@ -1 +1 @@
        -a = 1
        +a = 2
    """
    names = dict.fromkeys([*old, *new])
    if len(old) == len(new) == 1:  # two experiments
        pairs = [(*old.items(), *new.items())]
    else:
        pairs = [((name, old.get(name, "")), (name, new.get(name, ""))) for name in names]
    lines: list[str] = []
    for (before, text), (after, changed) in pairs:
        lines += difflib.unified_diff(text.splitlines(), changed.splitlines(), before, after, lineterm="")
    return "\n".join(lines)


def _changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield name, _text(old, name), _text(new, name)


def _text(parts: Mapping[str, Any], name: str) -> str:
    if name not in parts:
        return "not there"
    return parts[name] if isinstance(parts[name], str) else json.dumps(parts[name])


def _said(error: tuple[str, str] | None) -> str:
    return "no error" if error is None else f"{error[0]} {error[1]}"


_Part = tuple[Path, Any]
_Difference = tuple[str, float | None, str]  # where, how far apart (None where that is no number), and how


def _differing(old: _Part, new: _Part, place: str) -> Iterator[_Difference]:
    """The places in which two stored values differ."""
    (folder, before), (other, after) = (old[0], _inner(old[1])), (new[0], _inner(new[1]))
    numbers = [_number(part) for part in (before, after)]
    if numbers[0] is not None and numbers[1] is not None:
        if type(before) is type(after) is int:  # it may be larger than a float can hold
            if before != after:
                ratio = Fraction(abs(before - after), max(abs(before), 1))
                yield place, _number(ratio), f"{shortened(str(before))}, now {shortened(str(after))}"
            return
        pair = torch.tensor(numbers, dtype=torch.float64)
        yield from _distance(pair[0], pair[1], place)
    elif type(before) is not type(after):
        yield place, None, f"{type(before).__name__}, now {type(after).__name__}"
    elif isinstance(before, list):
        if len(before) != len(after):
            yield place, None, f"{counted(len(before), 'item')}, now {len(after)}"
        for index, pair_of_items in enumerate(zip(before, after, strict=False)):
            yield from _differing((folder, pair_of_items[0]), (other, pair_of_items[1]), f"{place}[{index}]")
    elif isinstance(before, dict):
        yield from _differing_objects((folder, before), (other, after), place)
    elif before != after:
        yield place, None, f"{shortened(repr(before))}, now {shortened(repr(after))}"


def _inner(part: Any) -> Any:
    """The part that is compared: for numbers of numpy and subclasses of dict their content."""
    return part["parts"] if isinstance(part, dict) and ("$scalar" in part or "$mapping" in part) else part


def _differing_objects(old: _Part, new: _Part, place: str) -> Iterator[_Difference]:
    (folder, before), (other, after) = old, new
    kinds = [next((key for key in part if key.startswith("$")), "") for part in (before, after)]
    if kinds[0] != kinds[1]:
        yield place, None, f"{kinds[0][1:] or 'dict'}, now {kinds[1][1:] or 'dict'}"
    elif kinds[0] in ("$tensor", "$array"):
        tensors = [
            torch.as_tensor(loaded(where, part)).detach()
            for where, part in ((folder, before), (other, after))
        ]
        yield from _distance(tensors[0], tensors[1], place)
    elif kinds[0] == "$saved" and _differs_each_time(before):
        return
    elif kinds[0] == "$saved":
        files = [_content(where / part["$saved"]) for where, part in ((folder, before), (other, after))]
        yield from _differing_files(files[0], files[1], place)
    elif kinds[0] == "$figure":
        if (folder / before["$figure"]).read_bytes() != (other / after["$figure"]).read_bytes():
            yield place, None, "another picture"
    elif kinds[0] not in ("$page", "$unkept"):
        for name in dict.fromkeys([*before, *after]):
            if name in _SKIPPED and kinds[0]:
                continue
            if name not in before or name not in after:
                yield f"{place}.{name}", None, f"{'there' if name in before else 'not there'} before"
                continue
            inner = place if kinds[0] and name in (kinds[0], "parts") else f"{place}.{name}"
            yield from _differing((folder, before[name]), (other, after[name]), inner)


def _unknown(tree: Any, place: str) -> Iterator[str]:
    """The places of a stored value that cannot be compared."""
    if isinstance(tree, dict):
        if "$unkept" in tree or "$page" in tree or _differs_each_time(tree):
            yield place
        for name, part in tree.items():
            yield from _unknown(
                part, place if name.startswith("$") or "$" in next(iter(tree)) else f"{place}.{name}"
            )
    elif isinstance(tree, list):
        for index, item in enumerate(tree):
            yield from _unknown(item, f"{place}[{index}]")


def _differs_each_time(tree: Mapping[str, Any]) -> bool:
    """Whether a stored value is a result that measures times."""
    return "$saved" in tree and getattr(named_class(tree["class"]), "differs_each_time", False)


def _number(part: Any) -> float | None:
    if isinstance(part, dict) and "$float" in part:
        return float(part["$float"])
    if isinstance(part, bool) or not isinstance(part, int | float | Fraction):
        return None
    try:
        return float(part)
    except OverflowError:
        return math.inf if part > 0 else -math.inf


def _distance(old: torch.Tensor, new: torch.Tensor, place: str) -> Iterator[_Difference]:
    """How far two tensors are apart, relative to the largest number of the first."""
    if old.shape != new.shape or old.dtype != new.dtype:
        yield place, None, f"{tuple(old.shape)} of {old.dtype}, now {tuple(new.shape)} of {new.dtype}"
        return
    wide = torch.complex128 if old.is_complex() else torch.float64
    first, second = old.to(wide), new.to(wide)
    same = (first == second) | (first.isnan() & second.isnan())
    whole = not (old.is_floating_point() or old.is_complex())
    if whole:
        same &= (old.to(torch.int64) - new.to(torch.int64)) == 0  # also where a float cannot tell them apart
    if bool(same.all()):
        return
    finite = first.isfinite() & second.isfinite()
    if bool((~same & ~finite).any()):
        yield place, None, "NaN or infinite numbers in other places"
        return
    apart = max(float((first - second)[~same].abs().max()), 1.0 if whole else 0.0)
    scale = float(first[finite].abs().max()) or 1.0
    yield place, apart / scale, f"{apart:.3g} apart, {apart / scale:.2g} of the largest number"


def _content(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    """The tensors of a file, and the header that toumei writes."""
    safetensors = require("safetensors", "comparing runs")
    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = tensors_of(file, copied=False)
            header = from_json((file.metadata() or {}).get("toumei", "{}"))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ArgumentError(f"{path} cannot be read: {error}") from error
    header.pop("digest", None)
    return tensors, header


def _differing_files(
    old: tuple[dict[str, torch.Tensor], Any], new: tuple[dict[str, torch.Tensor], Any], place: str
) -> Iterator[_Difference]:
    if set(old[0]) != set(new[0]):
        yield place, None, f"tensors {listed(old[0])}, now {listed(new[0])}"
        return
    for name in old[0]:
        yield from _distance(old[0][name], new[0][name], f"{place}.{name}")
    yield from _differing((Path(), old[1]), (Path(), new[1]), place)
