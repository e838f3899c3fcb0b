"""How differently attention heads attend: Jensen-Shannon divergences, summed over query rows.

Clark et al. 2019 (What Does BERT Look At?, section 6). With p_i the smoothed weights of head i and H the
entropy, the divergence of a row is JS = H((p_i + p_j) / 2) - (H(p_i) + H(p_j)) / 2. Each pair of heads takes
one logarithm for each key.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import log
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ShapeError

SMOOTHING = 0.001
"""The share of a row that is spread evenly over its keys, as in the paper."""

_TILE = 6000  # numbers of a head on the CPU; multiples of 1024 take longer, because rows share cache lines
_PIECE = (
    1500  # numbers whose products are added up in single precision, which keeps errors near 1e-6 for a text
)
_ACCELERATOR_TILE = 2**18


@checked
def head_divergences(weights: Tensor, tile: int | None = None) -> Tensor:
    """Returns the divergence of every pair of heads, summed over the rows: (heads, heads) in nats, float64.

    It is symmetric and exactly 0 on the diagonal. Logarithms have the precision of the weights. Sums are in
    float64: over texts of 200 tokens in single precision, a text is off by 1e-6 and the mean of many by less.
    Besides the weights it takes the memory of three tiles of all heads, in each thread.

    Args:
        weights: (heads, rows, keys), rows of numbers from 0 on whose sum is 1.
        tile: How many numbers of each head are worked on at a time.

    Raises:
        ShapeError: The weights are no tensor (heads, rows, keys).

    Example:
        >>> one_hot = torch.eye(2)[:, None]  # the first head attends to key 0, the second to key 1
        >>> head_divergences(one_hot)[0, 1]
        tensor(0.6888, dtype=torch.float64)
    """
    check_counts(1, tile=tile)
    if weights.dim() != 3:
        raise ShapeError(f"expected weights (heads, rows, keys), got {tuple(weights.shape)}")
    flat, keys = weights.detach().flatten(1), weights.shape[-1]
    attended = flat.amax(0) > 0
    if not attended.all():  # a key that no head attends to adds nothing, such as later ones in causal models
        flat = flat[:, attended]
    sums = _sums_over_tiles(flat, SMOOTHING / keys, tile)
    entropies = sums.diagonal()
    upper = log(2) * ((entropies[:, None] + entropies) / 4 - sums / 2).clamp_min(0).triu(1)
    return upper + upper.T


def _sums_over_tiles(flat: Tensor, least: float, tile: int | None) -> Tensor:
    """The sums of m log2 m over all numbers, m = p_i + p_j, for j from i on; (heads, heads) on the CPU."""
    zeros = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    if flat.is_cuda:
        parts = flat.split(tile or _ACCELERATOR_TILE, 1)
        return sum((_sums_of_tile(part * (1 - SMOOTHING) + least) for part in parts), zeros)
    tiles = [part.numpy() for part in flat.cpu().split(tile or _TILE, 1)]
    work = partial(_sums_of_numpy_tile, least=least)
    threads = min(torch.get_num_threads(), len(tiles))
    if threads <= 1:
        return sum((torch.from_numpy(work(part)) for part in tiles), zeros)
    with ThreadPoolExecutor(threads) as pool:
        return sum((torch.from_numpy(found) for found in pool.map(work, tiles)), zeros)


def _sums_of_numpy_tile(part: NDArray[Any], least: float) -> NDArray[Any]:
    """In NumPy, whose log2 takes a quarter of the time of torch's: 0.24 and 1.0 ns a number, measured."""
    heads = len(part)
    smoothed = np.multiply(part, 1 - SMOOTHING, dtype=part.dtype)
    smoothed += least
    sums = np.zeros((heads, heads))
    mixed, logs = np.empty_like(smoothed), np.empty_like(smoothed)
    for head in range(heads):
        m, log_m = mixed[head:], logs[head:]
        np.add(smoothed[head:], smoothed[head], out=m)
        np.log2(m, out=log_m)
        for start in range(0, m.shape[1], _PIECE):
            piece = slice(start, start + _PIECE)
            sums[head, head:] += np.matmul(m[:, None, piece], log_m[:, piece, None])[:, 0, 0]
    return sums


def _sums_of_tile(smoothed: Tensor) -> Tensor:
    rows = []
    for head in range(len(smoothed)):
        mixed = smoothed[head:] + smoothed[head]
        rows.append(torch.nn.functional.pad((mixed * mixed.log2()).sum(1, dtype=torch.float64), (head, 0)))
    return torch.stack(rows).cpu()


@dataclass(frozen=True, eq=False)
class DivergenceSums:
    """Divergences of several texts, added up.

    Attributes:
        total: (heads, heads), sum over all rows of all texts in nats.
        squares: (heads, heads), sum over the texts of the square of a text's sum.
        products: (heads, heads), sum over the texts of a text's sum times its number of rows.
        squared_rows: Sum over the texts of their squared number of rows.
        rows: Query rows of the texts.
        compared: How many of these rows were compared; the others are estimated by them.
        texts: How many texts.
    """

    total: Tensor
    squares: Tensor
    products: Tensor
    squared_rows: int
    rows: int
    compared: int
    texts: int

    def __add__(self, other: "DivergenceSums") -> "DivergenceSums":
        return DivergenceSums(**{name: value + vars(other)[name] for name, value in vars(self).items()})

    @property
    def mean(self) -> Tensor:
        """(heads, heads), the divergence of an average row in nats."""
        return self.total / self.rows

    @property
    def standard_errors(self) -> Tensor:
        """(heads, heads), of the mean, if the texts are a sample of texts; NaN for a single one.

        That of a ratio of sums over texts (Cochran 1977, Sampling Techniques, equation 6.13, for a large
        population); rows that were left out make it larger.
        """
        if self.texts < 2:
            return torch.full_like(self.total, torch.nan)
        mean = self.mean
        residual = self.squares - 2 * mean * self.products + mean.square() * self.squared_rows
        return (residual.clamp_min(0) * self.texts / (self.texts - 1)).sqrt() / self.rows


def divergences_of_text(
    weights: Tensor, rows_per_text: int | None = None, generator: torch.Generator | None = None
) -> DivergenceSums:
    """Returns the divergences of the heads in one text.

    Args:
        weights: (heads, rows, keys), rows of numbers from 0 on whose sum is 1.
        rows_per_text: Compares so many rows, drawn at random, and multiplies their sum so that it stands for
            all rows; None compares all.
        generator: Draws the rows, on the CPU.
    """
    rows = compared = weights.shape[1]
    if rows_per_text is not None and rows_per_text < rows:
        compared = rows_per_text
        drawn = torch.randperm(rows, generator=generator)[:compared]
        weights = weights[:, drawn.to(weights.device)]
    total = head_divergences(weights) * (rows / compared)
    return DivergenceSums(total, total.square(), total * rows, rows * rows, rows, compared, 1)
