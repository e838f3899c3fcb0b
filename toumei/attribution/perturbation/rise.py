"""RISE: the mean score of inputs under random masks in which a place stays."""

import torch
from torch import Tensor
from torch.nn import functional

from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from ..base.baselines import BaselineLike
from ..base.channels import lifted, over_channels, places
from ..base.method import Method
from ..base.problem import Problem
from ..base.result import Attribution
from .masking import Masking


class Rise(Method):
    """The mean score with a place shown, over random masks (Petsiuk et al., 2018), and its standard error.

    Of maps (N, C, H, W) a mask is a coarse grid of random cells, enlarged smoothly and shifted; of other
    inputs each place is shown or hidden. Signals (N, C, L) need ``channel_axis=1``, or their channels would
    be taken for tokens. A place's sum is divided by how much of it was shown in fact, not in
    the mean, so that a score that does not depend on the input gives a flat map. Only running sums are kept.
    A place's value is spread over its channels.

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs.
        preprocess: Applied to the inputs before the network.

    Example:
        >>> from torch import nn
        >>> method = Rise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)))
        >>> result = method(torch.rand(2, 3, 8, 8), target=1, samples=50, cells=4)
        >>> result.values.shape, result.standard_error.shape
        (torch.Size([2, 3, 8, 8]), torch.Size([2, 3, 8, 8]))
    """

    def attribute(
        self,
        problem: Problem,
        baselines: BaselineLike,
        *,
        samples: int = 4000,
        cells: int = 7,
        shown: float = 0.5,
        channel_axis: int | None = None,
        background: int = 10,
        batch_size: int = 64,
        seed: int | None = 0,
        verbose: bool = True,
    ) -> Attribution:
        """Returns the mean scores and their standard errors.

        Args:
            problem: The network and its inputs.
            baselines: What is hidden is replaced by.
            samples: How many masks, which all inputs share.
            cells: Cells of the coarse grid from side to side.
            shown: The probability that a cell is shown.
            channel_axis: The axis of the channels; by default axis 1 of maps and films, the last of tokens.
            background: How many draws of a random baseline the masks take turns at.
            batch_size: How many inputs pass through the network at a time.
            seed: Seed of the masks and of baselines that are drawn.
            verbose: Show progress once it takes longer than two seconds.

        Raises:
            ArgumentError: Fewer than two samples, no cell, or a probability that is none.
        """
        if samples < 2 or cells < 1 or not 0 < shown < 1:
            raise ArgumentError(
                f"samples are from 2 on, cells from 1 on and shown is between 0 and 1, got {samples}, "
                f"{cells} and {shown}"
            )
        masking = Masking(problem, baselines, background, batch_size, seed, verbose)
        generator, device = make_generator(seed), problem.tensors[0].device
        makers = [
            _Masks(tensor, places(tensor, channel_axis), samples, cells, shown, generator)
            for tensor in problem.tensors
        ]
        sums = [
            _Sums(tensor, maker.axes, len(problem.targets))
            for tensor, maker in zip(problem.tensors, makers, strict=True)
        ]
        numbers, rows = (own.to(device) for own in _in_turns(samples, len(problem), batch_size))
        made: list[Tensor] = []

        def masks(own: Tensor) -> tuple[Tensor, ...]:
            unique, which = numbers[own].unique(return_inverse=True)
            made[:] = [which, *(maker(unique) for maker in makers)]
            return tuple(
                lifted(mask[which], tensor, channel_axis)
                for mask, tensor in zip(made[1:], problem.tensors, strict=True)
            )

        for own, scores in masking.stream(masks, rows, numbers % masking.draws):
            for total, mask in zip(sums, made[1:], strict=True):
                total.add(mask, made[0], scores, rows[own])
        moments = [
            [over_channels(own, tensor, channel_axis) for own in total.mean_and_error()]
            for total, tensor in zip(sums, problem.tensors, strict=True)
        ]
        return Attribution(
            problem.restore([mean for mean, _ in moments]),
            problem.per_input(masking.unmasked()),
            standard_error=problem.restore([error for _, error in moments]),
            method="Rise",
            several=problem.several,
            seed=seed,
        )


def _in_turns(samples: int, count: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """The numbers (B,) of masks and of the inputs they are for: a batch of masks for each input in turn.

    So each mask is made once for all inputs, and a batch adds to the sums of one input.
    """
    batches = torch.arange(samples).split(batch_size)
    numbers = torch.cat([own.repeat(count) for own in batches])
    return numbers, torch.cat([torch.arange(count).repeat_interleave(len(own)) for own in batches])


class _Masks:
    """Random masks of one tensor: numbers (u,) to masks of its places (u, ...); it keeps the last."""

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
        # enlarged by a cell more than is needed, for the shift
        size = [(side + 1) * cell for side, cell in zip(self.grid.shape[1:], self.cell, strict=True)]
        large = functional.interpolate(
            self.grid[numbers][:, None].float(), size, mode="bilinear", align_corners=False
        )[:, 0]
        (height, width), (down, right) = self.axes, self.shift
        corners = [(down[number], right[number]) for number in numbers.tolist()]
        return torch.stack(
            [own[y : y + height, x : x + width] for own, (y, x) in zip(large, corners, strict=True)]
        )


class _Sums:
    """Running sums over masks, and what they say about the places of a tensor."""

    def __init__(self, tensor: Tensor, axes: torch.Size, targets: int) -> None:
        self.axes, self.targets = axes, targets
        # of masks and masks x scores, then of masks^2, masks^2 x scores and masks^2 x scores^2
        self.sums, self.squares = (
            tensor.new_zeros(len(tensor), count, self.axes.numel(), dtype=torch.float64)
            for count in (1 + targets, 1 + 2 * targets)
        )

    def add(self, masks: Tensor, which: Tensor, scores: Tensor, rows: Tensor) -> None:
        """Adds some of the masks (u, ...), those in which (b,), with scores (b, T) of some inputs (b,)."""
        share, score = masks.flatten(1).double(), scores.double()
        own, place = rows.unique(return_inverse=True)
        powers = torch.cat([torch.ones_like(score[:, :1]), score, score.square()], 1)
        table = powers.new_zeros(len(own), powers.shape[1], len(share))
        table[place, :, which] = powers
        self.sums[own] += table[:, : 1 + self.targets] @ share
        self.squares[own] += table @ share.square()

    def mean_and_error(self) -> tuple[Tensor, Tensor]:
        """Returns the mean score of each place when it is shown, (T, N, ...), and its standard error."""
        shown, scored = self.sums[:, :1].clamp(min=1e-12), self.sums[:, 1:]
        squared, scored_squared, both_squared = self.squares.split([1, self.targets, self.targets], 1)
        mean = scored / shown
        rest = both_squared - 2 * mean * scored_squared + mean.square() * squared
        laid_out = torch.stack([mean, rest.clamp(min=0).sqrt() / shown]).transpose(1, 2)
        mean, error = laid_out.unflatten(3, self.axes).float()
        return mean, error
