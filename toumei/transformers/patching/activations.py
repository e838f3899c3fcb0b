"""Activation patching: which activations of another run carry the answer."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ...core.checks import check_choice, check_counts, checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.products import OneDnnProducts
from ...core.progress import tqdm
from ..model.hooked_model import HookedModel
from .changes import Change, Replacement
from .patching_result import PatchingResult
from .problems import DIRECTIONS, Direction, Problem, axes_of, layers_with, make_problem, recorded
from .sweep import PatchedRuns

By = Literal["layer", "layer_position", "head", "head_position", "neuron"]
"""What one patch replaces: an activation of a layer at all positions or one, of a head, of a neuron."""

_AXES: dict[str, tuple[str, ...]] = {
    "layer": ("layer",),
    "layer_position": ("layer", "position"),
    "head": ("layer", "head"),
    "head_position": ("layer", "head", "position"),
    "neuron": ("layer", "neuron"),
}
_ROUNDING = 1e-5


@checked
def activation_patching(
    model: HookedModel,
    clean: Any,
    corrupt: Any,
    metric: Any,
    what: str = "resid_pre",
    by: By = "layer_position",
    *,
    direction: Direction = "denoising",
    layers: Sequence[int] | None = None,
    batch_size: int | None = None,
    verbose: bool = False,
) -> PatchingResult:
    """Returns how much of a metric each activation of one run restores or destroys in the other run.

    Denoising puts activations of the clean run into the corrupt run and returns the share (m_patched -
    m_corrupt) / (m_clean - m_corrupt) that each restores (Meng et al. 2022, arXiv:2202.05262; Wang et al.
    2022, arXiv:2211.00593). Noising puts corrupt activations into the clean run, and returns the share
    (m_clean - m_patched) / (m_clean - m_corrupt) that is lost. Runs begin at the patched layer and position
    and share batches; see `toumei.transformers.patching.sweep`.

    Args:
        model: The model.
        clean: Prompts, as texts or token ids.
        corrupt: Prompts of the same number of tokens, one for each clean one.
        metric: `logit_difference`, `probability`, `kl_to_clean`, or a function from logits (prompts, tokens)
            to a number for each prompt, all at the last position; means over the prompts are compared.
        what: The short name of an activation: resid_pre, resid_mid, resid_post, attn_out, mlp_out, z, q, k,
            v, pattern, attn_scores, or the neurons' pre and post. Keys and values have the heads of keys.
        by: What one patch replaces.
        direction: ``"denoising"`` or ``"noising"``.
        layers: The layers that are patched; all by default.
        batch_size: How many prompts times patches run at once; by default as many as keep the device busy.
        verbose: Show progress.

    Raises:
        ArgumentError: Numbers of tokens differ, the gap of the metric is near 0, or `what` has no heads.
        LayerError: The model has no such activation; the message says why.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers.patching import logit_difference
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
        >>> heads = activation_patching(model, clean, corrupt, logit_difference(4, 5), "z", "head")
        >>> heads.top(2)
        (('0.0', 1.0), ('1.0', 1.0))
    """
    check_choice("by", by, _AXES)
    check_choice("direction", direction, DIRECTIONS)
    check_counts(1, batch_size=batch_size)
    with evaluating(model.model):
        problem = make_problem(model, clean, corrupt, metric)
        patches = Patches(problem, what, by, direction, layers)
        raw = patches.measured(patches.changes(), batch_size, verbose)
    return patches.result(raw)


class Patches:
    """All patches of one kind between two runs.

    Args:
        problem: The prompts and the metric.
        what: The short name of the activation.
        by: What one patch replaces.
        direction: Which run is changed.
        layers: The layers that are patched; None for all.
    """

    def __init__(
        self, problem: Problem, what: str, by: By, direction: Direction, layers: Sequence[int] | None
    ) -> None:
        self.problem, self.what, self.by, self.direction = problem, what, by, direction
        self.layers = _chosen(layers_with(problem.model, what), layers)
        self.base = recorded(problem, problem.base(direction), what, self.layers)
        self.source = recorded(problem, problem.source(direction), what, self.layers)
        values = {layer: self.source[what, layer] for layer in self.layers}
        self.replacement = Replacement(what, values, axes_of(problem.model, what, self.layers[0]))
        self._check_axes()

    def _check_axes(self) -> None:
        """Raises an error for a patch of heads or neurons where there are none."""
        heads = "head" in self.replacement.order
        if "head" in self.by and not heads:
            raise ArgumentError(f"{self.what!r} has no heads: patch it by layer or layer_position")
        if self.by == "neuron" and self.what not in ("pre", "post", "pre_linear"):
            raise ArgumentError(f"{self.what!r} has no neurons: pre and post of an MLP have some")
        problem = self.problem
        if (
            "position" in self.by
            and self.replacement.values[self.layers[0]].shape[self.replacement.position_axis]
            != problem.length
        ):
            raise ArgumentError(f"{self.what!r} has other positions than the {problem.length} of the prompts")

    def changes(self) -> list[Change]:
        """Returns all patches."""
        positions = range(self.problem.length) if "position" in self.by else [None]
        found = []
        for layer in self.layers:
            units: Sequence[int | None] = [None]
            if self.by in ("head", "head_position", "neuron"):
                units = range(self.units(layer))
            found += [Change(layer, position, unit) for unit in units for position in positions]
        return found

    def units(self, layer: int) -> int:
        """Returns how many heads or neurons the activation has in a layer."""
        axis = self.replacement.unit_axis
        return 0 if axis is None else self.replacement.values[layer].shape[axis]

    def measured(
        self, changes: Sequence[Change], batch_size: int | None, verbose: bool
    ) -> dict[Change, float]:
        """Returns the metric of each patched run, mean over the prompts."""
        problem, direction = self.problem, self.direction
        base = problem.values[1] if direction == "denoising" else problem.values[0]
        found = {change: base for change in changes if not self._differs(change)}
        runs = PatchedRuns(
            problem.model,
            problem.base(direction),
            self.replacement,
            first=problem.length - 1 if "input_ids" in problem.clean else 0,
            unchanged=problem.unchanged,
            batch_size=batch_size,
        )

        def read(logits: Tensor) -> Tensor:
            return problem.read(logits[:, :, -1]).double().cpu()

        bar = tqdm(total=len(changes), desc="patching", unit="patch", disable=not verbose)
        with torch.no_grad(), OneDnnProducts(), bar as progress:
            progress.update(len(found))
            for done, values in runs.values([one for one in changes if one not in found], read):
                found |= dict(zip(done, values.mean(1).tolist(), strict=True))
                progress.update(len(done))
        return found

    def _differs(self, change: Change) -> bool:
        """Whether the runs differ in what a patch replaces; before the first other token they do not."""
        if change.position is None or change.position >= self.problem.unchanged:
            return True
        index = self.replacement.index(change)
        new, old = (cache[self.what, change.layer][index] for cache in (self.source, self.base))
        return float((new - old).abs().max()) > _ROUNDING * float(new.abs().max())

    def table(self, by_change: dict[Change, float]) -> Tensor:
        """Returns numbers of patches as an array, NaN where there is no patch."""
        shape = [len(self.layers)]
        if self.by in ("head", "head_position", "neuron"):
            shape.append(max(map(self.units, self.layers)))
        if "position" in self.by:
            shape.append(self.problem.length)
        array = torch.full(shape, torch.nan, dtype=torch.float64)
        for change, value in by_change.items():
            place = [self.layers.index(change.layer), change.unit, change.position]
            array[tuple(one for one in place if one is not None)] = value
        return array

    def result(self, by_change: dict[Change, float]) -> PatchingResult:
        """Returns the result for the metrics of patched runs."""
        problem, raw = self.problem, self.table(by_change)
        return PatchingResult(
            values=problem.normalized(raw, self.direction),
            raw=raw,
            clean=problem.values[0],
            corrupt=problem.values[1],
            metric=problem.metric,
            what=self.what,
            axes=_AXES[self.by],
            direction=self.direction,
            layer_names=tuple(map(str, self.layers)),
            tokens=problem.tokens(),
        )


def _chosen(known: list[int], layers: Sequence[int] | None) -> list[int]:
    if layers is None:
        return known
    wrong = [one for one in layers if one not in known]
    if wrong or not layers:
        raise ArgumentError(f"layers are {known}, got {list(layers)}")
    return sorted(set(layers))
