"""Maps of N x N cells: the edges of the cells, the cell of each text, and how many texts a cell has."""

from typing import Literal

import torch
from torch import Tensor

Bins = Literal["width", "quantile"]


def cell_edges(values: Tensor, size: int, bins: Bins = "width") -> Tensor:
    """Returns the edges of the cells along one coordinate, (size + 1,), in float64.

    Args:
        values: (texts,) the coordinate of each text.
        size: How many cells.
        bins: ``"width"`` makes cells of equal width between the smallest and the largest value,
            ``"quantile"`` cells with about as many texts each. A coordinate that is the same in all texts
            has cells of width 1 about it.

    Example:
        >>> cell_edges(torch.tensor([0.0, 1.0, 2.0, 10.0]), 2), cell_edges(torch.arange(5.0), 2, "quantile")
        (tensor([ 0.,  5., 10.], dtype=torch.float64), tensor([0., 2., 4.], dtype=torch.float64))
    """
    values = values.double()
    low, high = values.min(), values.max()
    if not bool(high > low):
        return low - size / 2 + torch.arange(size + 1, dtype=torch.float64)
    steps = torch.linspace(0, 1, size + 1, dtype=torch.float64)
    return low + (high - low) * steps if bins == "width" else values.quantile(steps)


def cells_of(values: Tensor, edges: Tensor) -> Tensor:
    """Returns the number of the cell of each text along one coordinate, from 0 on.

    A value on an edge belongs to the cell above it, the largest to the last cell.

    Args:
        values: (texts,).
        edges: (size + 1,), rising.

    Example:
        >>> cells_of(torch.tensor([0.0, 4.9, 5.0, 10.0]), torch.tensor([0.0, 5.0, 10.0]))
        tensor([0, 0, 1, 1])
    """
    inner = edges.double()[1:-1].contiguous()
    return torch.bucketize(values.double().contiguous(), inner, right=True)


def grid_counts(cells: Tensor, size: int) -> Tensor:
    """Returns how many texts each cell has, (size, size): a row for each y, a column for each x.

    Args:
        cells: (texts, 2), the x and the y of each text.
        size: Cells in a row.

    Example:
        >>> grid_counts(torch.tensor([[0, 1], [0, 1], [1, 0]]), 2)
        tensor([[0, 1],
                [2, 0]])
    """
    return torch.bincount(cells[:, 1] * size + cells[:, 0], minlength=size**2).view(size, size)
