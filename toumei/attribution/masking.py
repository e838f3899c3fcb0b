"""One masking engine under all methods that take parts of the input away."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import ArgumentError, ShapeError
from .baselines import Baseline
from .problem import Problem

Features = Tensor | Sequence[Tensor] | None


@dataclass(frozen=True, eq=False)
class Segments:
    """Which numbers of the inputs belong to which feature.

    Attributes:
        index: For each input a tensor that broadcasts to it behind the batch axis, of features from 0 on,
            with as many axes; (N, ...) where each input has its own.
        count: How many features there are, M.
        own: Whether each input has its own.
    """

    index: tuple[Tensor, ...]
    count: int
    own: bool = False

    def masks(self, keep: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        """Returns for each input a mask (B, ...) of what features (B, M) keep of it."""
        if not self.own:
            return tuple(keep[:, index.to(keep.device)] for index in self.index)
        return tuple(
            keep.gather(1, index.to(keep.device)[rows].flatten(1)).reshape(len(keep), *index.shape[1:])
            for index in self.index
        )

    def spread(self, values: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns values of features (T, N, M) as tensors (T, N, ...) in the shapes of the inputs.

        A number of the input gets its feature's value divided by how many numbers the feature has, so that
        sums stay what they are.
        """
        places = [
            (index if self.own else index[None]).to(values.device).expand(tensor.shape).flatten(1)
            for index, tensor in zip(self.index, tensors, strict=True)
        ]
        sizes = values.new_zeros(values.shape[1:])
        for place in places:
            sizes.scatter_add_(1, place, torch.ones_like(place, dtype=values.dtype))
        shared = values / sizes.clamp(min=1)
        return tuple(
            shared.gather(2, place.expand(len(values), -1, -1)).reshape(len(values), *tensor.shape)
            for place, tensor in zip(places, tensors, strict=True)
        )


def segments(features: Features, tensors: Sequence[Tensor]) -> Segments:
    """Returns the features of inputs.

    Args:
        features: For each input a tensor of whole numbers that broadcasts to it behind the batch axis, or
            (N, ...) for its own segments of each; numbers that are equal are one feature, also across inputs,
            and need neither start at 0 nor be contiguous. None makes every position (all channels of a
            pixel, a token, a column) a feature.
        tensors: The inputs, (N, ...).

    Raises:
        ShapeError: A tensor that does not fit its input.
        ArgumentError: Numbers that are not whole, or another number of tensors than inputs.
    """
    if features is None:
        return _positions(tensors)
    given = (features,) if isinstance(features, Tensor) else tuple(features)
    if len(given) != len(tensors):
        raise ArgumentError(f"{len(given)} tensors of features for {len(tensors)} inputs")
    if any(tensor.is_floating_point() for tensor in given):
        raise ArgumentError("features are whole numbers, one for each segment")
    own = any(g.dim() == t.dim() and len(g) == len(t) > 1 for g, t in zip(given, tensors, strict=True))
    laid_out = [_fitted(mask, tensor, own) for mask, tensor in zip(given, tensors, strict=True)]
    labels, index = torch.cat([mask.flatten() for mask in laid_out]).unique(return_inverse=True)
    pieces = index.split([mask.numel() for mask in laid_out])
    shaped = tuple(piece.reshape(mask.shape) for piece, mask in zip(pieces, laid_out, strict=True))
    return Segments(shaped, len(labels), own)


def _fitted(mask: Tensor, tensor: Tensor, own: bool) -> Tensor:
    """Features with as many axes as the input, less its batch axis unless each input has its own."""
    mask, shape = mask.detach().cpu(), tensor.shape[1:]
    if own:
        mask = mask if mask.dim() == tensor.dim() else mask.expand(len(tensor), *mask.shape)
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


def _positions(tensors: Sequence[Tensor]) -> Segments:
    first, index = 0, []
    for tensor in tensors:
        # of maps (N, C, H, W) the places, of rows (N, M) the columns, of tokens (N, T, C) the tokens
        axes = tensor.shape[2:] if tensor.dim() == 4 else tensor.shape[1:2]
        count = int(torch.tensor(axes).prod())
        positions = torch.arange(first, first + count).reshape(axes)
        index.append(
            positions[None] if tensor.dim() == 4 else positions.reshape(-1, *(1,) * (tensor.dim() - 2))
        )
        first += count
    return Segments(tuple(index), first)


class Masking:
    """Scores of inputs with parts taken away.

    Args:
        problem: The network and the inputs.
        features: Their features.
        baselines: What replaces the parts that are taken away, for each input.
        batch_size: How many inputs pass through the network at a time.
        seed: Seed of baselines that are drawn: each pass draws its own.

    Attributes:
        passes: How many inputs have passed through the network.
    """

    def __init__(
        self,
        problem: Problem,
        features: Segments,
        baselines: Sequence[Baseline],
        batch_size: int = 64,
        seed: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ArgumentError(f"batch_size is a number from 1 on, got {batch_size}")
        self.problem = problem
        self.features = features
        self.baselines = tuple(baselines)
        self.batch_size = batch_size
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)
        self.passes = 0
        random = any(baseline.is_random for baseline in self.baselines)
        own_fill = any(type(baseline).fill is not Baseline.fill for baseline in self.baselines)
        # a baseline that never changes is made once
        self._fixed = (
            None
            if random or own_fill
            else tuple(b.draw(t, 1)[0] for b, t in zip(self.baselines, problem.tensors, strict=True))
        )

    def scores(self, keep: Tensor, rows: Tensor | None = None) -> Tensor:
        """Returns the scores (B, T) of inputs that keep some features.

        Args:
            keep: (B, M) bool: the features that stay.
            rows: (B,) which of the N inputs each is made of; by default all of the first.
        """
        rows = torch.zeros(len(keep), dtype=torch.long) if rows is None else rows
        return torch.cat([scores for _, scores in self.stream(keep, rows)])

    def stream(self, keep: Tensor, rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yields parts of the B inputs and their scores (b, T), a batch at a time."""
        device = self.problem.tensors[0].device
        keep, rows = keep.to(device), rows.to(device)
        with torch.inference_mode():
            for start in range(0, len(keep), self.batch_size):
                part = slice(start, min(start + self.batch_size, len(keep)))
                inputs = self.inputs(keep[part], rows[part])
                self.passes += len(keep[part])
                scores = self.problem.scores(inputs, rows[part])
                with torch.inference_mode(False):
                    yield part, scores.clone()

    def inputs(self, keep: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        """Returns the inputs (B, ...) with the features that are not kept (B, M) replaced."""
        result = []
        masks = self.features.masks(keep, rows)
        for index, (tensor, mask) in enumerate(zip(self.problem.tensors, masks, strict=True)):
            own = tensor[rows]
            if self._fixed is not None:
                result.append(torch.where(mask, own, self._fixed[index][rows]))
            else:
                result.append(self.baselines[index].fill(own, mask.expand(own.shape), self.generator))
        return tuple(result)
