"""Occlusion: how much the score drops when a window that slides over the input is hidden."""

from itertools import product
from math import prod

import torch
from torch import Tensor

from ...core.checks import check_counts, check_work
from ...core.errors import ArgumentError
from ..base.baselines import BaselineLike
from ..base.batching import BATCH_SIZE
from ..base.channels import add_channels, over_channels, positions
from ..base.inputs import Layers, Preprocess
from ..base.models import ModelLike
from ..base.problem import Problem
from ..base.result import Attribution
from .coalitions import Game, Solution, by_features
from .features import FeaturesLike
from .masking import Masking
from .method import PerturbationMethod


class Occlusion(PerturbationMethod):
    """Drops of the score when windows are hidden (Zeiler and Fergus, 2014).

    A position gets the mean drop over the windows that cover it. Windows slide over the positions of an
    input: the height and width of maps (N, C, H, W), also the time of videos (N, C, T, H, W), the tokens of
    (N, T, C) and the columns of (N, M). The drop of a position is spread evenly over its channels.

    Args:
        model: The network; as no gradients are needed, a function or an estimator will do (`as_network`).
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs.
        preprocess: Applied to the inputs before the network.
        window: Side of the window; by default an eighth of the height of maps and videos, one token, one
            column.
        features: Hide these one after the other instead of windows, as for every `PerturbationMethod`: whole
            numbers in the shape of the inputs, or a function from the inputs to them, such as `superpixels`.
            The drop of a feature is spread evenly over its numbers.
        stride: Distance from one window to the next, half of the side by default; a last window ends at the
            border.
        channel_axis: The axis of the channels; for signals (N, C, L), the inputs of an nn.Conv1d, give 1.
        baseline_samples: A score is the mean over so many samples of a random baseline.
        batch_size: How many inputs pass through the network at a time.
        seed: Seed of a random baseline.
        verbose: Show progress after two seconds.

    Raises:
        ArgumentError: A window or stride that makes no sense.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
        >>> Occlusion(model, window=4)(torch.rand(2, 3, 8, 8), target=1).values.shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self,
        model: ModelLike,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        window: int | None = None,
        stride: int | None = None,
        features: FeaturesLike = None,
        channel_axis: int | None = None,
        baseline_samples: int = 10,
        batch_size: int = BATCH_SIZE,
        seed: int | None = 0,
        verbose: bool = True,
    ) -> None:
        super().__init__(
            model,
            layer,
            preprocess,
            features=features,
            channel_axis=channel_axis,
            baseline_samples=baseline_samples,
            batch_size=batch_size,
            seed=seed,
            verbose=verbose,
        )
        check_counts(1, window=window, stride=stride)
        if window is not None and stride is not None:
            _check_stride(window, stride)
        if features is not None and (window is not None or stride is not None):
            raise ArgumentError("features are hidden instead of windows: give either features or a window")
        self.window = window
        self.stride = stride

    def attribute(self, problem: Problem, baselines: BaselineLike) -> Attribution:
        """Returns the mean drops.

        Args:
            problem: The network and its inputs.
            baselines: What hidden parts are replaced by.

        Raises:
            ArgumentError: A stride that is larger than the default window.
            ShapeError: An input without the axis of channels that is named, or features that do not fit.
        """
        if self.features is not None:
            return by_features(self, problem, baselines, _drops)
        for tensor in problem.tensors:
            corners = _window_count(positions(tensor, self.channel_axis), self.window, self.stride)
            check_work("occlusion", corners, tensor[0].numel(), "give a larger window=... and stride=...")
        windows = [
            _windows(positions(tensor, self.channel_axis), self.window, self.stride)
            for tensor in problem.tensors
        ]
        masking = self.masking(problem, baselines)
        output = masking.unmasked()
        values = [
            _mean_drops(masking, index, output, corners, sides, self.channel_axis)
            for index, (corners, sides) in enumerate(windows)
        ]
        return self.result(problem, values, output)


def _drops(game: Game) -> Solution:
    """How much the score drops when each feature is hidden alone."""
    without = game.values(~torch.eye(game.count, dtype=torch.bool))
    return Solution((game.full - without).transpose(0, 1))


def _check_stride(window: int, stride: int) -> None:
    if stride > window:
        raise ArgumentError(
            f"a stride is at most the window, or positions between windows are never hidden: got {stride} "
            f"and a window of {window}"
        )


def _sides_and_step(axes: torch.Size, window: int | None, stride: int | None) -> tuple[list[int], int]:
    """The sides of windows over the axes of positions, and the distance from one to the next."""
    if window is None:
        window = max(1, axes[-2] // 8) if len(axes) > 1 else 1
    step = max(1, window // 2) if stride is None else stride
    _check_stride(window, step)
    return [min(window, axis) for axis in axes], step


def _window_count(axes: torch.Size, window: int | None, stride: int | None) -> int:
    """How many windows there are at most."""
    sides, step = _sides_and_step(axes, window, stride)
    return prod((axis - side) // step + 2 for axis, side in zip(axes, sides, strict=True))


def _windows(axes: torch.Size, window: int | None, stride: int | None) -> tuple[Tensor, list[int]]:
    """The corners (W, axes) of all windows over the axes of positions, and their sides."""
    sides, step = _sides_and_step(axes, window, stride)
    starts = [
        sorted({*range(0, axis - side + 1, step), axis - side})
        for axis, side in zip(axes, sides, strict=True)
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
    """The mean drop at each position of one of the tensors, spread over its channels, (T, N, ...)."""
    tensors, samples = masking.problem.tensors, masking.baseline_samples
    tensor, count = tensors[index], len(masking.problem)
    axes, device = positions(tensor, channel_axis), tensor.device
    starts, ends = corners.to(device), (corners + torch.tensor(sides)).to(device)

    def masks(numbers: Tensor) -> tuple[Tensor, ...]:
        window = numbers // (count * samples)
        hidden = torch.ones(len(window), *axes, dtype=torch.bool, device=device)
        for axis, length in enumerate(axes):
            along = torch.arange(length, device=device).reshape(-1, *(1,) * (len(axes) - axis - 1))
            first, last = (edges[window, axis].reshape(-1, *(1,) * len(axes)) for edges in (starts, ends))
            hidden = hidden & (along >= first) & (along < last)
        all_kept = [hidden.new_ones((1,) * other.dim()) for other in tensors]
        all_kept[index] = ~add_channels(hidden, tensor, channel_axis)
        return tuple(all_kept)

    numbers = torch.arange(len(corners) * count * samples)
    rows = numbers // samples % count
    scores = torch.cat([scores for _, scores in masking.stream(masks, rows, numbers % samples)])
    drops = output.T - scores.reshape(len(corners), count, samples, -1).mean(2).transpose(1, 2)
    total = drops.new_zeros(*drops.shape[1:], *axes)
    covered = drops.new_zeros(axes)
    for corner, drop in zip(corners.tolist(), drops, strict=True):
        area = tuple(slice(first, first + side) for first, side in zip(corner, sides, strict=True))
        covering = (slice(None), slice(None), *area)
        total[covering] += drop.reshape(*drop.shape, *(1,) * len(axes))
        covered[area] += 1
    return over_channels(total / covered, tensor, channel_axis)
