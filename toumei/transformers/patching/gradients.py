"""Attribution patching: the effects of all patches at once, to first order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ...core.checks import check_choice, check_counts, checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.seeding import make_generator
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import specs
from ...plots.style import drawing
from ..model.hooked_model import HookedModel
from ..model.point_names import full_name
from .activations import By, Patches
from .changes import Change
from .patching_result import PatchingResult
from .problems import Direction, Problem, make_problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Run = Literal["clean", "corrupt"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AttributionPatching(Saved):
    """Estimated effects of patches, and how far they are from exact ones on a sample.

    Attributes:
        estimate: The effects to first order, with the fields of exact patching.
        gradient_at: The run in which the gradient was taken: corrupt estimates denoising, clean noising.
        places: The places of the sample, as `PatchingResult.top` names them.
        estimated: Their estimated effects.
        exact: Their effects by activation patching.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers import HookedModel, attribution_patching, logit_difference
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
        >>> found = attribution_patching(model, clean, corrupt, logit_difference(4, 5), layers=[1])
        >>> found.estimate.top(1)[0][0], found.error < 1e-6
        ('1.0', True)
    """

    estimate: PatchingResult
    gradient_at: str
    places: tuple[str, ...]
    estimated: Tensor
    exact: Tensor

    _specs = specs(places="sample", estimated="sample", exact="sample")

    @property
    def values(self) -> Tensor:
        """The estimated effects, normalised as those of `activation_patching`."""
        return self.estimate.values

    @property
    def error(self) -> float:
        """The root mean square of estimated minus exact effects in the sample."""
        return float((self.estimated - self.exact).square().mean().sqrt())

    @property
    def correlation(self) -> float:
        """The correlation of estimated and exact effects in the sample; NaN where they do not vary."""
        return float(torch.stack([self.estimated, self.exact]).corrcoef()[0, 1])

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the exact effects of the sample over the estimated ones.

        Args:
            ax: Where to draw; a new figure by default.
        """
        with drawing(ax, 4.5, 4.0) as axes:
            axes.scatter(self.estimated, self.exact, s=14)
            axes.axline((0, 0), slope=1, color="0.6", linewidth=1)
            axes.set(xlabel="estimated effect", ylabel="exact effect")
            axes.set_title(f"Effects by gradients and by patching: r = {self.correlation:.2f}")
        return axes

    def __repr__(self) -> str:
        return (
            f"AttributionPatching(gradient at {self.gradient_at}, error {self.error:.3f} and correlation "
            f"{self.correlation:.2f} on {counted(len(self.places), 'patch')})"
        )


@checked
def attribution_patching(
    model: HookedModel,
    clean: Any,
    corrupt: Any,
    metric: Any,
    what: str = "z",
    by: By = "head",
    *,
    gradient_at: Run = "corrupt",
    layers: Sequence[int] | None = None,
    sample: int = 16,
    seed: int = 0,
    batch_size: int | None = None,
) -> AttributionPatching:
    """Returns first-order estimates of all effects of `activation_patching`, from two passes and a gradient.

    The estimate is (a_clean - a_corrupt) dm/da / (m_clean - m_corrupt), summed over what a patch replaces.
    With the gradient at the corrupt run, as in TransformerLens, it estimates denoising; at the clean run, as
    in Kramár et al. 2024 (arXiv:2403.00745), noising. Saturated attention makes it wrong, so half of a sample
    are the highest estimates and half random others, and all of them are patched exactly.

    Args:
        model: The model.
        clean: Prompts, as texts or token ids.
        corrupt: Prompts of the same number of tokens.
        metric: As for `activation_patching`.
        what: The short name of an activation that the model computes, so that it has a gradient.
        by: What one patch replaces.
        gradient_at: ``"corrupt"`` or ``"clean"``.
        layers: The layers that are patched; all by default.
        sample: How many patches are also done exactly.
        seed: Draws them.
        batch_size: How many prompts times patches of the sample run at once.

    Raises:
        ArgumentError: Numbers of tokens differ, the gap of the metric is near 0, or the activation has no
            gradient.
        LayerError: The model has no such activation.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers.patching import logit_difference
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
        >>> result = attribution_patching(model, clean, corrupt, logit_difference(4, 5), layers=[1])
        >>> result.values, result.error < 1e-6
        (tensor([[1.0000, 0.0000]], dtype=torch.float64), True)
    """
    check_choice("gradient_at", gradient_at, ("clean", "corrupt"))
    check_counts(2, sample=sample)
    direction: Direction = "denoising" if gradient_at == "corrupt" else "noising"
    with evaluating(model.model):
        problem = make_problem(model, clean, corrupt, metric)
        patches = Patches(problem, what, by, direction, layers)
        estimates = _estimates(problem, patches, direction)
        chosen = _sample(estimates, sample, seed)
        exact = patches.measured(chosen, batch_size, False)
    base = problem.values[1] if direction == "denoising" else problem.values[0]
    sign = 1 if direction == "denoising" else -1
    result = patches.result({one: base + sign * value for one, value in estimates.items()})
    pairs = torch.tensor([[base + sign * estimates[one], exact[one]] for one in chosen], dtype=torch.float64)
    estimated, true = problem.normalized(pairs, direction).unbind(1)
    return AttributionPatching(
        estimate=result,
        gradient_at=gradient_at,
        places=tuple(_name(one) for one in chosen),
        estimated=estimated.clone(),
        exact=true.clone(),
    )


def _estimates(problem: Problem, patches: Patches, direction: Direction) -> dict[Change, float]:
    """The estimated change of the mean metric from corrupt to clean, for each patch."""
    names = [(patches.what, layer) for layer in patches.layers]

    def metric(logits: Tensor) -> Tensor:
        return problem.read(logits[:, -1] if logits.dim() > 2 else logits).mean()

    _, cache = problem.model.run_with_cache(problem.base(direction), names, metric=metric)
    found: dict[Change, float] = {}
    sign = 1 if direction == "denoising" else -1
    for layer in patches.layers:
        if full_name((patches.what, layer)) not in cache.grad:
            raise ArgumentError(
                f"{patches.what!r} is not computed by the model apart and has no gradient: load the model "
                f'with attn_implementation="eager"'
            )
        delta = sign * (patches.source[patches.what, layer] - patches.base[patches.what, layer])
        product = (delta * cache.grad[patches.what, layer]).double()
        for change in patches.changes():
            if change.layer == layer:
                found[change] = float(product[patches.replacement.index(change)].sum())
    return found


def _sample(estimates: dict[Change, float], count: int, seed: int) -> list[Change]:
    """Half of the highest estimates, half random others."""
    ordered = sorted(estimates, key=lambda one: -abs(estimates[one]))
    highest, others = ordered[: count // 2], ordered[count // 2 :]
    order = torch.randperm(len(others), generator=make_generator(seed)).tolist()
    return highest + [others[place] for place in order[: count - len(highest)]]


def _name(change: Change) -> str:
    places = (change.layer, change.unit, change.position)
    return ".".join(str(place) for place in places if place is not None)
