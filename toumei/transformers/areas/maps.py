"""What graphs and comparisons are made of: the cells and the coordinates of texts."""

from typing import Protocol

from torch import Tensor


class Maps(Protocol):
    """The maps of all layers; see `toumei.transformers.areas.Areas`, which has them."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers."""

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the categories."""

    @property
    def labels(self) -> Tensor:
        """(texts,) the number of each text's category."""

    @property
    def groups(self) -> Tensor:
        """(texts,) the number of each text's group."""

    @property
    def coordinates(self) -> Tensor:
        """(layers, texts, components)."""

    @property
    def cells(self) -> Tensor:
        """(layers, texts, 2), x and y."""

    @property
    def size(self) -> int:
        """Cells in a row."""

    @property
    def reduction(self) -> str:
        """What made the coordinates."""

    def in_category(self, category: str | int | None) -> Tensor:
        """Returns which texts are of a category, (texts,), bool."""
