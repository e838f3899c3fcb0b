"""What the values of a tensor are like: a histogram and some numbers."""

import torch
from torch import Tensor

BINS = 30


def histogram(values: Tensor) -> list[object]:
    """Returns, for JSON: count, mean, std, min, max, share of zeros, numbers that are NaN and infinite, bins.

    All but the last two are of the finite numbers, None where there are none. The 30 bins go from the
    smallest to the largest number. Of complex numbers the absolute values count.

    Args:
        values: A tensor of any shape.

    Example:
        >>> histogram(torch.tensor([0.0, 1.0, 1.0, torch.nan]))[:7]
        [4, 0.6666666865348816, 0.4714045226573944, 0.0, 1.0, 0.3333333333333333, 1]
    """
    flat = _strided(values.detach()).flatten().cpu()
    flat = flat.abs() if flat.is_complex() else flat
    flat = flat.double() if flat.dtype in (torch.int64, torch.float64) else flat.float()
    nan = int(flat.isnan().sum())
    finite = flat[flat.isfinite()]
    infinite = len(flat) - nan - len(finite)
    if not len(finite):
        return [len(flat), None, None, None, None, None, nan, infinite, []]
    least, most = finite.aminmax()
    bars = torch.histc(finite, BINS) if most > least else torch.tensor([len(finite)])
    return [
        len(flat),
        float(finite.mean()),
        float(finite.std(correction=0)),
        float(least),
        float(most),
        int((finite == 0).sum()) / len(finite),
        nan,
        infinite,
        bars.int().tolist(),
    ]


def _strided(values: Tensor) -> Tensor:
    """A tensor as one of the usual kind: sparse and nested ones become that."""
    if values.is_nested:
        return torch.cat([one.flatten() for one in values.unbind()])
    return values if values.layout == torch.strided else values.to_dense()
