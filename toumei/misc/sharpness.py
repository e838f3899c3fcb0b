"""How sharp a minimum is: the loss under noise on the weights, trace and top eigenvalue of its Hessian."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp

from ..core.checks import checked
from ..core.errors import ArgumentError
from ..core.finite import check_finite
from ..core.forward import check_differentiable, forward_errors
from ..core.kinds import shown
from ..core.modules import evaluating
from ..core.repeats import check_repeats
from ..core.seeding import make_generator
from ..core.serialization import Saved
from ..core.summaries import listed
from ..core.tensor_specs import specs
from ..plots.style import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Loss = Callable[[Tensor, Tensor], Tensor]
Weights = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Sharpness(Saved):
    """How much the loss rises under noise, for each size of the noise.

    Attributes:
        sigmas: (S,) standard deviations of the noise.
        rise: (S,) mean of the loss with noise, minus the loss without noise.
        standard_error: (S,) standard error of that mean.
        loss: The loss without noise.

    Example:
        >>> found = Sharpness(torch.tensor([0.01, 0.1]), torch.tensor([0.0, 0.3]), torch.zeros(2), 0.5)
        >>> found
        Sharpness(loss 0.5 rises by 0 +- 0 at 0.01, 0.3 +- 0 at 0.1)
    """

    sigmas: Tensor
    rise: Tensor
    standard_error: Tensor
    loss: float

    _specs = specs(sigmas="sizes", rise="sizes", standard_error="sizes")

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the rise over the size of the noise."""
        with drawing(ax, 4, 3) as ax:
            errors = 2 * self.standard_error
            ax.errorbar(self.sigmas.tolist(), self.rise.tolist(), errors, fmt="o-", markersize=4)
            ax.set_xlabel("standard deviation of the noise")
            ax.set_ylabel("rise of the loss, with 2 standard errors")
            ax.set_title("The loss with noise on the weights")
        return ax

    def __repr__(self) -> str:
        rows = zip(self.sigmas.tolist(), self.rise.tolist(), self.standard_error.tolist(), strict=True)
        shown = [f"{rise:.3g} +- {error:.1g} at {sigma:.3g}" for sigma, rise, error in rows]
        return f"Sharpness(loss {self.loss:.4g} rises by {listed(shown)})"


@checked
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

    Samples are paired: each is also taken with the opposite sign, which removes the slope. All sizes of the
    noise use the same samples. To second order the rise is ``sigma ** 2 / 2`` times the trace of the Hessian.

    Args:
        model: The network; it is not changed.
        loss: From outputs and targets to a scalar.
        inputs: (N, ...).
        targets: The targets that the loss takes.
        sigmas: Standard deviations of the noise.
        samples: How many pairs of samples.
        seed: Seed of the samples.

    Raises:
        ArgumentError: Fewer than two samples, a negative sigma, or a model without weights.
        NonFiniteError: The loss is NaN or infinite, without noise or with it.

    Example:
        >>> model = nn.Linear(3, 1)
        >>> x = torch.randn(50, 3)
        >>> perturbation_sharpness(model, nn.functional.mse_loss, x, model(x).detach(), 0.1).rise.item() > 0
        True
    """
    sizes = torch.as_tensor([sigmas] if isinstance(sigmas, float | int) else sigmas, dtype=torch.float64)
    if samples < 2 or not len(sizes) or (sizes < 0).any():
        raise ArgumentError(
            f"sharpness takes at least 2 samples and sigmas of at least 0, got {samples} and {sigmas}"
        )
    landscape = _Landscape(model=model, loss=loss, inputs=inputs, targets=targets)
    with evaluating(model):
        unperturbed = landscape.checked_loss()
        losses = [landscape.mean_losses(noise, sizes) for noise in landscape.noise(samples, seed)]
    rises = torch.stack(losses) - unperturbed
    check_finite(rises.T, "the losses under noise", "take smaller sigmas")
    return Sharpness(
        sigmas=sizes,
        rise=rises.mean(0),
        standard_error=rises.std(0) / samples**0.5,
        loss=unperturbed,
    )


@torch.inference_mode(False)  # which has no gradients
@checked
@torch.no_grad()
def hessian_trace(
    model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, *, samples: int = 50, seed: int = 0
) -> tuple[float, float]:
    """Returns the trace of the Hessian over the weights, and its standard error (Hutchinson, 1990).

    The arguments are those of `perturbation_sharpness`; a sample is a product with random signs.

    Raises:
        ArgumentError: Fewer than two samples, or a model without weights.
        NonFiniteError: The loss or its second derivative is NaN or infinite.

    Example:
        >>> model = nn.Linear(3, 1, bias=False)
        >>> inputs = torch.eye(3)
        >>> targets = torch.zeros(3, 1)
        >>> trace, error = hessian_trace(model, nn.functional.mse_loss, inputs, targets, samples=2)
        >>> round(trace, 3)  # 2 / 3 for each of the three weights
        2.0
    """
    if samples < 2:
        raise ArgumentError(f"a standard error needs at least 2 samples, got {samples}")
    landscape = _Landscape(model=model, loss=loss, inputs=inputs, targets=targets)
    traces = []
    with evaluating(model):
        landscape.checked_loss()
        product = landscape.hessian_product()
        for noise in landscape.noise(samples, seed):
            signs = {name: part.sign() for name, part in noise.items()}
            traces.append(float(_dot(signs, product(signs))))
            _check_curvature(traces[-1])
    values = torch.tensor(traces, dtype=torch.float64)
    return float(values.mean()), float(values.std() / samples**0.5)


@torch.inference_mode(False)  # which has no gradients
@checked
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
    """Returns the eigenvalue of the Hessian with the largest absolute value, by power iteration.

    The Hessian is that of the loss over the weights.

    Args:
        model: The network.
        loss: From outputs and targets to a scalar.
        inputs: (N, ...).
        targets: The targets that the loss takes.
        steps: The most products with the Hessian.
        tolerance: Relative change at which the iteration ends.
        seed: Seed of the vector to start from.

    Raises:
        ArgumentError: A model without weights.
        NonFiniteError: The loss or its second derivative is NaN or infinite.

    Example:
        >>> model = nn.Linear(3, 1, bias=False)
        >>> inputs = torch.eye(3)
        >>> round(top_eigenvalue(model, nn.functional.mse_loss, inputs, torch.zeros(3, 1)), 3)
        0.667
    """
    landscape = _Landscape(model=model, loss=loss, inputs=inputs, targets=targets)
    (vector,) = landscape.noise(1, seed)
    value = 0.0
    with evaluating(model):
        landscape.checked_loss()
        product = landscape.hessian_product()
        for _ in range(steps):
            norm = _dot(vector, vector).sqrt().clamp(min=1e-30)
            vector = {name: part / norm for name, part in vector.items()}
            image = product(vector)
            before, value = value, float(_dot(vector, image))
            _check_curvature(value)
            vector = image
            if abs(value - before) <= tolerance * abs(value):
                break
    return value


@dataclass(frozen=True)
class _Landscape:
    """The loss of a network on some data, as a function of its weights."""

    model: nn.Module
    loss: Loss
    inputs: Tensor
    targets: Tensor
    weights: Weights = field(init=False)

    def __post_init__(self) -> None:
        weights = {name: p.detach() for name, p in self.model.named_parameters() if p.dim() > 1}
        if not weights:
            raise ArgumentError(
                f"{type(self.model).__name__} has no weights to perturb, no parameter of two axes or more"
            )
        object.__setattr__(self, "weights", weights)

    def __call__(self, weights: Weights) -> Tensor:
        with forward_errors(self.model, (self.inputs,)):
            loss = self.loss(functional_call(self.model, weights, (self.inputs,)), self.targets)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise ArgumentError(f"a loss is a tensor with one number, got {shown(loss)}")
        return loss.reshape(())

    def checked_loss(self) -> float:
        """The loss without noise, after a warning if the network says something else in another pass.

        Raises:
            NonFiniteError: It is NaN or infinite.
        """
        loss = self({})
        why = "the inputs, the targets or the weights have NaN, or the loss overflows"
        check_finite(loss, "the loss and what follows from it", why)
        check_repeats(self.model, self.inputs[:1])
        return float(loss)

    def mean_losses(self, noise: Weights, sizes: Tensor) -> Tensor:
        """The mean loss at plus and minus the noise, for each of its sizes, (S,)."""
        pairs = [
            [
                self({name: weight + step * noise[name] for name, weight in self.weights.items()})
                for step in (sigma, -sigma)
            ]
            for sigma in sizes.tolist()
        ]
        return torch.stack([torch.stack(pair).double().mean() for pair in pairs]).cpu()

    def hessian_product(self) -> Callable[[Weights], Weights]:
        """The product of the Hessian and a vector."""
        with torch.enable_grad():
            leaves = {name: one.detach().requires_grad_() for name, one in self.weights.items()}
            check_differentiable(self(leaves), self.model)
        gradient = grad(self)

        def product(vector: Weights) -> Weights:
            with torch.enable_grad():
                (image,) = vjp(gradient, self.weights)[1](vector)  # a Hessian is symmetric
            return {name: part.detach() for name, part in image.items()}

        return product

    def noise(self, count: int, seed: int) -> Iterator[Weights]:
        """Normally distributed vectors of the shape of the weights."""
        generator = make_generator(seed)
        for _ in range(count):
            yield {
                name: torch.randn(weight.shape, generator=generator, dtype=weight.dtype).to(weight.device)
                for name, weight in self.weights.items()
            }


def _check_curvature(value: float) -> None:
    check_finite(
        torch.tensor(value),
        "products with the Hessian",
        "the loss has no finite second derivative there, as that of a square root at 0",
    )


def _dot(first: Weights, second: Weights) -> Tensor:
    return torch.stack([(first[name] * second[name]).sum() for name in first]).sum()
