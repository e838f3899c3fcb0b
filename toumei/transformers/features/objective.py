"""The loss of a dictionary on a batch, for each activation function."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .settings import DictionarySettings
from .sparse_functions import Active, JumpReLU, SelectedFeatures, SparseDecode, active_of

_DEAD_PENALTY = 3e-6  # of SAELens, for features of jump_relu whose thresholds are never reached


@dataclass(eq=False)
class Weights:
    """The parameters of a dictionary in training, in units in which inputs have the norm sqrt(width).

    Attributes:
        encoder: (features, width).
        encoder_bias: (features,).
        decoder: (features, output width), rows of length 1.
        decoder_bias: (output width,).
        thresholds: (features,), which only ``jump_relu`` learns.
        subtract_bias: Whether the decoder's bias is subtracted from inputs.
        cut: The threshold of ``batch_topk``, a running mean.
    """

    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor
    thresholds: Tensor
    subtract_bias: bool
    cut: float = 0.0

    @property
    def bias(self) -> Tensor:
        """What is added to products with the encoder, (features,)."""
        if not self.subtract_bias:
            return self.encoder_bias
        return self.encoder_bias - self.encoder @ self.decoder_bias


@dataclass(frozen=True, eq=False)
class BatchLoss:
    """What is known of a batch.

    Attributes:
        loss: With its gradient.
        error: The targets minus the reconstructions, (N, output width).
        active: How many features are active on average.
        fired: Which features are active in any input, (features,).
    """

    loss: Tensor
    error: Tensor
    active: float
    fired: Tensor


def batch_loss(
    weights: Weights, inputs: Tensor, targets: Tensor, dead: Tensor, settings: DictionarySettings
) -> BatchLoss:
    """Returns the loss of a batch.

    Args:
        weights: The parameters.
        inputs: (N, width).
        targets: (N, output width).
        dead: Which features have not been active for long, (features,).
        settings: How it is trained; see `DictionarySettings` for the losses.
    """
    if settings.activation in ("topk", "batch_topk"):
        return _sparse_loss(weights, inputs, targets, dead, settings)
    return _dense_loss(weights, inputs, targets, dead, settings)


def _dense_loss(
    weights: Weights, inputs: Tensor, targets: Tensor, dead: Tensor, settings: DictionarySettings
) -> BatchLoss:
    width = targets.shape[1]
    before = F.linear(inputs, weights.encoder, weights.bias)
    if settings.activation == "relu":
        features = before.relu()
        counts = (features.detach() > 0).sum(0, dtype=features.dtype)
        sparsity = settings.penalty * features.sum() / (len(inputs) * width)
    else:
        thresholds = weights.thresholds
        features, counts = JumpReLU.apply(before, thresholds, settings.bandwidth)
        sparsity = settings.penalty * (counts.sum() / len(inputs) / settings.k - 1) ** 2
        if bool(dead.any()):
            short = (thresholds[dead] - before[:, dead]).relu().sum(1).mean()
            sparsity = sparsity + _DEAD_PENALTY * short / width
    error = targets - features @ weights.decoder - weights.decoder_bias
    return BatchLoss(
        loss=error.square().mean() + sparsity,
        error=error.detach(),
        active=float(counts.detach().sum() / len(inputs)),
        fired=counts.detach() > 0,
    )


def _sparse_loss(
    weights: Weights, inputs: Tensor, targets: Tensor, dead: Tensor, settings: DictionarySettings
) -> BatchLoss:
    bias = weights.bias
    with torch.no_grad():
        before = F.linear(inputs, weights.encoder, bias)
        if settings.activation == "topk":
            active, values = _largest_of_each(before, settings.k)
        else:
            active, values = _largest_of_all(before, settings.k * len(inputs), weights.cut)
            weights.cut = _running(weights.cut, float(values.min())) if len(values) else weights.cut
    features = SelectedFeatures.apply(values, inputs, weights.encoder, bias, active).relu()
    error = targets - SparseDecode.apply(features, active, weights.decoder) - weights.decoder_bias
    loss = error.square().mean()
    if settings.aux_weight and bool(dead.any()):
        loss = loss + settings.aux_weight * _auxiliary(
            weights, inputs, bias, before, error.detach(), dead, settings
        )
    positive = features.detach() > 0
    fired = torch.zeros_like(dead)
    fired[active.features[positive]] = True
    return BatchLoss(loss, error.detach(), float(positive.sum() / len(inputs)), fired)


def _auxiliary(
    weights: Weights,
    inputs: Tensor,
    bias: Tensor,
    before: Tensor,
    error: Tensor,
    dead: Tensor,
    settings: DictionarySettings,
) -> Tensor:
    """The share of the error that dead features leave, which is what teaches them."""
    which = dead.nonzero()[:, 0]
    number = min(settings.aux_k or max(1, inputs.shape[1] // 2), len(which))
    with torch.no_grad():
        local, values = _largest_of_each(before[:, which], number)
        active = local._replace(features=which[local.features])
    features = SelectedFeatures.apply(values, inputs, weights.encoder, bias, active).relu()
    left = error - SparseDecode.apply(features, active, weights.decoder)
    variance = (error - error.mean(0)).square().mean()
    return (left.square().mean() / variance).nan_to_num(0.0, 0.0, 0.0)


def _largest_of_each(before: Tensor, number: int) -> tuple[Active, Tensor]:
    """The largest numbers of each input."""
    best = before.topk(number, dim=1, sorted=False)
    rows = torch.arange(len(before), device=before.device).repeat_interleave(number)
    return active_of(rows, best.indices.flatten(), len(before)), best.values.flatten()


def _largest_of_all(before: Tensor, number: int, cut: float) -> tuple[Active, Tensor]:
    """The largest positive numbers of the batch; a guess of the smallest of them saves most of the search."""
    candidates = (before > 0.9 * cut).nonzero() if cut else before[:0].nonzero()
    if len(candidates) < number:
        candidates = (before > 0).nonzero()
    values = before[candidates[:, 0], candidates[:, 1]]
    kept = values.topk(min(number, len(values)), sorted=False).indices.sort().values
    rows, features = candidates[kept].unbind(1)
    return active_of(rows, features, len(before)), values[kept]


def _running(before: float, now: float, keep: float = 0.99) -> float:
    """A running mean, which begins with the first number (SAELens' rate)."""
    return keep * before + (1 - keep) * now if before else now
