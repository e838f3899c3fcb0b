"""Which numbers of the inputs belong together: the features that perturbation methods keep or take away."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import ArgumentError, ShapeError
from ..base.channels import channels_of, lifted, places
from ..base.problem import Problem
from .image_segments import superpixels

Features = Tensor | Sequence[Tensor | None] | Mapping[str, Tensor] | None


@dataclass(frozen=True, eq=False)
class Segments:
    """Which numbers of the inputs belong to which feature.

    Attributes:
        index: For each input a tensor that broadcasts to it behind the batch axis, of features from 0 on,
            with as many axes; (N, ...) where each input has its own. What is M belongs to no feature and is
            never taken away.
        count: How many features there are, M.
        own: Whether each input has its own.
    """

    index: tuple[Tensor, ...]
    count: int
    own: bool = False

    def masks(self, keep: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        """Returns for each input a mask (B, ...) of what features (B, M) keep of it."""
        keep = torch.cat([keep, torch.ones_like(keep[:, :1])], 1)
        if self.own:
            return tuple(
                keep.gather(1, index[rows].flatten(1)).reshape(len(keep), *index.shape[1:])
                for index in self.index
            )
        # gather is several times as fast as index_select here
        return tuple(
            keep.gather(1, index.flatten().expand(len(keep), -1)).reshape(len(keep), *index.shape)
            for index in self.index
        )

    def members(self, count: int) -> list[Tensor]:
        """Returns the features that each of N inputs has."""
        if not self.own:
            return [torch.arange(self.count)] * count
        rows = [torch.cat([index[row].flatten() for index in self.index]).unique() for row in range(count)]
        return [row[row < self.count].cpu() for row in rows]

    def spread(self, values: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns values of features (T, N, M) as tensors (T, N, ...) in the shapes of the inputs.

        A number of the input gets its feature's value divided by how many numbers the feature has, so that
        sums stay what they are.
        """
        places = [
            (index if self.own else index[None]).cpu().expand(-1, *tensor.shape[1:]).flatten(1)
            for index, tensor in zip(self.index, tensors, strict=True)
        ]
        sizes = values.new_zeros(len(places[0]), self.count + 1)
        for place in places:
            sizes.scatter_add_(1, place, values.new_ones(1).expand(place.shape))
        shared = torch.cat([values / sizes[:, :-1].clamp(min=1), torch.zeros_like(values[..., :1])], 2)
        return tuple(
            shared.gather(2, place.expand(*values.shape[:2], -1)).unflatten(2, tensor.shape[1:])
            for place, tensor in zip(places, tensors, strict=True)
        )

    def to(self, device: torch.device) -> "Segments":
        """Returns the segments on a device."""
        return Segments(tuple(index.to(device) for index in self.index), self.count, self.own)


def features_of(problem: Problem, given: Features, channel_axis: int | None = None) -> Segments:
    """Returns the features of a problem's inputs; by default superpixels of pictures, else positions.

    Args:
        problem: The network and its inputs.
        given: As for `segments`, or a dictionary of tensors by the names of inputs.
        channel_axis: As for `segments`.

    Raises:
        ArgumentError: Names of inputs that there are not, or features that make no sense.
        ShapeError: Features that do not fit their input.
    """
    tensors = problem.tensors
    if isinstance(given, Mapping):
        if not isinstance(problem.inputs, dict) or not set(given) <= set(problem.inputs):
            names = list(problem.inputs) if isinstance(problem.inputs, dict) else "no names"
            raise ArgumentError(f"features for {list(given)}, the inputs have {names}")
        given = tuple(given.get(name) for name in problem.inputs)
    if given is None and problem.layer is None and all(_is_picture(own, channel_axis) for own in tensors):
        # superpixels have their channels on axis 1
        axes = [channels_of(tensor, channel_axis) or 1 for tensor in tensors]
        pairs = list(zip(tensors, axes, strict=True))
        found = [superpixels(tensor.movedim(axis, 1)).movedim(1, axis) for tensor, axis in pairs]
        # the superpixels of a second picture are features of their own
        ends = torch.tensor([int(index.max()) + 1 for index in found]).cumsum(0).tolist()
        given = tuple(index + first for index, first in zip(found, [0, *ends], strict=False))
    return segments(given, tensors, channel_axis)


def segments(
    features: Tensor | Sequence[Tensor | None] | None,
    tensors: Sequence[Tensor],
    channel_axis: int | None = None,
) -> Segments:
    """Returns the features of inputs.

    Args:
        features: For each input a tensor of whole numbers that broadcasts to it behind the batch axis, or
            (N, ...) for its own segments of each; numbers that are equal are one feature, also across inputs,
            and need neither start at 0 nor be contiguous. In a sequence, None for an input that is never
            taken away. None alone: every position (all channels of a place, a token, a column) is one.
        tensors: The inputs, (N, ...).
        channel_axis: The axis of the channels, whose positions these are; by default axis 1 of maps
            (N, C, H, W) and films (N, C, T, H, W), and the last of tokens (N, T, C). For signals (N, C, L),
            the inputs of an nn.Conv1d, it is 1: without it their channels would be taken for positions.

    Raises:
        ShapeError: A tensor that does not fit its input.
        ArgumentError: Numbers that are not whole, or another number of tensors than inputs.
    """
    if features is None:
        return _positions(tensors, channel_axis)
    given = (features,) if isinstance(features, Tensor) else tuple(features)
    if len(given) != len(tensors):
        raise ArgumentError(f"{len(given)} tensors of features for {len(tensors)} inputs")
    if any(tensor is not None and (tensor.is_floating_point() or tensor.is_complex()) for tensor in given):
        raise ArgumentError("features are whole numbers, one for each segment")
    pairs = list(zip(given, tensors, strict=True))
    own = any(g is not None and g.dim() == t.dim() and len(g) == len(t) > 1 for g, t in pairs)
    laid_out = [None if mask is None else _fitted(mask.long(), tensor, own) for mask, tensor in pairs]
    present = [mask for mask in laid_out if mask is not None]
    if not present:
        raise ArgumentError("there are no features: at least one input needs them")
    labels, index = torch.cat([mask.flatten() for mask in present]).unique(return_inverse=True)
    pieces = iter(index.split([mask.numel() for mask in present]))
    shaped = []
    for mask, tensor in zip(laid_out, tensors, strict=True):
        if mask is None:
            none = torch.full((1,) * (tensor.dim() - 1), len(labels))
            shaped.append(none.expand(len(tensor), *none.shape) if own else none)
        else:
            shaped.append(next(pieces).reshape(mask.shape))
    return Segments(tuple(shaped), len(labels), own)


def _is_picture(tensor: Tensor, channel_axis: int | None) -> bool:
    if tensor.dim() != 4 or not tensor.is_floating_point():
        return False
    return tensor.shape[channels_of(tensor, channel_axis) or 1] in (1, 3)


def _fitted(mask: Tensor, tensor: Tensor, own: bool) -> Tensor:
    """Features with as many axes as the input, less its batch axis unless each input has its own."""
    mask, shape = mask.detach().cpu(), tensor.shape[1:]
    if own:
        mask = mask if mask.dim() == tensor.dim() else mask.expand(len(tensor), *mask.shape)
        mask = mask.expand(len(tensor), *mask.shape[1:]) if len(mask) == 1 else mask
    elif mask.dim() == tensor.dim() and len(mask) == 1:
        mask = mask[0]
    behind = mask.shape[1:] if own else mask.shape
    laid_out = mask.reshape(*mask.shape[: int(own)], *(1,) * (len(shape) - len(behind)), *behind)
    try:
        laid_out.expand(*laid_out.shape[: int(own)], *shape)
    except RuntimeError:
        raise ShapeError(
            f"features {tuple(mask.shape)} do not broadcast to inputs of {tuple(shape)}"
        ) from None
    return laid_out


def _positions(tensors: Sequence[Tensor], channel_axis: int | None) -> Segments:
    first, index = 0, []
    for tensor in tensors:
        axes = places(tensor, channel_axis)
        positions = torch.arange(first, first + axes.numel()).reshape(1, *axes)
        index.append(lifted(positions, tensor, channel_axis)[0])
        first += axes.numel()
    return Segments(tuple(index), first)
