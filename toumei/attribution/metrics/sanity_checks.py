"""Whether contributions depend on the trained weights, and how much on small changes of the input."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.modules import find_module
from ...core.seeding import make_generator, seeded
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import specs
from ...plots.style import drawing
from ..base.baselines import BaselineLike
from ..base.method import Method
from ..base.result import Attribution
from ..base.targets import Targets

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Randomization(Saved):
    """How similar contributions stay while a network forgets, layer by layer from the output.

    Attributes:
        layers: In the order in which they were initialized again; the empty name is the model itself.
        correlations: (L, N) Spearman's rank correlation of the magnitudes with those of the trained network.

    Example:
        >>> found = Randomization(("fc", "conv"), torch.tensor([[0.5, 0.3], [0.1, 0.1]]))
        >>> found
        Randomization(2 layers, correlation 0.10 at the end)
        >>> found.correlations.mean(1)
        tensor([0.4000, 0.1000])
    """

    layers: tuple[str, ...]
    correlations: Tensor

    _specs = specs(layers="layers", correlations="layers N")

    @checked
    def plot(self, ax: "Axes | None" = None, label: str | None = None) -> "Axes":
        """Returns axes with the mean correlation after each layer."""
        means = [1.0, *self.correlations.mean(1).tolist()]
        names = ["trained", *(name or "the model itself" for name in self.layers)]
        with drawing(ax) as ax:
            ax.plot(range(len(means)), means, marker="o", markersize=3, label=label)
            ax.set_xticks(range(len(means)), names, rotation=90)
            ax.set_xlabel("layers initialized again, one more at a time")
            ax.set_ylabel("rank correlation with the trained network")
            ax.set_title("Likeness of the maps while the network forgets its weights")
        return ax

    def __repr__(self) -> str:
        last = self.correlations[-1].mean()
        return f"Randomization({counted(len(self.layers), 'layer')}, correlation {last:.2f} at the end)"


@checked
def randomization(
    method: Method,
    inputs: Tensor,
    target: Targets = None,
    baselines: BaselineLike = None,
    *,
    layers: str | Sequence[str] | None = None,
    seed: int | None = 0,
) -> Randomization:
    """Returns how similar contributions stay while layers are initialized again, from the output on.

    The contributions of a method that explains what was learned change; those of guided backpropagation are
    known not to (Adebayo et al., Sanity Checks for Saliency Maps, 2018). The layers are those of a copy; the
    model itself does not change.

    A layer with PyTorch's ``reset_parameters`` is initialized by it. For others, such as the projections of
    GPT-2 or the class token of a vision transformer, each weight is drawn from the normal distribution with
    the mean and the standard deviation of the trained ones.

    Args:
        method: The method, on the trained network.
        inputs: (N, ...).
        target: For one target; see `Method`.
        baselines: As for the method.
        layers: The one to initialize again, or several in this order; by default all layers with weights,
            from the last that is registered to the first, and at the end the weights of the model itself.
        seed: Seed of the new weights.

    Raises:
        ArgumentError: There is no layer with weights, or one without weights is named.
        LayerError: A layer that the model does not have.

    Example:
        >>> from toumei.attribution import InputXGradient
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> randomization(InputXGradient(model), torch.randn(3, 4), target=1).layers
        ('2', '0')
    """
    forgetting = copy.deepcopy(method.model)
    if layers is None:
        found = dict(forgetting.named_modules())
        layers = [name for name in reversed(found) if _can_forget(found[name])]
    layers = [layers] if isinstance(layers, str) else layers
    for name in layers:
        if not _can_forget(find_module(forgetting, name)):
            raise ArgumentError(f"layer {name!r} has no weights to initialize again")
    if not layers:
        raise ArgumentError("the network has no layer with weights to initialize again")
    method = method.with_model(forgetting, method.layer)
    trained = _magnitudes(method(inputs, target, baselines))
    correlations = []
    with seeded(seed):
        for name in layers:
            _forget(find_module(forgetting, name))
            torch.clear_autocast_cache()  # copies of the weights in lower precision
            correlations.append(spearman(trained, _magnitudes(method(inputs, target, baselines))))
    return Randomization(tuple(layers), torch.stack(correlations))


@checked
def max_sensitivity(
    method: Method,
    inputs: Tensor,
    target: Targets = None,
    baselines: BaselineLike = None,
    *,
    radius: float = 0.02,
    samples: int = 10,
    seed: int | None = 0,
) -> Tensor:
    """Returns the largest relative change of contributions for small changes of the input, (N,).

    Args:
        method: The method (Yeh et al., 2019).
        inputs: (N, ...).
        target: For one target.
        baselines: As for the method.
        radius: Largest change of a number of the input.
        samples: How many random changes are tried.
        seed: Seed of the changes.

    Raises:
        ArgumentError: No samples, or a radius that is not positive.

    Example:
        >>> from toumei.attribution import Saliency
        >>> max_sensitivity(Saliency(nn.Linear(4, 2)), torch.randn(3, 4), target=1)
        tensor([0., 0., 0.], dtype=torch.float64)
    """
    if samples < 1 or not radius > 0:
        raise ArgumentError(f"needs samples and a positive radius, got {samples} and {radius}")
    generator = make_generator(seed)
    at_input = _flat(method(inputs, target, baselines))
    largest = torch.zeros(len(inputs), dtype=torch.float64)
    for _ in range(samples):
        noise = torch.rand(inputs.shape, generator=generator, dtype=inputs.dtype) * 2 - 1
        changed = _flat(method(inputs + radius * noise.to(inputs.device), target, baselines))
        largest = torch.maximum(largest, (changed - at_input).norm(dim=1))
    result: Tensor = largest / at_input.norm(dim=1).clamp(min=1e-300)
    return result


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Returns Spearman's rank correlation of the rows of two tensors (N, M), ties with their mean rank.

    It is NaN where a row has NaN, which has no rank.

    Example:
        >>> spearman(torch.tensor([[1.0, 5.0, 9.0]]), torch.tensor([[0.0, 0.1, 7.0]]))
        tensor([1.], dtype=torch.float64)
    """
    ranks = []
    for rows in (first, second):
        ordered = rows.sort(1).values.contiguous()
        ends = [torch.searchsorted(ordered, rows.contiguous(), right=right) for right in (False, True)]
        middle = (ends[0] + ends[1]).double() / 2
        ranks.append(middle - middle.mean(1, keepdim=True))
    power = (ranks[0].square().sum(1) * ranks[1].square().sum(1)).sqrt()
    unknown = (first.isnan() | second.isnan()).any(1)
    return ((ranks[0] * ranks[1]).sum(1) / power.clamp(min=1e-300)).masked_fill(unknown, torch.nan)


def _can_forget(module: nn.Module) -> bool:
    return any(parameter.is_floating_point() for parameter in module.parameters(recurse=False))


def _forget(module: nn.Module) -> None:
    """Initializes the weights again that belong to a module itself, not to its children."""
    for name in ("reset_parameters", "_reset_parameters"):
        if hasattr(module, name):
            getattr(module, name)()
            return
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                trained = parameter.float()
                mean, deviation = trained.mean(), trained.std(correction=0)
                parameter.copy_(mean + deviation * torch.randn_like(trained))


def _flat(result: Attribution) -> Tensor:
    if result.several or not isinstance(result.values, Tensor):
        raise ArgumentError("give one target and one tensor as input")
    return result.values.double().reshape(len(result.output), -1)


def _magnitudes(result: Attribution) -> Tensor:
    return _flat(result).abs()
