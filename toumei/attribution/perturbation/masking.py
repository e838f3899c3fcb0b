"""One masking engine under all methods that take parts of the input away."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from ..base.baseline_samples import BaselineSamples
from ..base.baselines import Baseline, BaselineLike, mixed
from ..base.problem import Problem

Masks = Callable[[Tensor], tuple[Tensor, ...]]


class Masking:
    """Scores of inputs with parts taken away.

    Args:
        problem: The network and the inputs.
        baselines: What replaces the parts that are taken away.
        draws: How many baselines each input has, where they are drawn.
        batch_size: How many inputs pass through the network at a time.
        seed: Seed of baselines that are drawn.
        verbose: Show progress once it takes longer than two seconds.

    Attributes:
        draws: How many baselines each input has, K; 1 where they are not drawn.

    Raises:
        ArgumentError: A batch size or number of draws under 1.
    """

    def __init__(
        self,
        problem: Problem,
        baselines: BaselineLike,
        draws: int = 1,
        batch_size: int = 64,
        seed: int | None = 0,
        verbose: bool = True,
    ) -> None:
        if batch_size < 1 or draws < 1:
            raise ArgumentError(
                f"batch_size and draws of a baseline are from 1 on, got {batch_size} and {draws}"
            )
        drawn = BaselineSamples(problem, baselines, draws, make_generator(seed))
        self.problem = problem
        self.batch_size = batch_size
        self.verbose = verbose
        own = drawn.all(batch_size)
        self.draws = len(own[0])
        # a mixture by 0 and 1 is exact, but for infinite numbers, and on a CPU ten times as fast as a choice
        self._mixes = [
            tensor.is_floating_point()
            and tensor.device.type == "cpu"
            and bool(tensor.isfinite().all() and drawn.isfinite().all())
            for tensor, drawn in zip(problem.tensors, own, strict=True)
        ]
        self._drawn = [part.expand(-1, len(problem), *part.shape[2:]) for part in own]
        # a baseline that looks at what is kept belongs to the inputs: a layer gets its activation at a draw
        self._fills: Sequence[Baseline | None] = (
            [one if type(one).fill is not Baseline.fill else None for one in drawn.baselines]
            if problem.layer is None
            else [None]
        )

    def stream(self, masks: Masks, rows: Tensor, draws: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields positions (b,) among B masked inputs and their scores (b, T), a batch at a time.

        Args:
            masks: From positions (b,) to what stays of each input: for each tensor a mask that broadcasts to
                (b, ...), of booleans, or of shares between the baseline (0) and the input (1).
            rows: (B,) which of the N inputs each is made of.
            draws: (B,) which of the K baselines each is filled with.
        """
        device = self.problem.tensors[0].device
        rows, draws = rows.to(device), draws.to(device)
        batches = torch.arange(len(rows), device=device).split(self.batch_size)
        for positions in tqdm(batches, delay=2, leave=False, disable=not self.verbose):
            own_rows = rows[positions]
            with torch.inference_mode():
                inputs = self.masked(masks(positions), own_rows, draws[positions])
                scores = self.problem.scores(inputs, own_rows)
            yield positions, scores.clone()

    def unmasked(self) -> Tensor:
        """Returns the scores (N, T) of the inputs as they are."""
        tensors, rows = self.problem.tensors, torch.arange(len(self.problem))

        def masks(positions: Tensor) -> tuple[Tensor, ...]:
            return tuple(tensor.new_ones((1,) * tensor.dim(), dtype=torch.bool) for tensor in tensors)

        return torch.cat([scores for _, scores in self.stream(masks, rows, torch.zeros_like(rows))])

    def masked(self, masks: Sequence[Tensor], rows: Tensor, draws: Tensor) -> tuple[Tensor, ...]:
        """Returns inputs (b, ...) whose parts that do not stay are replaced."""
        one = len(self.problem) == 1
        result = []
        for tensor, drawn, fill, mixes, mask in zip(
            self.problem.tensors, self._drawn, self._fills, self._mixes, masks, strict=True
        ):
            # a single input is broadcast, not copied
            own = tensor if one else tensor[rows]
            if fill is not None:
                own = own.expand(len(rows), *tensor.shape[1:])
                result.append(fill.fill(own, mask.expand(own.shape)))
                continue
            absent = drawn[0] if one and self.draws == 1 else drawn[draws, rows]
            shares = mask.to(own.dtype) if mixes else mask
            result.append(mixed(shares, own, absent).expand(len(rows), *tensor.shape[1:]))
        return tuple(result)
