"""Clean and corrupt prompts, and how far a metric tells them apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ...core.errors import ArgumentError, LayerError, NonFiniteError
from ..model.activation_cache import ActivationCache
from ..model.hook_points import HookPoint
from ..model.hooked_model import HookedModel
from ..model.point_names import full_name, unknown_point
from .metrics import Read, as_metric
from .sweep import read_logits

Direction = Literal["denoising", "noising"]
"""Denoising puts clean activations into the corrupt run, noising corrupt ones into the clean run."""

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
SMALLEST = 1e-3  # gap, as a share of the larger metric


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """What is patched between.

    Attributes:
        model: The model.
        clean: The model's inputs of the clean prompts.
        corrupt: Those of the corrupt prompts.
        read: The metric, of logits (..., texts, tokens) at the last position.
        metric: Its name.
        values: The mean of the metric over the prompts, clean and corrupt.
        unchanged: How many positions at the beginning are the same in all pairs of prompts.
        length: How many positions there are.
    """

    model: HookedModel
    clean: dict[str, Any]
    corrupt: dict[str, Any]
    read: Read
    metric: str
    values: tuple[float, float]
    unchanged: int
    length: int

    @property
    def gap(self) -> float:
        """The metric of the clean run minus that of the corrupt one."""
        return self.values[0] - self.values[1]

    def base(self, direction: Direction) -> dict[str, Any]:
        """Returns the inputs of the run that is changed."""
        return self.corrupt if direction == "denoising" else self.clean

    def source(self, direction: Direction) -> dict[str, Any]:
        """Returns the inputs of the run whose activations are put into the other one."""
        return self.clean if direction == "denoising" else self.corrupt

    def normalized(self, raw: Tensor, direction: Direction) -> Tensor:
        """Returns which share of the gap patched runs restore (denoising) or lose (noising)."""
        low = self.values[1] if direction == "denoising" else self.values[0]
        sign = 1 if direction == "denoising" else -1
        return sign * (raw - low) / self.gap

    def tokens(self) -> tuple[str, ...]:
        """Returns the texts of the first clean prompt's tokens, with a mark where the prompts differ."""
        ids = self.clean.get("input_ids")
        if ids is None or self.model.tokenizer is None:
            return tuple(map(str, range(self.length)))
        texts = [self.model.tokenizer.decode([one]) for one in ids[0].tolist()]
        varying = (ids != ids[:1]).any(0).tolist()
        return tuple(f"({text})" if differs else text for text, differs in zip(texts, varying, strict=True))


def make_problem(model: HookedModel, clean: Any, corrupt: Any, metric: Any) -> Problem:
    """Returns the problem of some pairs of prompts.

    Raises:
        ArgumentError: The prompts have different numbers of tokens, or the metric hardly tells them apart.
        NonFiniteError: The metric is NaN or infinite.
    """
    inputs = paired_inputs(model, clean, corrupt)
    with torch.no_grad():
        logits = [read_logits(model, one, last=True)[:, 0] for one in inputs]
    return problem_of(model, inputs, logits, metric)


def problem_of(
    model: HookedModel, inputs: Sequence[dict[str, Any]], logits: Sequence[Tensor], metric: Any
) -> Problem:
    """Returns the problem of some pairs of prompts for logits that are known.

    Args:
        model: The model.
        inputs: Its inputs of the clean and of the corrupt prompts.
        logits: (texts, tokens) at the last position, of both.
        metric: The metric.

    Raises:
        ArgumentError: The metric is none, or hardly tells the prompts apart.
        NonFiniteError: The metric is NaN or infinite.
    """
    metric = as_metric(metric)
    ids = [one.get("input_ids") for one in inputs]
    read = metric.reading(model, ids[0], logits[0])
    values = tuple(float(read(one).mean()) for one in logits)
    gap = values[0] - values[1]
    if not isfinite(gap):
        raise NonFiniteError(f"the {metric.name} is {values[0]} on clean and {values[1]} on corrupt prompts")
    if abs(gap) <= SMALLEST * max(abs(values[0]), abs(values[1]), 1e-6):
        raise ArgumentError(
            f"the {metric.name} is {values[0]:.4g} on clean and {values[1]:.4g} on corrupt prompts: a share "
            f"of so small a gap means nothing"
        )
    unchanged = 0
    if ids[0] is not None and ids[1] is not None:
        differs = (ids[0] != ids[1]).any(0).nonzero()
        unchanged = int(differs[0]) if len(differs) else ids[0].shape[1]
    return Problem(
        model=model,
        clean=inputs[0],
        corrupt=inputs[1],
        read=read,
        metric=metric.name,
        values=(values[0], values[1]),
        unchanged=unchanged,
        length=_main(inputs[0]).shape[1],
    )


def paired_inputs(model: HookedModel, clean: Any, corrupt: Any) -> list[dict[str, Any]]:
    """Returns the model's inputs of clean and corrupt prompts.

    Raises:
        ArgumentError: They have different numbers of tokens.
    """
    inputs = [model.inputs(given) for given in (clean, corrupt)]
    padded = any(bool((one["attention_mask"] == 0).any()) for one in inputs if "attention_mask" in one)
    if padded or _main(inputs[0]).shape != _main(inputs[1]).shape:
        raise ArgumentError(
            f"all prompts must have the same number of tokens, so that positions mean the same: clean "
            f"{_lengths(inputs[0])}, corrupt {_lengths(inputs[1])}"
        )
    return inputs


def layers_with(model: HookedModel, what: str) -> list[int]:
    """Returns the layers that have an activation.

    Raises:
        LayerError: None has; the message says why.
    """
    points = model.points
    known = [layer for layer in sorted(points.attentions) if full_name((what, layer)) in points.points]
    if not known:
        raise LayerError(unknown_point(full_name((what, min(points.attentions))), points))
    return known


def axes_of(model: HookedModel, what: str, layer: int) -> tuple[str, ...]:
    """Returns the axes of an activation, in the order in which it is read."""
    point = model.points.points[full_name((what, layer))]
    return point.order if isinstance(point, HookPoint) else ("batch", "head", "query", "key")


def recorded(problem: Problem, inputs: dict[str, Any], what: str, layers: list[int]) -> ActivationCache:
    """Returns an activation of some layers for some prompts."""
    with torch.no_grad():
        return problem.model.run_with_cache(inputs, [(what, layer) for layer in layers])[1]


def _main(inputs: dict[str, Any]) -> Tensor:
    return next(one for one in inputs.values() if isinstance(one, Tensor))


def _lengths(inputs: dict[str, Any]) -> list[int]:
    mask = inputs.get("attention_mask")
    main = _main(inputs)
    return [main.shape[1]] * len(main) if mask is None else mask.sum(1).tolist()
