"""The largest numbers of a table and where they stand."""

import torch
from torch import Tensor


def largest(values: Tensor, k: int) -> list[tuple[tuple[int, ...], float]]:
    """Returns places and values of the k largest numbers, the highest first, without NaN and infinity.

    Equal numbers come in the order of their places.

    Example:
        >>> largest(torch.tensor([[0.0, 2.0], [1.0, torch.nan]]), 2)
        [((0, 1), 2.0), ((1, 0), 1.0)]
    """
    flat = values.detach().flatten()
    finite = flat.isfinite().nonzero().flatten()
    chosen = finite[flat[finite].argsort(descending=True, stable=True)[:k]]
    places = torch.stack(torch.unravel_index(chosen, values.shape), 1).tolist()
    return [(tuple(place), value) for place, value in zip(places, flat[chosen].tolist(), strict=True)]
