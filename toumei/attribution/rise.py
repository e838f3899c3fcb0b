"""RISE: the mean score of inputs under random masks in which a place stays."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..core.errors import ArgumentError
from ..core.seeding import make_generator
from .baselines import BaselineLike
from .masking import Masking
from .method import Method
from .places import lifted, over_channels, places
from .problem import Problem
from .result import Attribution


class Rise(Method):
    """The mean score with a place shown, over random masks (Petsiuk et al., 2018), and its standard error.

    Of maps (N, C, H, W) a mask is a coarse grid of random cells, enlarged smoothly and shifted; of other
    inputs each place is shown or hidden. A place's sum is divided by how much of it was shown in fact, not in
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
        background: int = 10,
        batch_size: int = 64,
        seed: int | None = 0,
        verbose: bool = True,
        **options: Any,
    ) -> Attribution:
        """Returns the mean scores and their standard errors.

        Args:
            problem: The network and its inputs.
            baselines: What is hidden is replaced by.
            samples: How many masks, which all inputs share.
            cells: Cells of the coarse grid from side to side.
            shown: The probability that a cell is shown.
            background: How many draws of a random baseline the masks take turns at.
            batch_size: How many inputs pass through the network at a time.
            seed: Seed of the masks and of baselines that are drawn.
            verbose: Show progress once it takes longer than two seconds.
            **options: None.

        Raises:
            ArgumentError: Fewer than two samples, no cell, or a probability that is none.
        """
        if options:
            raise ArgumentError(f"no option {next(iter(options))!r}")
        if samples < 2 or cells < 1 or not 0 < shown < 1:
            raise ArgumentError(
                f"samples are from 2 on, cells from 1 on and shown is between 0 and 1, got {samples}, "
                f"{cells} and {shown}"
            )
        masking = Masking(problem, baselines, background, batch_size, seed, verbose)
        generator, count = make_generator(seed), len(problem)
        makers = [_Masks(tensor, samples, cells, shown, generator) for tensor in problem.tensors]
        sums = [_Sums(tensor, len(problem.targets)) for tensor in problem.tensors]
        positions = torch.arange(samples * count)
        made: list[Tensor] = []

        def masks(own: Tensor) -> tuple[Tensor, ...]:
            made[:] = [maker(own // count) for maker in makers]
            return tuple(lifted(mask, tensor) for mask, tensor in zip(made, problem.tensors, strict=True))

        for own, scores in masking.stream(masks, positions % count, positions // count % masking.draws):
            for total, mask in zip(sums, made, strict=True):
                total.add(mask, scores, own % count)
        moments = [
            [over_channels(own, tensor) for own in total.mean_and_error()]
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


class _Masks:
    """Random masks of one tensor: numbers of masks (b,) to masks of its places (b, ...)."""

    def __init__(
        self, tensor: Tensor, samples: int, cells: int, shown: float, generator: torch.Generator | None
    ) -> None:
        self.axes = places(tensor)
        self.device = tensor.device
        self.soft = tensor.dim() == 4 and tensor.is_floating_point()
        sides = [min(cells, axis) for axis in self.axes] if self.soft else list(self.axes)
        self.grid = (torch.rand(samples, *sides, generator=generator) < shown).to(self.device)
        self.cell = [-(-axis // side) for axis, side in zip(self.axes, sides, strict=True)]
        self.shift = [torch.randint(cell, (samples,), generator=generator).tolist() for cell in self.cell]

    def __call__(self, numbers: Tensor) -> Tensor:
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

    def __init__(self, tensor: Tensor, targets: int) -> None:
        self.axes = places(tensor)
        size = (len(tensor), targets, self.axes.numel())
        # of masks, masks x scores, masks^2, masks^2 x scores and masks^2 x scores^2
        self.sums = torch.zeros(5, *size, dtype=torch.float64, device=tensor.device)

    def add(self, masks: Tensor, scores: Tensor, rows: Tensor) -> None:
        """Adds masks (b, ...) with their scores (b, T), of some inputs (b,)."""
        share, score = masks.flatten(1).double(), scores.double()
        which = functional.one_hot(rows, self.sums.shape[1])[:, :, None]
        powers = [(which * score[:, None] ** power).flatten(1).T for power in range(3)]
        squared = share.square()
        for total, power, mask in zip(
            self.sums, (0, 1, 0, 1, 2), (share, share, squared, squared, squared), strict=True
        ):
            total += (powers[power] @ mask).reshape(total.shape)

    def mean_and_error(self) -> tuple[Tensor, Tensor]:
        """Returns the mean score of each place when it is shown, (T, N, ...), and its standard error."""
        shown, scored, squared, scored_squared, both_squared = self.sums
        shown = shown.clamp(min=1e-12)
        mean = scored / shown
        error = (both_squared - 2 * mean * scored_squared + mean.square() * squared).clamp(
            min=0
        ).sqrt() / shown
        laid_out = torch.stack([mean, error]).transpose(1, 2).unflatten(3, self.axes).float()
        return laid_out[0], laid_out[1]
