"""Occlusion: how much the score falls when a window that slides over the input is hidden."""

from itertools import product

import torch
from torch import Tensor

from ...core.errors import ArgumentError
from ..base.baselines import BaselineLike
from ..base.channels import lifted, over_channels, places
from ..base.method import Method
from ..base.problem import Problem
from ..base.result import Attribution
from .masking import Masking


class Occlusion(Method):
    """Drops of the score when windows are hidden (Zeiler and Fergus, 2014).

    A place gets the mean drop over the windows that cover it. Windows slide over the places of an input: the
    height and width of maps (N, C, H, W), also the time of films (N, C, T, H, W), the tokens of (N, T, C) and
    the columns of (N, M). Signals (N, C, L), the inputs of an nn.Conv1d, need ``channel_axis=1``, or their
    channels would be taken for tokens. A place's drop is spread over its channels, so that their sum is the
    drop.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs.
        preprocess: Applied to the inputs before the network.

    Example:
        >>> from torch import nn
        >>> method = Occlusion(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)))
        >>> method(torch.rand(2, 3, 8, 8), target=1, window=4).values.shape
        torch.Size([2, 3, 8, 8])
    """

    def attribute(
        self,
        problem: Problem,
        baselines: BaselineLike,
        *,
        window: int | None = None,
        stride: int | None = None,
        channel_axis: int | None = None,
        background: int = 10,
        batch_size: int = 64,
        seed: int | None = 0,
        verbose: bool = True,
    ) -> Attribution:
        """Returns the mean drops.

        Args:
            problem: The network and its inputs.
            baselines: What is hidden is replaced by.
            window: Side of the window; by default an eighth of the height of maps and films, one token, one
                column.
            stride: By how much it slides, half of its side by default; a last window ends at the border.
            channel_axis: The axis of the channels; by default axis 1 of maps and films, the last of tokens.
            background: Over how many draws of a random baseline a score is the mean.
            batch_size: How many inputs pass through the network at a time.
            seed: Seed of baselines that are drawn.
            verbose: Show progress once it takes longer than two seconds.

        Raises:
            ArgumentError: A window or stride that makes no sense.
            ShapeError: An input without the axis of channels that is named.
        """
        windows = [_windows(places(tensor, channel_axis), window, stride) for tensor in problem.tensors]
        masking = Masking(problem, baselines, background, batch_size, seed, verbose)
        output = masking.unmasked()
        values = [
            _mean_drops(masking, index, output, corners, sides, channel_axis)
            for index, (corners, sides) in enumerate(windows)
        ]
        return Attribution(
            problem.restore(values),
            problem.per_input(output),
            method="Occlusion",
            several=problem.several,
            seed=seed,
        )


def _windows(axes: torch.Size, window: int | None, stride: int | None) -> tuple[Tensor, list[int]]:
    """The corners (W, axes) of all windows over axes of places, and their sides."""
    if window is None:
        window = max(1, axes[-2] // 8) if len(axes) > 1 else 1
    step = max(1, window // 2) if stride is None else stride
    if not 1 <= step <= window:
        raise ArgumentError(
            f"window and stride are from 1 on, and a stride is at most the window or places are passed over, "
            f"got {window} and {step}"
        )
    sides = [min(window, axis) for axis in axes]
    starts = [
        sorted({*range(0, axis - own + 1, step), axis - own}) for axis, own in zip(axes, sides, strict=True)
    ]
    return torch.tensor(list(product(*starts))), sides


def _mean_drops(
    masking: Masking,
    index: int,
    output: Tensor,
    corners: Tensor,
    sides: list[int],
    channel_axis: int | None,
) -> Tensor:
    """The mean drop at each place of one of the tensors, spread over its channels, (T, N, ...)."""
    tensors, draws = masking.problem.tensors, masking.draws
    tensor, count = tensors[index], len(masking.problem)
    axes, device = places(tensor, channel_axis), tensor.device
    own_corners, ends = corners.to(device), (corners + torch.tensor(sides)).to(device)

    def masks(positions: Tensor) -> tuple[Tensor, ...]:
        window = positions // (count * draws)
        hidden = torch.ones(len(window), *axes, dtype=torch.bool, device=device)
        for axis, length in enumerate(axes):
            at = torch.arange(length, device=device).reshape(-1, *(1,) * (len(axes) - axis - 1))
            first, last = (own[window, axis].reshape(-1, *(1,) * len(axes)) for own in (own_corners, ends))
            hidden = hidden & (at >= first) & (at < last)
        all_kept = [hidden.new_ones((1,) * other.dim()) for other in tensors]
        all_kept[index] = ~lifted(hidden, tensor, channel_axis)
        return tuple(all_kept)

    positions = torch.arange(len(corners) * count * draws)
    rows = positions // draws % count
    scores = torch.cat([own for _, own in masking.stream(masks, rows, positions % draws)])
    drops = output.T - scores.reshape(len(corners), count, draws, -1).mean(2).transpose(1, 2)
    total = drops.new_zeros(*drops.shape[1:], *axes)
    covered = drops.new_zeros(axes)
    for corner, drop in zip(corners.tolist(), drops, strict=True):
        area = tuple(slice(first, first + side) for first, side in zip(corner, sides, strict=True))
        covering = (slice(None), slice(None), *area)
        total[covering] += drop.reshape(*drop.shape, *(1,) * len(axes))
        covered[area] += 1
    return over_channels(total / covered, tensor, channel_axis)
