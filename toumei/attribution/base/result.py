"""What an attribution method returns: contributions, and how reliable they are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.kinds import shown
from ...plots.tables import MOST
from . import table_plots
from .contributions import Contributions
from .inputs import parts_of
from .names import nearest
from .rows import OF_TARGETS, as_frame, concatenated, each, row_labels, summed, taken_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


@dataclass(frozen=True, eq=False, repr=False)
class Attribution(Contributions):
    """The contribution of each part of the inputs to the score of a target.

    `Contributions` has its fields. Of tables there are `bar`, `waterfall`, `beeswarm`, `scatter` and
    `heatmap`, of pictures `overlay`, of texts `plot`.

    Example:
        >>> from torch import nn
        >>> from toumei.attribution import ExactShapley
        >>> method = ExactShapley(nn.Linear(3, 2))
        >>> result = method(torch.rand(5, 3), 1, feature_names=["age", "dose", "weight"])
        >>> result[:2].to_frame().shape
        (2, 3)
        >>> result.sum({"body": ["age", "weight"], "drug": ["dose"]}).feature_names
        ('body', 'drug')
    """

    @checked
    def __getitem__(self, index: int | str | slice | Sequence[int] | Tensor) -> Self:
        """Returns the attribution for one of several targets, or that of some rows.

        Args:
            index: The name of a target, or its number where there are several; of a single target a number is
                a row. A slice, a list of numbers or a truth for each row: those rows, for all targets.

        Raises:
            ArgumentError: Rows or a target that do not exist; the nearest names are said.
        """
        if isinstance(index, str):
            if index not in (self.names or ()):
                raise ArgumentError(f"no target {index!r}: {nearest(index, self.names or ())}")
            assert self.names is not None
            return self[self.names.index(index)] if self.several else self
        if not isinstance(index, int):
            return taken_rows(self, index)
        if not self.several:
            return taken_rows(self, [index])
        count = len(parts_of(self.values)[0])
        if not -count <= index < count:
            raise ArgumentError(f"no target {index}: there are {count}, 0 to {count - 1}")
        picked: dict[str, Any] = {name: each(getattr(self, name), itemgetter(index)) for name in OF_TARGETS}
        name = None if self.names is None else (self.names[index],)
        return replace(self, several=False, names=name, **picked)

    def __iter__(self) -> Iterator[Self]:
        """The attributions that numbers pick: of each row, or for each of several targets."""
        count = len(parts_of(self.values)[0]) if self.several else len(self)
        return (self[index] for index in range(count))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> "np.ndarray[Any, Any]":
        """The contributions as an array of numpy, of a single input of the network."""
        if not isinstance(self.values, Tensor):
            raise ArgumentError("this attribution is of several inputs: give the values of one of them")
        return np.array(self.values.numpy(), dtype=dtype)

    @staticmethod
    @checked
    def cat(results: Sequence["Attribution"]) -> "Attribution":
        """Returns attributions of the same method, targets and columns as one, with all their rows.

        Features that some of them do not have, such as a picture's last superpixels, are 0 there.

        Raises:
            ArgumentError: None, or attributions of another kind.
            ShapeError: Contributions of other shapes.
        """
        return concatenated(results)

    def to_frame(self) -> "DataFrame":
        """Returns the contributions as a table of pandas: a row for each input, a column for each feature.

        Several targets stand below each other; texts have a row for each token.

        Raises:
            ArgumentError: Contributions of something else than tables and texts.
        """
        return as_frame(self)

    def abs(self) -> Self:
        """Returns the magnitudes of the contributions, which do not add up to differences of scores."""
        names = ("values", "features", "interactions")
        changed: dict[str, Any] = {name: each(getattr(self, name), torch.abs) for name in names}
        return replace(self, complete=False, **changed)

    @checked
    def sum(self, groups: Mapping[str, Sequence[str | int]] | Sequence[str]) -> Self:
        """Returns the contributions of groups of columns, each the sum of its columns'.

        Args:
            groups: For each group its columns, by name or number; or the group of each column.

        Raises:
            ArgumentError: Columns that do not exist, or that are in no group or in several.
        """
        return summed(self, groups)

    @checked
    def bar(self, row: int | str | None = None, *, most: int = MOST, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the contribution of each column to one row, sorted by magnitude.

        Args:
            row: Its number or name; by default the mean magnitudes over all rows.
            most: Bars; the others are added up in one more.
            ax: Where to draw; a new figure by default.

        Raises:
            ArgumentError: There is no such row, or the contributions are not those of a table.
        """
        return table_plots.bar(self, row, most, ax)

    @checked
    def waterfall(self, row: int | str = 0, *, most: int = MOST, ax: "Axes | None" = None) -> "Axes":
        """Returns axes on which contributions lead from the score of the baseline to that of a row.

        Args:
            row: Its number or name.
            most: Bars; the others are added up in one more.
            ax: Where to draw; a new figure by default.

        Raises:
            ArgumentError: There is no such row, the method has no baseline, or there are several targets.
        """
        return table_plots.waterfall(self, row, most, ax)

    @checked
    def beeswarm(self, *, most: int = MOST, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with a point for each row and column, in the colour of the column's value.

        Args:
            most: Columns that are drawn, those with the largest mean magnitudes.
            ax: Where to draw; a new figure by default.

        Raises:
            ArgumentError: The contributions are not those of a table to one target.
        """
        return table_plots.beeswarm(self, most, ax)

    @checked
    def scatter(self, feature: int | str, by: int | str | None = None, *, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the contribution of one column against its value, a point for each row.

        Args:
            feature: Its name or number.
            by: Another column, whose value the colours tell.
            ax: Where to draw; a new figure by default.

        Raises:
            ArgumentError: There is no such column; the nearest names are said.
        """
        return table_plots.scatter(self, feature, by, ax)

    @checked
    def heatmap(self, *, most: int = MOST, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the contributions of all rows, sorted by their score, as a matrix.

        Args:
            most: Columns that are drawn, those with the largest mean magnitudes.
            ax: Where to draw; a new figure by default.

        Raises:
            ArgumentError: The contributions are not those of a table to one target.
        """
        return table_plots.heatmap(self, most, ax)

    @checked
    def interaction_matrix(self, row: int | str = 0, *, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the contributions of pairs of features of one row as a matrix.

        Args:
            row: Its number or name.
            ax: Where to draw; a new figure by default.

        Raises:
            ArgumentError: The method was not asked for interactions, or there is no such row.
        """
        return table_plots.interaction_matrix(self, row, ax)

    @checked
    def overlay(
        self,
        images: Tensor,
        *,
        show: Sequence[Literal["original", "map", "blend"]] = ("original", "map", "blend"),
        sign: Literal["both", "positive", "negative", "absolute"] = "both",
        percentile: float = 99.0,
        ax: "Axes | None" = None,
    ) -> "Axes":
        """Returns axes with a row for each picture; see `toumei.attribution.overlay` for several methods.

        Args:
            images: The inputs as pictures (N, 1 or 3, H, W) in [0, 1], before normalization.
            show: What stands beside each other.
            sign: Which contributions are shown.
            percentile: Of the magnitudes of a map, what has the full colour; larger ones are clipped.
            ax: Where to draw; a new figure by default.

        Raises:
            ShapeError: Pictures that are not as many, not in [0, 1], or of other proportions.
        """
        from ..overlays import overlay

        return overlay([self], images, show=show, sign=sign, percentile=percentile, ax=ax)

    @checked
    def plot(self, images: Tensor | None = None, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the contributions: heat maps (over pictures if given), coloured tokens, or bars.

        Of several inputs of the network the first is shown that has contributions. Several targets of one
        text, such as the tokens of a generation, have one scale of colours.

        Args:
            images: The inputs as pictures (N, 1 or 3, H, W) in [0, 1].
            ax: Where to draw; a new figure by default.
        """
        from ..plots import plot_attribution

        if self._is_table():
            return self.bar(0 if len(self) == 1 else None, ax=ax)
        return plot_attribution(
            self._by_target(),
            self.method,
            self.names,
            self.tokens,
            images,
            ax,
            labels=self.classes,
            compared=self._is_one_text(),
        )

    def _repr_html_(self) -> str:
        from ..plots import attribution_html
        from .table_html import columns_html

        if self._is_table():
            return columns_html(self)
        about = self.names, self.tokens, row_labels(self)
        return attribution_html(self._by_target(), repr(self), *about, compared=self._is_one_text())

    def _is_one_text(self) -> bool:
        """Whether rows of tokens are those of the same text, for several targets that can be compared."""
        return self.several and self.tokens is not None and len(self) == 1

    def _is_table(self) -> bool:
        """Whether the contributions are numbers of columns, and not of tokens, maps or several inputs."""
        (values, *more) = parts_of(self.values)
        return self.tokens is None and not more and values.dim() - self.several <= 2

    def _by_target(self) -> Tensor:
        """The first tensor of the values that are not all 0, with an axis of targets in front."""
        parts = parts_of(self.values)
        values = next((part for part in parts if part.any()), parts[0])
        return values if self.several else values[None]


def values_of(given: Tensor | Attribution) -> Tensor:
    """Returns contributions that are given as a tensor, or as the attribution to one target.

    Raises:
        ArgumentError: An attribution to several targets, or of several inputs; a tensor of no real numbers.
    """
    if isinstance(given, Tensor):
        if given.dtype is torch.bool or given.is_complex():
            raise ArgumentError(f"contributions are real numbers, got {shown(given)}")
        return given
    if given.several:
        raise ArgumentError("this attribution is for several targets: give attribution[i], that for one")
    if not isinstance(given.values, Tensor):
        raise ArgumentError("this attribution is of several inputs: give the values of one of them")
    return given.values
