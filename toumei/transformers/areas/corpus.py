"""Texts with a category each: two lists, or a dataset whose rows have a text and a label."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from itertools import zip_longest
from typing import Any

import numpy as np
from torch import Tensor

from ...core.errors import ArgumentError
from ...core.kinds import shown
from ...core.summaries import counted
from ..model.corpus import rows_of

_NONE = object()


class LabelledTexts:
    """The texts and the labels of a corpus, read one after the other.

    Args:
        texts: Texts, or a dataset: an iterable of rows with ``"text"`` and ``"label"``, or a table of pandas
            with these columns.
        labels: The label of each text; None for a dataset.

    Attributes:
        labels: The labels of the texts that were read in the last pass.

    Raises:
        ArgumentError: Labels are missing, or texts and labels are not the same number.

    Example:
        >>> corpus = LabelledTexts(["one", "two"], ["a", "b"])
        >>> list(corpus.texts()), corpus.labels
        (['one', 'two'], ['a', 'b'])
    """

    def __init__(self, texts: Any, labels: Any = None) -> None:
        texts = rows_of(texts)
        for name, given in (("texts", texts), ("labels", labels)):
            single = isinstance(given, str | Mapping)
            number = isinstance(given, Tensor | np.ndarray) and not given.ndim
            if single or number or (given is not None and not isinstance(given, Iterable)):
                raise ArgumentError(f"{name} are a list or another iterable, got {shown(given)}")
        if texts is None:
            raise ArgumentError(
                "expected texts with labels, or a dataset whose rows have a 'text' and a 'label'"
            )
        if isinstance(texts, Sized) and not len(texts):
            raise ArgumentError("expected texts, got an empty corpus")
        sizes = [len(one) for one in (texts, labels) if isinstance(one, Sized)]
        if len(set(sizes)) > 1:
            raise ArgumentError(
                f"expected a label for each text, got {counted(sizes[0], 'text')} and "
                f"{counted(sizes[1], 'label')}"
            )
        self._texts, self._labels = texts, labels
        self.labels: list[Any] = []

    def __len__(self) -> int:
        """How many texts there are, 0 where nobody knows."""
        return len(self._texts) if isinstance(self._texts, Sized) else 0

    @property
    def can_repeat(self) -> bool:
        """Whether the corpus can be read again."""
        return not isinstance(self._texts, Iterator) and not isinstance(self._labels, Iterator)

    def check(self) -> bool:
        """Returns whether texts and labels can be looked at before a model reads them, and does so.

        Raises:
            ArgumentError: See `texts`.
        """
        known = self.can_repeat and len(self) > 0
        if known:
            for _ in self.texts():
                pass
        return known

    def texts(self) -> Iterator[str]:
        """Yields the texts of a pass, and notes their labels.

        Raises:
            ArgumentError: A text is empty or none, or has no label.
        """
        self.labels = []
        for number, (text, label) in enumerate(self._pairs()):
            if not isinstance(text, str) or not text.strip():
                raise ArgumentError(f"expected a text with words, got {shown(text)} as text {number}")
            self.labels.append(_plain(label, number))
            yield text

    def _pairs(self) -> Iterator[tuple[Any, Any]]:
        if self._labels is None:
            yield from map(_row, self._texts)
            return
        for text, label in zip_longest(self._texts, self._labels, fillvalue=_NONE):
            if text is _NONE or label is _NONE:
                more, fewer = ("labels", "texts") if text is _NONE else ("texts", "labels")
                raise ArgumentError(f"expected a label for each text, got more {more} than {fewer}")
            yield _text(text), label

    def names(self) -> tuple[str, ...] | None:
        """The names of the categories that a dataset declares, by their numbers; None where it does not."""
        features = getattr(self._texts, "features", None)
        label = features.get("label") if isinstance(features, Mapping) else None
        names = getattr(label, "names", None)
        return None if names is None else tuple(map(str, names))

    def categories(self) -> tuple[tuple[str, ...], list[int]]:
        """Returns the names of the categories and, for each text that was read, the number of its category.

        Raises:
            ArgumentError: A label that the dataset does not declare, or labels of several kinds.
        """
        declared = self.names()
        if declared is not None and all(isinstance(label, int) for label in self.labels):
            wrong = next((one for one in self.labels if not 0 <= one < len(declared)), None)
            if wrong is not None:
                raise ArgumentError(f"label {wrong} is none of the {len(declared)} that the dataset declares")
            return declared, list(self.labels)
        if len({type(label) for label in self.labels}) > 1:
            raise ArgumentError(f"labels are strings or whole numbers, got both: {shown(self.labels)}")
        known = sorted(set(self.labels))
        numbers = {label: number for number, label in enumerate(known)}
        return tuple(map(str, known)), [numbers[label] for label in self.labels]


def _row(row: Any) -> tuple[Any, Any]:
    if isinstance(row, str):
        raise ArgumentError(f"labels are missing: give the category of each text, such as {shown(row)}")
    if not isinstance(row, Mapping) or not {"text", "label"} <= set(row):
        raise ArgumentError(f"expected rows with a 'text' and a 'label', got {shown(row)}")
    return row["text"], row["label"]


def _text(text: Any) -> Any:
    return text.get("text") if isinstance(text, Mapping) else text


def _plain(label: Any, number: int) -> str | int:
    """A label as a string or a whole number."""
    if isinstance(label, Tensor) or hasattr(label, "dtype"):
        label = label.item() if getattr(label, "size", 0) == 1 or getattr(label, "ndim", 1) == 0 else label
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if not isinstance(label, str | int) or label == "":
        raise ArgumentError(f"a label is a string or a whole number, got {shown(label)} for text {number}")
    return int(label) if isinstance(label, bool) else label
