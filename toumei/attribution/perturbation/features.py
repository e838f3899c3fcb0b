"""Which numbers of the inputs belong together: the features that coalition methods keep or hide."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import ArgumentError, ShapeError
from ...core.summaries import counted
from ..base.channels import add_channels, channels_of, positions
from ..base.problem import Problem
from .image_segments import superpixels

Features = Tensor | Sequence[Tensor | None] | Mapping[str, Tensor] | None
Tensors = Tensor | Sequence[Tensor | None] | None
FeaturesLike = Features | Callable[..., Features]  # a function is called with what is attributed to


@dataclass(frozen=True, eq=False)
class Segments:
    """The feature of each number of the inputs.

    Attributes:
        index: For each tensor of the inputs the features of its numbers, from 0 on, with as many axes as one
            input and a shape that broadcasts to it; (N, ...) if they differ by input. Numbers with the index
            M belong to no feature and are never hidden.
        count: How many features there are, M.
        per_input: Whether the features differ by input.
    """

    index: tuple[Tensor, ...]
    count: int
    per_input: bool = False

    def masks(self, keep: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        """Returns for each tensor a mask (B, ...): what coalitions (B, M) keep of the inputs in rows (B,)."""
        keep = torch.cat([keep, torch.ones_like(keep[:, :1])], 1)
        if self.per_input:
            return tuple(
                keep.gather(1, index[rows].reshape(len(keep), -1)).reshape(len(keep), *index.shape[1:])
                for index in self.index
            )
        # gather is several times as fast as index_select here
        return tuple(
            keep.gather(1, index.flatten().expand(len(keep), -1)).reshape(len(keep), *index.shape)
            for index in self.index
        )

    def members(self, count: int) -> list[Tensor]:
        """Returns the features that each of N inputs has."""
        if not self.per_input:
            return [torch.arange(self.count)] * count
        rows = [torch.cat([index[row].flatten() for index in self.index]).unique() for row in range(count)]
        return [row[row < self.count].cpu() for row in rows]

    def spread(self, values: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns values of features (T, N, M) as tensors (T, N, ...) in the shapes of the inputs.

        The value of a feature is divided evenly among its numbers, so that sums do not change.
        """
        indices = [
            _flat((index if self.per_input else index[None]).cpu().expand(-1, *tensor.shape[1:]))
            for index, tensor in zip(self.index, tensors, strict=True)
        ]
        sizes = values.new_zeros(len(indices[0]), self.count + 1)
        for index in indices:
            sizes.scatter_add_(1, index, values.new_ones(1).expand(index.shape))
        shared = torch.cat([values / sizes[:, :-1].clamp(min=1), torch.zeros_like(values[..., :1])], 2)
        return tuple(
            shared.gather(2, index.expand(*values.shape[:2], -1)).reshape(
                *values.shape[:2], *tensor.shape[1:]
            )
            for index, tensor in zip(indices, tensors, strict=True)
        )

    def to(self, device: torch.device) -> "Segments":
        """Returns the segments on a device."""
        return Segments(tuple(index.to(device) for index in self.index), self.count, self.per_input)


def _flat(tensor: Tensor) -> Tensor:
    """A tensor (N, ...) as rows (N, numbers); of one number where it is (N,)."""
    return tensor.reshape(len(tensor), -1)


def features_of(problem: Problem, given: FeaturesLike, channel_axis: int | None = None) -> Segments:
    """Returns the features of a problem's inputs; by default superpixels of pictures, else positions.

    Args:
        problem: The network and its inputs.
        given: As for `segments`, a dictionary of tensors by the names of inputs, or a function to one of
            these from what is attributed to: the inputs, or the layer's activation.
        channel_axis: As for `segments`.

    Raises:
        ArgumentError: Names of inputs that do not exist, or features that make no sense.
        ShapeError: Features that do not fit their input.
    """
    problem, given = with_features(problem, given)
    return segments_of(problem, given, channel_axis)


def with_features(problem: Problem, given: FeaturesLike) -> tuple[Problem, Tensors]:
    """Returns the features of each tensor of a problem; inputs with features of their own are not fixed.

    Args:
        problem: The network and its inputs.
        given: As for `features_of`.

    Raises:
        ArgumentError: Names of inputs that do not exist.
    """
    if callable(given):
        activations = problem.tensors if len(problem.tensors) > 1 else problem.tensors[0]
        given = given(problem.inputs if problem.layer is None else activations)
    if isinstance(given, Mapping):
        names = problem.names
        if not set(given) <= set(names):
            raise ArgumentError(f"features for {list(given)}, the inputs have {list(names) or 'no names'}")
        given = tuple(given.get(name) for name in names)
    several = isinstance(given, list | tuple) and len(given) == len(problem.fixed)
    if problem.layer is None and any(problem.fixed) and several:
        entries: tuple[Tensor | None, ...] = tuple(given or ())
        problem = problem.freed([one is not None for one in entries])
        given = problem.moving(entries)
    return problem, given


def segments_of(problem: Problem, given: Tensors, channel_axis: int | None = None) -> Segments:
    """Returns the features of a problem's tensors, given as `with_features` returns them."""
    tensors = problem.tensors
    if (
        given is None
        and problem.layer is None
        and all(_is_picture(tensor, channel_axis) for tensor in tensors)
    ):
        # superpixels need the channels on axis 1
        axes = [channels_of(tensor, channel_axis) or 1 for tensor in tensors]
        pairs = list(zip(tensors, axes, strict=True))
        found = [superpixels(tensor.movedim(axis, 1)).movedim(1, axis) for tensor, axis in pairs]
        # the superpixels of a second picture are other features than those of the first
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
        features: For each tensor whole numbers in a shape that broadcasts to one input, or (N, ...) for
            features that differ by input. Equal numbers are one feature, also across tensors; they need not
            start at 0 or be contiguous. In a sequence, None for a tensor that is never hidden. None alone:
            every position (all channels of a pixel, a token, a column) is a feature.
        tensors: The inputs, (N, ...).
        channel_axis: The axis of the channels; by default axis 1 of maps (N, C, H, W) and videos
            (N, C, T, H, W), and the last of tokens (N, T, C). For signals (N, C, L), the inputs of an
            nn.Conv1d, give 1: by default their channels are taken for positions.

    Raises:
        ShapeError: A tensor that does not fit its input.
        ArgumentError: Numbers that are not whole, or another number of tensors than inputs.
    """
    if features is None:
        return _positions(tensors, channel_axis)
    given = (features,) if isinstance(features, Tensor) else tuple(features)
    if len(given) != len(tensors):
        raise ArgumentError(
            f"{counted(len(given), 'tensor')} of features for {counted(len(tensors), 'input')}"
        )
    if any(tensor is not None and (tensor.is_floating_point() or tensor.is_complex()) for tensor in given):
        raise ArgumentError("features are whole numbers, one for each segment")
    pairs = list(zip(given, tensors, strict=True))
    per_input = any(g is not None and g.dim() == t.dim() and len(g) == len(t) > 1 for g, t in pairs)
    laid_out = [None if mask is None else _fitted(mask.long(), tensor, per_input) for mask, tensor in pairs]
    present = [mask for mask in laid_out if mask is not None]
    if not present:
        raise ArgumentError("there are no features: at least one input needs them")
    labels, index = torch.cat([mask.flatten() for mask in present]).unique(return_inverse=True)
    pieces = iter(index.split([mask.numel() for mask in present]))
    shaped = []
    for mask, tensor in zip(laid_out, tensors, strict=True):
        if mask is None:
            none = torch.full((1,) * (tensor.dim() - 1), len(labels))
            shaped.append(none.expand(len(tensor), *none.shape) if per_input else none)
        else:
            shaped.append(next(pieces).reshape(mask.shape))
    return Segments(tuple(shaped), len(labels), per_input)


def _is_picture(tensor: Tensor, channel_axis: int | None) -> bool:
    if tensor.dim() != 4 or not tensor.is_floating_point():
        return False
    return tensor.shape[channels_of(tensor, channel_axis) or 1] in (1, 3)


def _fitted(mask: Tensor, tensor: Tensor, per_input: bool) -> Tensor:
    """Features with as many axes as one input, and a batch axis before if they differ by input."""
    mask, shape = mask.detach().cpu(), tensor.shape[1:]
    if per_input:
        mask = mask if mask.dim() == tensor.dim() else mask.expand(len(tensor), *mask.shape)
        mask = mask.expand(len(tensor), *mask.shape[1:]) if len(mask) == 1 else mask
    elif mask.dim() == tensor.dim() and len(mask) == 1:
        mask = mask[0]
    axes = mask.shape[1:] if per_input else mask.shape
    laid_out = mask.reshape((*mask.shape[: int(per_input)], *(1,) * (len(shape) - len(axes)), *axes))
    try:
        laid_out.expand((*laid_out.shape[: int(per_input)], *shape))
    except RuntimeError:
        raise ShapeError(
            f"features {tuple(mask.shape)} do not broadcast to inputs of {tuple(shape)}"
        ) from None
    return laid_out


def _positions(tensors: Sequence[Tensor], channel_axis: int | None) -> Segments:
    first, index = 0, []
    for tensor in tensors:
        axes = positions(tensor, channel_axis)
        numbers = torch.arange(first, first + axes.numel()).reshape(1, *axes)
        index.append(add_channels(numbers, tensor, channel_axis)[0])
        first += axes.numel()
    return Segments(tuple(index), first)
