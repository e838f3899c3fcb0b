"""The state of a search for dataset examples on disk, so that an interrupted search can continue."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...core.errors import ArgumentError
from ...core.json_files import from_json
from ...core.serialization import check_ending, load_result, save_result
from .result import DatasetExamples

_SAVE_SECONDS = 20.0


@dataclass(frozen=True)
class SearchSettings:
    """What a search looks for, with plain values that a file can hold.

    Attributes:
        layers: Names of the layers.
        k: How many images are found for each unit.
        lowest: Whether images with the lowest activations are found too.
        reduction: ``"max"`` or ``"mean"`` over the positions.
        channel_axis: The axis of the channels, where it was given.
        grid: Height and width of the grid of tokens, where it was given.
        preprocess: Name of the preprocessing; see `name_of`.
        images: How many images the dataset has; None if it does not say.
        model: Class and hash of the network.
    """

    layers: list[str]
    k: int
    lowest: bool
    reduction: str
    channel_axis: int | None
    grid: list[int] | None
    preprocess: str
    images: int | None
    model: str


class SearchState:
    """The file in which a search is kept, with its settings."""

    def __init__(self, path: Path, settings: SearchSettings) -> None:
        check_ending(path, "a search")
        self.path, self.settings = path, asdict(settings)
        self.written, self.seen = time.monotonic(), 0

    def read(self, examples: DatasetExamples) -> DatasetExamples:
        """Returns the examples of the file, or the given ones if there is no file yet."""
        if not self.path.exists():
            return examples
        found, notes = load_result(DatasetExamples, self.path, dataset=examples.dataset)
        settings = from_json(notes.get("settings", "{}"))
        if settings != self.settings:
            raise ArgumentError(
                f"{self.path} holds another search: of {_described(settings)}, not of "
                f"{_described(self.settings)}; give another file or remove it"
            )
        self.seen = found.seen
        return found

    def write_now_and_then(self, examples: DatasetExamples) -> None:
        """Writes the examples if the last time was more than 20 seconds ago."""
        if time.monotonic() - self.written >= _SAVE_SECONDS:
            self.write(examples)

    def write(self, examples: DatasetExamples) -> None:
        """Writes the examples if they are of more images than those in the file."""
        if examples.seen > self.seen:
            save_result(examples, self.path, {"settings": json.dumps(self.settings)})
            self.written, self.seen = time.monotonic(), examples.seen


def _described(settings: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in (settings or {}).items()) or "something else"


def name_of(preprocess: Callable[[Tensor], Tensor] | None) -> str:
    """Returns a name of a function that is the same in every run, without its address in memory."""
    if isinstance(preprocess, nn.Module):
        return repr(preprocess)
    return str(getattr(preprocess, "__qualname__", type(preprocess).__qualname__))
