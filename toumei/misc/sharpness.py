"""How sharp a minimum is: the loss under noise on the weights, trace and top eigenvalue of its Hessian."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp

from ..core.errors import ArgumentError
from ..core.modules import evaluating
from ..core.seeding import make_generator
from ..core.serialization import Saved
from ..core.stored_fields import specs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Loss = Callable[[Tensor, Tensor], Tensor]
Weights = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Sharpness(Saved):
    """How much the loss rises under noise, for each size of the noise.

    Attributes:
        sigmas: (S,) standard deviations of the noise.
        rise: (S,) mean of the loss with noise less the loss without.
        standard_error: (S,) of that mean.
        loss: Without noise.
    """

    sigmas: Tensor
    rise: Tensor
    standard_error: Tensor
    loss: float

    _specs = specs(sigmas="sizes", rise="sizes", standard_error="sizes")

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the rise over the size of the noise."""
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.figure(figsize=(4, 3), layout="constrained").add_subplot()
        ax.errorbar(self.sigmas.tolist(), self.rise.tolist(), 2 * self.standard_error, fmt="o-", markersize=4)
        ax.set_xlabel("standard deviation of the noise")
        ax.set_ylabel("rise of the loss")
        return ax

    def __repr__(self) -> str:
        rows = zip(self.sigmas.tolist(), self.rise.tolist(), self.standard_error.tolist(), strict=True)
        shown = ", ".join(f"{rise:.3g} +- {error:.1g} at {sigma:.3g}" for sigma, rise, error in rows)
        return f"Sharpness(loss {self.loss:.4g} rises by {shown})"


@torch.no_grad()
def perturbation_sharpness(
    model: nn.Module,
    loss: Loss,
    inputs: Tensor,
    targets: Tensor,
    sigmas: float | Sequence[float] = (0.005, 0.01, 0.02),
    *,
    samples: int = 20,
    seed: int = 0,
) -> Sharpness:
    """Returns how much the loss rises under Gaussian noise on the weights (not the biases).

    The draws are paired: each is also taken with the opposite sign, which removes the slope, and all
    sizes share their draws. To second order the rise is ``sigma ** 2 / 2`` times the trace of the Hessian.

    Args:
        model: The network; it is left as it is.
        loss: From outputs and targets to a scalar.
        inputs: (N, ...).
        targets: What the loss takes.
        sigmas: Standard deviations of the noise.
        samples: Pairs of draws.
        seed: Seed of the draws.

    Raises:
        ArgumentError: Fewer than two samples, a negative sigma, or a model without weights.

    Example:
        >>> model = nn.Linear(3, 1)
        >>> x = torch.randn(50, 3)
        >>> perturbation_sharpness(model, nn.functional.mse_loss, x, model(x).detach(), 0.1).rise.item() > 0
        True
    """
    sizes = torch.as_tensor([sigmas] if isinstance(sigmas, float | int) else sigmas, dtype=torch.float64)
    if samples < 2 or not len(sizes) or (sizes < 0).any():
        raise ArgumentError(
            f"sharpness takes 2 samples or more and sigmas from 0 on, got {samples} and {sigmas}"
        )
    weights = _weights(model)
    with evaluating(model):
        value = _loss(model, loss, inputs, targets)
        middle = float(value({}))
        rises = torch.zeros(samples, len(sizes), dtype=torch.float64)
        for row, noise in enumerate(_draws(weights, samples, seed)):
            for column, sigma in enumerate(sizes.tolist()):
                pair = [
                    value({name: weight + sign * sigma * noise[name] for name, weight in weights.items()})
                    for sign in (1, -1)
                ]
                rises[row, column] = float(torch.stack(pair).double().mean()) - middle
    return Sharpness(sizes, rises.mean(0), rises.std(0) / samples**0.5, middle)


@torch.no_grad()
def hessian_trace(
    model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, *, samples: int = 50, seed: int = 0
) -> tuple[float, float]:
    """Returns the trace of the loss's Hessian over the weights, and its standard error (Hutchinson, 1990).

    The arguments are those of `perturbation_sharpness`; a sample is a product with random signs.

    Raises:
        ArgumentError: Fewer than two samples, or a model without weights.
    """
    if samples < 2:
        raise ArgumentError(f"a standard error needs at least 2 samples, got {samples}")
    weights = _weights(model)
    with evaluating(model):
        product = _hessian_product(model, loss, inputs, targets, weights)
        traces = torch.tensor(
            [
                float(_dot(signs, product(signs)))
                for signs in (
                    {n: d.sign() for n, d in draw.items()} for draw in _draws(weights, samples, seed)
                )
            ],
            dtype=torch.float64,
        )
    return float(traces.mean()), float(traces.std() / samples**0.5)


@torch.no_grad()
def top_eigenvalue(
    model: nn.Module,
    loss: Loss,
    inputs: Tensor,
    targets: Tensor,
    *,
    steps: int = 100,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> float:
    """Returns the Hessian's eigenvalue of largest absolute value over the weights, by power iteration.

    The arguments are those of `perturbation_sharpness`.

    Args:
        model: The network.
        loss: From outputs and targets to a scalar.
        inputs: (N, ...).
        targets: What the loss takes.
        steps: The most products with the Hessian.
        tolerance: Relative change at which the iteration ends.
        seed: Seed of the vector to start from.

    Raises:
        ArgumentError: A model without weights.
    """
    weights = _weights(model)
    (vector,) = _draws(weights, 1, seed)
    value = 0.0
    with evaluating(model):
        product = _hessian_product(model, loss, inputs, targets, weights)
        for _ in range(steps):
            norm = _dot(vector, vector).sqrt().clamp(min=1e-30)
            vector = {name: part / norm for name, part in vector.items()}
            image = product(vector)
            before, value = value, float(_dot(vector, image))
            vector = image
            if abs(value - before) <= tolerance * abs(value):
                break
    return value


def _weights(model: nn.Module) -> Weights:
    weights = {name: p.detach() for name, p in model.named_parameters() if p.dim() > 1}
    if not weights:
        raise ArgumentError(
            f"{type(model).__name__} has no weights to perturb, no parameter of two axes or more"
        )
    return weights


def _loss(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Callable[[Weights], Tensor]:
    return lambda weights: loss(functional_call(model, weights, (inputs,)), targets)


def _hessian_product(
    model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, weights: Weights
) -> Callable[[Weights], Weights]:
    gradient = grad(_loss(model, loss, inputs, targets))

    def product(vector: Weights) -> Weights:
        with torch.enable_grad():
            (image,) = vjp(gradient, weights)[1](vector)  # a Hessian is symmetric
        return {name: part.detach() for name, part in image.items()}

    return product


def _draws(weights: Weights, count: int, seed: int) -> Iterator[Weights]:
    generator = make_generator(seed)
    for _ in range(count):
        yield {
            n: torch.randn(w.shape, generator=generator, dtype=w.dtype).to(w.device)
            for n, w in weights.items()
        }


def _dot(first: Weights, second: Weights) -> Tensor:
    return torch.stack([(first[name] * second[name]).sum() for name in first]).sum()
