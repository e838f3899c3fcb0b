"""Functions of features that are rarely active, with gradients that cost no dense product.

The products with the decoder, and the gradients of both matrices, are sums over the active features only.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Active(NamedTuple):
    """Which features are active in which inputs, sorted by input.

    Attributes:
        rows: The input of each, (active,).
        features: The feature of each, (active,).
        starts: Where each input begins, (inputs,).
    """

    rows: Tensor
    features: Tensor
    starts: Tensor


def active_of(rows: Tensor, features: Tensor, inputs: int) -> Active:
    """Returns which features are active, from sorted rows and the feature of each.

    Example:
        >>> active_of(torch.tensor([0, 2]), torch.tensor([5, 6]), inputs=3).starts
        tensor([0, 1, 1])
    """
    counts = torch.bincount(rows, minlength=inputs)
    return Active(rows, features, counts.cumsum(0) - counts)


class SelectedFeatures(torch.autograd.Function):
    """The numbers of active features before the activation function, for a gradient of the weights.

    It takes the numbers themselves (active,), which were computed for all features to select some, the inputs
    (N, width), the encoder (features, width), its bias (features,), and which are active. The inputs get no
    gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, inputs: Tensor, encoder: Tensor, bias: Tensor, active: Active
    ) -> Tensor:
        """Returns the numbers."""
        ctx.save_for_backward(inputs)
        ctx.active, ctx.features = active, len(bias)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Returns the gradients of encoder and bias."""
        (inputs,) = ctx.saved_tensors
        (gradient,) = gradients
        for_encoder = by_feature(gradient, ctx.active, inputs, ctx.features)
        for_bias = gradient.new_zeros(ctx.features).index_add_(0, ctx.active.features, gradient)
        return None, None, for_encoder, for_bias, None


class SparseDecode(torch.autograd.Function):
    """The sums (N, width) of the directions of active features, times their activations.

    It takes the activations (active,), which are active, and the decoder (features, width).
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, active: Active, decoder: Tensor) -> Tensor:
        """Returns the sums."""
        ctx.save_for_backward(values, decoder)
        ctx.active = active
        return by_input(values, active, decoder)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Returns the gradients of activations and decoder."""
        values, decoder = ctx.saved_tensors
        (gradient,) = gradients
        with torch.enable_grad():  # torch has no other name for products of pairs of rows that is as fast
            weights = values.detach().requires_grad_()
            (for_values,) = torch.autograd.grad(by_input(weights, ctx.active, decoder), weights, gradient)
        return for_values, None, by_feature(values, ctx.active, gradient, len(decoder))


def by_input(values: Tensor, active: Active, matrix: Tensor) -> Tensor:
    """Returns for each input the sum of the rows of its features times their values, (inputs, width).

    Example:
        >>> active = active_of(torch.tensor([0, 0]), torch.tensor([0, 2]), inputs=1)
        >>> by_input(torch.tensor([2.0, 1.0]), active, torch.eye(3))
        tensor([[2., 0., 1.]])
    """
    return F.embedding_bag(
        active.features, matrix, active.starts, per_sample_weights=values.to(matrix), mode="sum"
    )


def by_feature(values: Tensor, active: Active, rows: Tensor, features: int) -> Tensor:
    """Returns for each feature the sum of the rows of its inputs times its values, (features, width).

    Example:
        >>> active = active_of(torch.tensor([0]), torch.tensor([1]), inputs=1)
        >>> by_feature(torch.tensor([2.0]), active, torch.tensor([[3.0, 4.0]]), 2)
        tensor([[0., 0.],
                [6., 8.]])
    """
    order = active.features.argsort(stable=True)
    counts = torch.bincount(active.features, minlength=features)
    return F.embedding_bag(
        active.rows[order],
        rows,
        counts.cumsum(0) - counts,
        per_sample_weights=values[order].to(rows),
        mode="sum",
    )


class JumpReLU(torch.autograd.Function):
    """Numbers above a threshold, else 0, and how many of each feature are above it, (features,).

    It takes numbers (N, features), thresholds (features,) and the bandwidth of the estimates of the gradients
    of the thresholds: for numbers within half a bandwidth of the threshold -(threshold / bandwidth) times the
    gradient of the number, and -1 / bandwidth times that of the counts (Rajamanoharan et al. 2024, equations
    11 and 12). The counts give the numbers no gradient.
    """

    @staticmethod
    def forward(ctx: Any, before: Tensor, thresholds: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
        """Returns the numbers and the counts."""
        above = before > thresholds
        ctx.save_for_backward(before, thresholds, above)
        ctx.bandwidth = bandwidth
        return before * above, above.sum(0, dtype=before.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Returns the gradients of numbers and thresholds."""
        before, thresholds, above = ctx.saved_tensors
        of_numbers, of_counts = gradients
        half = ctx.bandwidth / 2
        rows, features = ((before > thresholds - half) & (before < thresholds + half)).nonzero().unbind(1)
        each = of_numbers[rows, features] * thresholds[features] + of_counts[features]
        for_thresholds = torch.zeros_like(thresholds).index_add_(0, features, -each / ctx.bandwidth)
        return of_numbers * above, for_thresholds, None
