"""The weights at the beginning of a dictionary's training, and the new weights of dead features."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.errors import ArgumentError, NonFiniteError
from .objective import Weights
from .settings import DictionarySettings

_SHARE = 0.2  # of the length of live encoders, for features that begin again (Bricken et al. 2023)


def scale_of(values: Tensor) -> float:
    """Returns the number that gives vectors (N, width) the norm sqrt(width) on average.

    Raises:
        NonFiniteError: A number is NaN or infinite.
        ArgumentError: All are 0.

    Example:
        >>> scale_of(torch.full((5, 4), 2.0))
        0.5
    """
    mean = float(values.double().norm(dim=1).mean())
    if not mean < float("inf"):
        raise NonFiniteError("the activations have NaN or infinite numbers in them")
    if not mean:
        raise ArgumentError("the activations are all 0")
    return float(values.shape[1] ** 0.5 / mean)


def geometric_median(values: Tensor, steps: int = 50) -> Tensor:
    """Returns the point (width,) with the smallest sum of distances to vectors (N, width) (Weiszfeld).

    Example:
        >>> values = torch.tensor([[0.0, 0.0], [1.0, 0.0], [100.0, 0.0]])
        >>> geometric_median(values).round(decimals=2)
        tensor([1., 0.])
    """
    median = values.mean(0)
    for _ in range(steps):
        weights = 1 / (values - median).norm(dim=1).clamp_min(1e-6)
        median = weights @ values / weights.sum()
    return median


def initial_weights(
    inputs: Tensor,
    targets: Tensor,
    settings: DictionarySettings,
    transcoder: bool,
    generator: torch.Generator,
) -> Weights:
    """Returns unit decoder rows in random directions, encoders tied to them, and a bias in the median.

    The encoder of a transcoder is random, and the decoder what the best linear map makes of it.

    Args:
        inputs: Activations (N, width).
        targets: What is reconstructed, (N, output width).
        settings: The settings.
        transcoder: Whether the targets are other activations.
        generator: Draws the directions.
    """
    shape = settings.features, inputs.shape[1]
    encoder = F.normalize(torch.randn(shape, generator=generator), dim=1)
    encoder_bias = torch.zeros(settings.features)
    decoder = encoder.clone()
    if transcoder:
        encoder_bias = -encoder @ geometric_median(inputs)
        decoder = F.normalize(encoder @ _linear_map(inputs, targets), dim=1)
    weights = Weights(
        encoder=encoder,
        encoder_bias=encoder_bias,
        decoder=decoder,
        decoder_bias=geometric_median(targets),
        thresholds=torch.zeros(settings.features),
        subtract_bias=not transcoder,
    )
    if settings.activation == "jump_relu":  # as many features are active as are wanted
        before = F.linear(inputs, weights.encoder, weights.bias).flatten()
        rank = round(len(before) * (1 - settings.k / settings.features))
        start = float(before.kthvalue(max(1, rank)).values)
        weights.thresholds = torch.full((settings.features,), max(start, settings.bandwidth))
    return weights


def _linear_map(inputs: Tensor, targets: Tensor) -> Tensor:
    """The matrix (width, output width) that predicts targets from inputs best, both around their means."""
    centred, wanted = (inputs - inputs.mean(0)).double(), (targets - targets.mean(0)).double()
    covariance = centred.T @ centred
    covariance.diagonal().add_(1e-3 * covariance.diagonal().mean())  # has an inverse where inputs are few
    result: Tensor = torch.linalg.solve(covariance, centred.T @ wanted).float()
    return result


def begin_again(
    weights: Weights,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    error: Tensor,
    dead: Tensor,
    generator: torch.Generator,
) -> None:
    """Gives dead features the directions of inputs that are reconstructed badly (Bricken et al. 2023).

    An input is chosen with a probability that grows with the square of its loss. The encoder gets a fifth of
    the mean length of live ones, the bias 0, and what Adam remembers of the features is forgotten.

    Args:
        weights: The parameters, changed in place.
        optimizer: Adam.
        inputs: (N, width).
        error: Targets minus reconstructions, (N, output width).
        dead: Which features, (features,).
        generator: Draws the inputs.
    """
    which = dead.nonzero()[:, 0]
    chances = error.square().sum(1).square().double()
    if not len(which) or not float(chances.sum()) > 0:
        return
    chosen = torch.multinomial(chances, len(which), replacement=True, generator=generator)
    with torch.no_grad():
        live = weights.encoder[~dead].norm(dim=1)
        length = float(live.mean()) if len(live) else 1.0
        targets = error[chosen] if weights.decoder.shape[1] != inputs.shape[1] else inputs[chosen]
        centred = inputs[chosen] - (weights.decoder_bias if weights.subtract_bias else 0)
        weights.decoder[which] = F.normalize(targets - (inputs[chosen] - centred), dim=1)
        weights.encoder[which] = F.normalize(centred, dim=1) * _SHARE * length
        weights.encoder_bias[which] = 0
        for parameter in (weights.decoder, weights.encoder, weights.encoder_bias):
            for name in ("exp_avg", "exp_avg_sq"):
                if name in optimizer.state.get(parameter, {}):
                    optimizer.state[parameter][name][which] = 0
