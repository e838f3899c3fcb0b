"""The state of a search for dataset examples on disk, so that a search that was killed can go on."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...core.errors import ArgumentError
from ...core.serialization import check_ending, load_result, save_result
from .result import DatasetExamples

_SAVE_SECONDS = 20.0


class SearchState:
    """The file that a search is kept in, together with what was asked."""

    def __init__(self, path: Path, asked: list[Any]) -> None:
        check_ending(path, "a search")
        self.path, self.asked = path, asked
        self.written, self.seen = time.monotonic(), 0

    def read(self, examples: DatasetExamples) -> DatasetExamples:
        """The examples so far, or those given if there is no file yet."""
        if not self.path.exists():
            return examples
        found, notes = load_result(DatasetExamples, self.path, dataset=examples.dataset)
        asked = json.loads(notes.get("asked", "[]"))
        if asked != self.asked:
            raise ArgumentError(
                f"{self.path} holds another search: of {_told(asked)}, not of {_told(self.asked)}; "
                f"give another file or remove it"
            )
        self.seen = found.seen
        return found

    def write_now_and_then(self, examples: DatasetExamples) -> None:
        """Writes the examples if that was some time ago."""
        if time.monotonic() - self.written >= _SAVE_SECONDS:
            self.write(examples)

    def write(self, examples: DatasetExamples) -> None:
        """Writes the examples, if there are more than in the file."""
        if examples.seen > self.seen:
            save_result(examples, self.path, {"asked": json.dumps(self.asked)})
            self.written, self.seen = time.monotonic(), examples.seen


def _told(asked: Any) -> str:
    names = ("layers", "k", "lowest", "reduction", "channel_axis", "preprocess", "images", "model")
    return (
        ", ".join(f"{name} {value}" for name, value in zip(names, asked or (), strict=False))
        or "something else"
    )


def name_of(preprocess: Callable[[Tensor], Tensor] | None) -> str:
    """A name that is the same in every run: the address in memory of a function is not."""
    if isinstance(preprocess, nn.Module):
        return repr(preprocess)
    return str(getattr(preprocess, "__qualname__", type(preprocess).__qualname__))
