"""RISE: the mean score of inputs under the random masks that show a position."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ...core.checks import check_counts, check_memory
from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from ...core.summaries import counted
from ..base.baselines import BaselineLike
from ..base.batching import BATCH_SIZE, batches
from ..base.channels import add_channels, over_channels, positions
from ..base.inputs import Layers, Preprocess
from ..base.models import ModelLike
from ..base.problem import Problem
from ..base.result import Attribution
from .coalitions import Game, Solution, by_features
from .features import FeaturesLike
from .masking import Masking
from .method import PerturbationMethod

_TWO = 1.999  # masks that show a position, a little less for rounding


class Rise(PerturbationMethod):
    """The mean score with a position shown, over random masks (Petsiuk et al., 2018), and its standard error.

    For maps (N, C, H, W) a mask is a coarse grid of random cells, enlarged smoothly and shifted; for other
    inputs each position is shown or hidden. The sum of a position is divided by how often it was shown in
    fact, not in expectation, so that a score that does not depend on the input gives a flat map. The value
    of a position is spread evenly over its channels. Only running sums are kept. The standard error of a
    position that fewer than two masks show is infinite.

    Args:
        model: The network; as no gradients are needed, a function or an estimator will do (`as_network`).
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs.
        preprocess: Applied to the inputs before the network.
        samples: How many masks, which all inputs share.
        cells: Cells along each side of the coarse grid.
        shown: The probability that a cell is shown.
        features: Show and hide these instead of cells and positions, as for every `PerturbationMethod`: whole
            numbers in the shape of the inputs, or a function from the inputs to them, such as `superpixels`.
            The value of a feature is spread evenly over its numbers.
        channel_axis: The axis of the channels; for signals (N, C, L), the inputs of an nn.Conv1d, give 1.
        baseline_samples: How many samples of a random baseline the masks take turns with.
        batch_size: How many inputs pass through the network at a time.
        seed: Seed of the masks and of a random baseline.
        verbose: Show progress after two seconds.

    Raises:
        ArgumentError: Fewer than two samples, no cell, or a probability that is not between 0 and 1.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
        >>> result = Rise(model, samples=50, cells=4)(torch.rand(2, 3, 8, 8), target=1)
        >>> result.values.shape, result.standard_error.shape
        (torch.Size([2, 3, 8, 8]), torch.Size([2, 3, 8, 8]))
    """

    def __init__(
        self,
        model: ModelLike,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        samples: int = 4000,
        cells: int = 7,
        shown: float = 0.5,
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
        check_counts(2, samples=samples)
        check_counts(1, cells=cells)
        if not 0 < shown < 1:
            raise ArgumentError(f"shown is a probability between 0 and 1, got {shown}")
        self.samples = samples
        self.cells = cells
        self.shown = shown

    def attribute(self, problem: Problem, baselines: BaselineLike) -> Attribution:
        """Returns the mean scores and their standard errors.

        Args:
            problem: The network and its inputs.
            baselines: What hidden parts are replaced by.

        Raises:
            ShapeError: An input without the axis of channels that is named, or features that do not fit.
        """
        if self.features is not None:
            return by_features(self, problem, baselines, self._mean_scores)
        for tensor in problem.tensors:
            axes = positions(tensor, self.channel_axis)
            cells = self.cells ** len(axes) if tensor.dim() == 4 else axes.numel()
            check_memory(
                f"{counted(self.samples, 'mask', form=',')} of "
                f"{counted(min(cells, axes.numel()), 'cell', form=',')}",
                self.samples * min(cells, axes.numel()),
                "give fewer samples=... or cells=...",
                itemsize=16,
            )
        masking = self.masking(problem, baselines)
        output = masking.unmasked()
        sums = self._sums(problem, masking)
        moments = [
            [over_channels(moment, tensor, self.channel_axis) for moment in total.mean_and_error()]
            for total, tensor in zip(sums, problem.tensors, strict=True)
        ]
        means, errors = zip(*moments, strict=True)
        return self.result(problem, means, output, standard_error=errors)

    def warn_if_vanished(self, problem: Problem, values: Sequence[Tensor], output: Tensor) -> None:
        """Warns where all mean scores are one, as `Method.warn_if_vanished` does."""
        several = [positions(tensor, self.channel_axis).numel() > 1 for tensor in problem.tensors]
        rows = [value.reshape(*value.shape[:2], -1) for value in values]
        differ = [(row - row[..., :1]).abs() > 1e-6 * row.abs().amax() for row in rows]
        super().warn_if_vanished(
            problem,
            [(one | (not places)).float() for one, places in zip(differ, several, strict=True)],
            0 * output,
        )

    def _mean_scores(self, game: Game) -> Solution:
        """The mean score of each feature when it is shown, and its standard error."""
        keep = torch.rand(self.samples, game.count, generator=make_generator(self.seed)) < self.shown
        rows, numbers = len(game.rows), torch.arange(self.samples * len(game.rows))
        which = numbers // rows
        scores = game.scores(keep, which, numbers % rows, which % game.baseline_samples)
        scores, share = scores.reshape(self.samples, rows, -1), keep.double()
        shown = share.sum(0).clamp(min=1e-12)
        mean = torch.einsum("sm,srt->rmt", share, scores) / shown[:, None]
        rest = (scores.transpose(0, 1)[:, :, None] - mean[:, None]).square()
        error = torch.einsum("sm,rsmt->rmt", share, rest).sqrt() / shown[:, None]
        return Solution(mean, error)

    def _sums(self, problem: Problem, masking: Masking) -> "list[_Sums]":
        """The sums over all masks, one for each of the problem's tensors."""
        generator, device = make_generator(self.seed), problem.tensors[0].device
        makers = [
            _Masks(
                tensor, positions(tensor, self.channel_axis), self.samples, self.cells, self.shown, generator
            )
            for tensor in problem.tensors
        ]
        sums = [
            _Sums(tensor, maker.axes, len(problem.targets))
            for tensor, maker in zip(problem.tensors, makers, strict=True)
        ]
        numbers, rows = (index.to(device) for index in _in_turns(self.samples, len(problem), self.batch_size))
        made: list[Tensor] = []

        def masks(batch: Tensor) -> tuple[Tensor, ...]:
            unique, which = numbers[batch].unique(return_inverse=True)
            made[:] = [which, *(maker(unique) for maker in makers)]
            return tuple(
                add_channels(mask[which], tensor, self.channel_axis)
                for mask, tensor in zip(made[1:], problem.tensors, strict=True)
            )

        for batch, scores in masking.stream(masks, rows, numbers % masking.baseline_samples):
            for total, mask in zip(sums, made[1:], strict=True):
                total.add(mask, made[0], scores, rows[batch])
        return sums


def _in_turns(samples: int, count: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """The numbers (B,) of masks and of the inputs they are for: a batch of masks for each input in turn.

    So each mask is made once for all inputs, and a batch adds to the sums of one input.
    """
    pieces = batches(samples, batch_size)
    numbers = torch.cat([piece.repeat(count) for piece in pieces])
    return numbers, torch.cat([torch.arange(count).repeat_interleave(len(piece)) for piece in pieces])


class _Masks:
    """Random masks of one tensor: from numbers (u,) to masks (u, ...) of its positions; keeps the last."""

    def __init__(
        self,
        tensor: Tensor,
        axes: torch.Size,
        samples: int,
        cells: int,
        shown: float,
        generator: torch.Generator | None,
    ) -> None:
        self.axes = axes
        self.device = tensor.device
        self.soft = tensor.dim() == 4 and tensor.is_floating_point()
        sides = [min(cells, axis) for axis in self.axes] if self.soft else list(self.axes)
        self.grid = (torch.rand(samples, *sides, generator=generator) < shown).to(self.device)
        self.cell = [-(-axis // side) for axis, side in zip(self.axes, sides, strict=True)]
        self.shift = [torch.randint(cell, (samples,), generator=generator).tolist() for cell in self.cell]
        self.made: tuple[Tensor, Tensor] | None = None

    def __call__(self, numbers: Tensor) -> Tensor:
        if self.made is None or not torch.equal(numbers, self.made[0]):
            self.made = numbers, self._make(numbers)
        return self.made[1]

    def _make(self, numbers: Tensor) -> Tensor:
        if not self.soft:
            return self.grid[numbers]
        # enlarged by one more cell than is needed, for the shift
        size = [(side + 1) * cell for side, cell in zip(self.grid.shape[1:], self.cell, strict=True)]
        large = functional.interpolate(
            self.grid[numbers][:, None].float(), size, mode="bilinear", align_corners=False
        )[:, 0]
        (height, width), (down, right) = self.axes, self.shift
        corners = [(down[number], right[number]) for number in numbers.tolist()]
        return torch.stack(
            [mask[y : y + height, x : x + width] for mask, (y, x) in zip(large, corners, strict=True)]
        )


class _Sums:
    """Running sums over masks, and the mean scores of the positions of a tensor from them."""

    def __init__(self, tensor: Tensor, axes: torch.Size, targets: int) -> None:
        self.axes, self.targets = axes, targets
        # of masks and masks x scores, then of masks^2, masks^2 x scores and masks^2 x scores^2
        self.sums, self.squares = (
            tensor.new_zeros(len(tensor), count, self.axes.numel(), dtype=torch.float64)
            for count in (1 + targets, 1 + 2 * targets)
        )

    def add(self, masks: Tensor, which: Tensor, scores: Tensor, rows: Tensor) -> None:
        """Adds scores (b, T) of the inputs in rows (b,) under some of the masks (u, ...): `which`, (b,)."""
        share, score = masks.reshape(len(masks), -1).double(), scores.double()
        inputs, index = rows.unique(return_inverse=True)
        powers = torch.cat([torch.ones_like(score[:, :1]), score, score.square()], 1)
        by_mask = powers.new_zeros(len(inputs), powers.shape[1], len(share))
        by_mask[index, :, which] = powers
        self.sums[inputs] += by_mask[:, : 1 + self.targets] @ share
        self.squares[inputs] += by_mask @ share.square()

    def mean_and_error(self) -> tuple[Tensor, Tensor]:
        """Returns the mean score of each position when it is shown, (T, N, ...), and its standard error."""
        shown, scored = self.sums[:, :1].clamp(min=1e-12), self.sums[:, 1:]
        squared, scored_squared, both_squared = self.squares.split([1, self.targets, self.targets], 1)
        mean = scored / shown
        rest = both_squared - 2 * mean * scored_squared + mean.square() * squared
        # a single mask, or none, says nothing of the spread
        alone = self.sums[:, :1].square() < _TWO * squared
        error = (rest.clamp(min=0).sqrt() / shown).masked_fill(alone | (squared == 0), torch.inf)
        laid_out = torch.stack([mean, error]).transpose(1, 2)
        mean, error = laid_out.reshape(*laid_out.shape[:3], *self.axes).float()
        return mean, error
