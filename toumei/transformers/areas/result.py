"""Where the texts of each category lie in each layer: coordinates, maps of N x N cells, graphs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.serialization import Saved
from ...core.summaries import counted, listed, shortened
from ...core.tensor_specs import Spec, specs
from .cell_graph import activation_graph
from .choices import category_of, layer_of
from .comparison import AreaComparison, compared
from .component_graph import correlation_graph
from .enough_texts import check_cells
from .grid import Bins, cell_edges, cells_of, grid_counts
from .pictures import plot_grid, plot_points

if TYPE_CHECKING:
    import networkx as nx
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Areas(Saved):
    """The areas that the texts of each category occupy in each layer.

    Attributes:
        layers: The names of the layers.
        categories: The names of the categories.
        labels: (texts,) the number of each text's category.
        groups: (texts,) the number of the group that each text is of, such as a document; each its own where
            none were given.
        coordinates: (layers, texts, components) where each text lies, float64.
        explained: (layers, components) the share of the variance along each coordinate; NaN for UMAP.
        constant: The layers in which all texts have the same state.
        size: Cells in a row of a map.
        bins: ``"width"`` or ``"quantile"``.
        edges: (layers, 2, size + 1) the edges of the cells along x and y; empty unless there are two
            coordinates.
        cells: (layers, texts, 2) the x and the y of the cell of each text, from 0 on.
        reduction: What made the coordinates.
        pooling: Which states of a text count.

    Example:
        >>> areas = Areas.of(
        ...     4,
        ...     layers=("0", "1"),
        ...     categories=("story", "article"),
        ...     labels=torch.tensor([0, 0, 1, 1]),
        ...     groups=torch.arange(4),
        ...     coordinates=torch.rand(2, 4, 2, dtype=torch.float64),
        ...     explained=torch.rand(2, 2),
        ...     constant=(),
        ...     reduction="pca",
        ...     pooling="last",
        ... )
        >>> areas
        Areas(4 texts of story, article in 2 layers, pca, 4 x 4 cells)
    """

    layers: tuple[str, ...]
    categories: tuple[str, ...]
    labels: Tensor
    groups: Tensor
    coordinates: Tensor
    explained: Tensor
    constant: tuple[str, ...]
    size: int
    bins: Bins
    edges: Tensor
    cells: Tensor
    reduction: str
    pooling: str

    _specs = specs(
        layers="layers",
        labels=Spec("texts", "integer"),
        groups=Spec("texts", "integer"),
        coordinates=Spec("layers texts components", finite=True),
        explained="layers components",
        edges="layers _ _",
        cells=Spec("layers _ _", "integer"),
    )

    @classmethod
    def of(cls, size: int, bins: Bins = "width", **fields: Any) -> "Areas":
        """Returns areas whose cells are made of the coordinates.

        Args:
            size: Cells in a row.
            bins: See `cell_edges`.
            **fields: All other attributes.
        """
        coordinates = fields["coordinates"]
        layers, _, components = coordinates.shape
        edges = torch.zeros(layers, 0, size + 1, dtype=torch.float64)
        cells = torch.zeros(layers, 0, 0, dtype=torch.long)
        if components == 2:
            columns = coordinates.transpose(1, 2).flatten(0, 1)
            flat = [cell_edges(values, size, bins) for values in columns]
            found = [cells_of(values, one) for values, one in zip(columns, flat, strict=True)]
            edges = torch.stack(flat).unflatten(0, (layers, 2))
            cells = torch.stack(found).unflatten(0, (layers, 2)).transpose(1, 2).contiguous()
        return cls(size=size, bins=bins, edges=edges, cells=cells, **fields)

    @checked
    def resized(self, size: int) -> "Areas":
        """Returns the same areas with another number of cells in a row.

        Raises:
            ArgumentError: Maps would have more cells than there are texts.
        """
        check_counts(1, size=size)
        if self.coordinates.shape[2] == 2:
            check_cells(size, len(self))
        made = ("size", "bins", "edges", "cells")
        fields = {name: value for name, value in vars(self).items() if name not in made}
        return Areas.of(size, self.bins, **fields)

    def __len__(self) -> int:
        """How many texts there are."""
        return len(self.labels)

    @checked
    def in_category(self, category: str | int | None) -> Tensor:
        """Returns which texts are of a category, (texts,), bool; of all categories for None."""
        if category is None:
            return torch.ones(len(self), dtype=torch.bool)
        return self.labels == category_of(self.categories, category)

    @checked
    def counts(self, layer: str | int, category: str | int | None = None) -> Tensor:
        """Returns how many texts lie in each cell, (size, size): a row for each y, a column for each x.

        Args:
            layer: The name of a layer, or its number from 0 on.
            category: The name of a category or its number; None for all texts.

        Raises:
            LayerError: There is no such layer.
            ArgumentError: There is no such category, or the areas have no cells.
        """
        self.check_cells()
        place = layer_of(self.layers, layer)
        return grid_counts(self.cells[place][self.in_category(category)], self.size)

    def check_cells(self) -> None:
        """Raises an error where there are other than two coordinates, so that there are no maps."""
        if not self.cells.numel():
            raise ArgumentError(
                f"maps have two coordinates, the reduction to {self.coordinates.shape[2]} has none: give "
                f"n_components=2"
            )

    @checked
    def graph(
        self, category: str | int | Sequence[str | int] | None = None, threshold: float = 0.3
    ) -> "nx.DiGraph":
        """Returns the graph of the areas of a category, or of two.

        See `toumei.transformers.areas.cell_graph`.

        Args:
            category: The name of a category or its number, or two names; None for all texts.
            threshold: With more than two coordinates, two components have an edge where their absolute
                correlation is above it.

        Raises:
            ArgumentError: There is no such category, or there are more than two.
        """
        if self.coordinates.shape[2] == 2:
            return activation_graph(self, category)
        return correlation_graph(self, category, threshold)

    @checked
    def compare(
        self,
        first: str | int,
        second: str | int,
        permutations: int = 999,
        seed: int = 0,
        verbose: bool = False,
    ) -> AreaComparison:
        """Returns how two categories differ, against shuffled categories; see `AreaComparison`.

        Args:
            first: The name of a category or its number.
            second: The other one.
            permutations: How often the categories are shuffled.
            seed: Of the shuffles.
            verbose: Show a progress bar.

        Raises:
            ArgumentError: There is no such category, it has one text or group, or both are the same.
        """
        self.check_cells()
        pair = category_of(self.categories, first), category_of(self.categories, second)
        return compared(self, pair, permutations, seed, verbose)

    @checked
    def plot(
        self, layer: str | int = -1, category: str | int | None = None, ax: "Axes | None" = None
    ) -> "Axes":
        """Returns axes with the map of a layer: how many texts each cell has.

        Maps of categories have the same colours for the same numbers.

        Args:
            layer: The name of a layer or its number.
            category: The name of a category or its number; None for all texts.
            ax: Where to draw; a new figure by default.
        """
        counts = self.counts(layer, category)
        number = layer_of(self.layers, layer)
        known = range(len(self.categories)) if category is not None else (None,)
        most = max(int(self.counts(number, one).max()) for one in known)
        of = "all texts" if category is None else self.categories[category_of(self.categories, category)]
        place = f"layer {number}, {shortened(self.layers[number])}"
        return plot_grid(counts, max(most, 1), f"{shortened(of)} in {place}", ax)

    @checked
    def plot_points(self, layer: str | int = -1, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the texts of a layer at their first two coordinates, a colour a category.

        Args:
            layer: The name of a layer or its number.
            ax: Where to draw; a new figure by default.
        """
        place = layer_of(self.layers, layer)
        edges = self.edges[place] if self.edges.numel() else None
        title = f"{shortened(self.layers[place])}, {self.reduction}"
        return plot_points(self.coordinates[place], self.labels, self.categories, edges, title, ax)

    @checked
    def select(self, *layers: str | int) -> "Areas":
        """Returns the areas of some layers."""
        places = [layer_of(self.layers, layer) for layer in layers]
        names = tuple(self.layers[place] for place in places)
        tensors = ("coordinates", "explained", "edges", "cells")
        cut = {name: getattr(self, name)[places] for name in tensors}
        constant = tuple(name for name in self.constant if name in names)
        return replace(self, layers=names, constant=constant, **cut)

    def __repr__(self) -> str:
        maps = f"{self.size} x {counted(self.size, 'cell')}" if self.cells.numel() else "no maps"
        return (
            f"Areas({counted(len(self), 'text')} of {listed(self.categories, 3)} in "
            f"{counted(len(self.layers), 'layer')}, {self.reduction}, {maps})"
        )

    def __str__(self) -> str:
        counts = torch.bincount(self.labels, minlength=len(self.categories)).tolist()
        texts = listed((f"{name} {count}" for name, count in zip(self.categories, counts, strict=True)), 8)
        width = max(map(len, map(shortened, self.layers)))
        lines = [
            f"{counted(len(self), 'text')} ({texts}), {self.pooling} states, {self.reduction}",
            f"{'layer':{width}}  explained{'  occupied cells' if self.cells.numel() else ''}",
        ]
        for place, layer in enumerate(self.layers):
            line = f"{shortened(layer):{width}}  {float(self.explained[place].sum()):9.1%}"
            if self.cells.numel():
                line += f"  {int((self.counts(place) > 0).sum()):5d} of {self.size**2}"
            lines.append(line)
        return "\n".join(lines)
