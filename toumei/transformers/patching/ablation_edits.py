"""Ablations of heads, neurons, positions and directions, as values for `HookedModel.edit`."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from ...core.checks import check_choice, checked
from ...core.errors import ArgumentError, ShapeError
from ...core.summaries import counted
from ..model.activation_cache import ActivationCache

Kind = Literal["zero", "mean", "resample"]
"""What an ablated activation becomes."""

KINDS: tuple[Kind, ...] = get_args(Kind)
HEAD_AXES = {"z": 2, "q": 2, "k": 2, "v": 2, "result": 2, "rot_q": 2, "rot_k": 2, "pattern": 1}
HEAD_AXES["attn_scores"] = 1


@checked
def ablation(
    kind: Kind = "zero",
    *,
    heads: Sequence[int] | None = None,
    neurons: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    direction: Tensor | None = None,
    reference: ActivationCache | None = None,
    pooled: bool = False,
) -> Callable[[Tensor, str], Tensor]:
    """Returns a value for `HookedModel.edit` that ablates an activation, or a part of it.

    Heads are ablated in ``z``, before their output map, whose bias stays; MLPs in ``mlp_out``, neurons in the
    ``post`` of the MLP.

    Args:
        kind: What it becomes: ``"zero"``; ``"mean"``, that of a reference set; ``"resample"``, the activation
            at the same position of another text.
        heads: Which heads; all by default.
        neurons: Which neurons; all by default.
        positions: At which positions; all by default. Negative ones count from the end.
        direction: (width,) Replace only the component along this direction: with ``"zero"`` the projection
            on it is removed.
        reference: A cache that has this activation for other texts: the mean is over them, and text i gets
            the activation of their i-th text. Without one, these are the texts of the pass themselves, and
            each one gets the activation of the one before it.
        pooled: The mean is over all positions, too, not of each position by itself. Padding counts as well.

    Raises:
        ArgumentError: The reference is no cache, the activation has no heads, there is no such position, or a
            text is alone.
        ShapeError: The reference has texts of another length or number.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers import HookedModel
        >>> model = HookedModel(InductionTransformer(vocabulary=6, positions=8))
        >>> tokens = torch.tensor([[0, 3, 1, 4, 3, 1]])
        >>> with model.edit({("z", 1): ablation(heads=[0])}):
        ...     bool(model(tokens).any())
        False
    """
    check_choice("kind", kind, KINDS)
    if not isinstance(reference, ActivationCache | None):
        raise ArgumentError(f"reference is an ActivationCache, got {type(reference).__name__}")

    def ablate(tensor: Tensor, name: str) -> Tensor:
        others = tensor if reference is None else reference[name].to(tensor)
        new = _replacement(kind, tensor, others, reference is None, pooled)
        if direction is not None:
            new = _along(direction.to(tensor), tensor, new)
        changed = tensor.clone()
        place = _index(name, tensor, heads, neurons, positions)
        changed[place] = new[place]
        return changed

    return ablate


def _replacement(kind: Kind, tensor: Tensor, others: Tensor, itself: bool, pooled: bool) -> Tensor:
    """What an activation becomes where it is ablated, in its shape."""
    if kind == "zero":
        return torch.zeros_like(tensor)
    if kind == "mean":
        mean = others.mean((0, 1) if pooled else 0, keepdim=True)
        if not pooled and others.shape[1] != tensor.shape[1]:
            raise ShapeError(
                f"the reference has {counted(others.shape[1], 'position')} and the texts {tensor.shape[1]}: "
                "with pooled=True the mean is over all positions"
            )
        return mean.expand_as(tensor)
    if itself:
        if len(tensor) == 1:
            raise ArgumentError("a single text has no other one to resample from: give a reference")
        return tensor.roll(1, 0)
    if others.shape != tensor.shape:
        raise ShapeError(
            f"the reference has activations {tuple(others.shape)}, the texts {tuple(tensor.shape)}: "
            f"resampling takes the same position of as many other texts"
        )
    return others


def _along(direction: Tensor, tensor: Tensor, new: Tensor) -> Tensor:
    """The activation with the component of another one along a direction."""
    if direction.shape != tensor.shape[-1:] or not bool(direction.any()):
        raise ShapeError(
            f"expected a direction of {counted(tensor.shape[-1], 'number')}, not all zero, got "
            f"{tuple(direction.shape)}"
        )
    unit = direction / direction.norm()
    result: Tensor = tensor + ((new - tensor) @ unit)[..., None] * unit
    return result


def _index(
    name: str,
    tensor: Tensor,
    heads: Sequence[int] | None,
    neurons: Sequence[int] | None,
    positions: Sequence[int] | None,
) -> tuple[Tensor, ...]:
    """Which numbers are ablated, as an index of all axes."""
    short = name.rpartition("hook_")[2]
    head_axis = HEAD_AXES.get(short)
    position_axis = 2 if head_axis == 1 else 1
    if heads is not None and head_axis is None:
        raise ArgumentError(f"{name!r} has no heads: z, q, k, v, result, pattern and attn_scores have some")
    chosen: list[Tensor] = [torch.arange(size, device=tensor.device) for size in tensor.shape]
    for what, axis, given in (
        ("head", head_axis, heads),
        ("neuron", tensor.dim() - 1, neurons),
        ("position", position_axis, positions),
    ):
        if given is not None and axis is not None:
            chosen[axis] = _places(what, given, tensor.shape[axis]).to(tensor.device)
    return torch.meshgrid(*chosen, indexing="ij")


def _places(what: str, given: Sequence[int], size: int) -> Tensor:
    wrong = [one for one in given if not -size <= one < size]
    if wrong or not given:
        raise ArgumentError(f"{what}s are from 0 to {size - 1}, got {wrong[0] if wrong else 'none'}")
    return torch.tensor([one % size for one in given])
