"""The check that contributions through a function add up."""

import torch

from toumei.attribution.propagation.engine import propagate

ROWS, COLUMNS = 3, 8
WEIGHT = torch.randn(COLUMNS, COLUMNS, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def pair(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, *shape, generator=generator, dtype=torch.float64)


def check(function, *shape, positive=False, seed=0):
    """The value is the function's own, and for a random sum of its numbers contributions add up."""
    x, x0 = pair(*(shape or (ROWS, COLUMNS)), seed=seed)
    if positive:
        x, x0 = x.abs() + 0.1, x0.abs() + 0.1
    leaf = x.clone().requires_grad_()
    plain, plain0 = function(x.clone()), function(x0.clone())
    weights = torch.randn(plain.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y, y0 = propagate(function, (leaf,), (x0,))
    torch.testing.assert_close(y, plain)
    torch.testing.assert_close(y0, plain0)
    (multiplier,) = torch.autograd.grad((y * weights).sum(), leaf)
    explained = (multiplier * (x - x0)).sum()
    torch.testing.assert_close(explained, ((plain - plain0) * weights).sum())
