"""The masking engine of all methods that hide parts of the input."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ...core.checks import check_counts
from ...core.progress import tqdm
from ...core.seeding import make_generator
from ..base.baseline_samples import BaselineSamples
from ..base.baselines import Baseline, BaselineLike, mixed
from ..base.problem import Problem
from ..base.reliability import check_scores

Masks = Callable[[Tensor], tuple[Tensor, ...]]


class Masking:
    """Scores of inputs with parts hidden.

    Args:
        problem: The network and the inputs.
        baselines: What replaces the hidden parts.
        baseline_samples: How many samples of a random baseline each input has.
        batch_size: How many inputs pass through the network at a time.
        seed: Seed of a random baseline.
        verbose: Show progress after two seconds.
        name: What the progress bar is called, such as the method.

    Attributes:
        baseline_samples: How many baselines each input has, K; 1 without randomness.

    Raises:
        ArgumentError: A batch size or number of baseline samples below 1.
    """

    def __init__(
        self,
        problem: Problem,
        baselines: BaselineLike,
        baseline_samples: int = 1,
        batch_size: int = 64,
        seed: int | None = 0,
        verbose: bool = True,
        name: str = "scores",
    ) -> None:
        check_counts(1, batch_size=batch_size, baseline_samples=baseline_samples)
        samples = BaselineSamples(problem, baselines, baseline_samples, make_generator(seed))
        self.problem = problem
        self.batch_size = batch_size
        self.verbose = verbose
        self.name = name
        tensors = samples.all(batch_size)
        self.baseline_samples = len(tensors[0])
        # a mixture by 0 and 1 is exact for finite numbers, and on a CPU ten times as fast as torch.where
        self._mixes = [
            tensor.is_floating_point()
            and tensor.device.type == "cpu"
            and bool(tensor.isfinite().all() and absent.isfinite().all())
            for tensor, absent in zip(problem.tensors, tensors, strict=True)
        ]
        self._absent = [absent.expand(-1, len(problem), *absent.shape[2:]) for absent in tensors]
        # baselines that depend on what is kept are for inputs: a layer gets its activation at a sample
        self._fills: Sequence[Baseline | None] = (
            [one if type(one).fill is not Baseline.fill else None for one in samples.baselines]
            if problem.layer is None
            else [None] * len(problem.tensors)
        )

    def stream(self, masks: Masks, rows: Tensor, samples: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields positions (b,) among B masked inputs and their scores (b, T), a batch at a time.

        Args:
            masks: From positions (b,) to what stays of each input: for each tensor a mask that broadcasts to
                (b, ...), of booleans, or of shares between the baseline (0) and the input (1).
            rows: (B,) which of the N inputs each is made of.
            samples: (B,) which of the K baseline samples each is filled with.
        """
        device = self.problem.tensors[0].device
        rows, samples = rows.to(device), samples.to(device)
        batches = torch.arange(len(rows), device=device).split(self.batch_size)
        for positions in tqdm(batches, self.name, delay=2, leave=False, disable=not self.verbose):
            of_batch = rows[positions]
            with torch.inference_mode():
                inputs = self.masked(masks(positions), of_batch, samples[positions])
                scores = self.problem.scores(inputs, of_batch)
            yield positions, scores.clone()

    def unmasked(self) -> Tensor:
        """Returns the scores (N, T) of the inputs as they are."""
        tensors, rows = self.problem.tensors, torch.arange(len(self.problem))

        def masks(positions: Tensor) -> tuple[Tensor, ...]:
            return tuple(tensor.new_ones((1,) * tensor.dim(), dtype=torch.bool) for tensor in tensors)

        scores = torch.cat([scores for _, scores in self.stream(masks, rows, torch.zeros_like(rows))])
        check_scores(scores, "the scores of the inputs")
        return scores

    def masked(self, masks: Sequence[Tensor], rows: Tensor, samples: Tensor) -> tuple[Tensor, ...]:
        """Returns inputs (b, ...) with their hidden parts replaced; arguments are as in `stream`."""
        one = len(self.problem) == 1
        result = []
        for tensor, absent, fill, mixes, mask in zip(
            self.problem.tensors, self._absent, self._fills, self._mixes, masks, strict=True
        ):
            # a single input is broadcast, not copied
            present = tensor if one else tensor[rows]
            if fill is not None:
                present = present.expand(len(rows), *tensor.shape[1:])
                result.append(fill.fill(present, mask.expand(present.shape)))
                continue
            absent = absent[0] if one and self.baseline_samples == 1 else absent[samples, rows]
            shares = mask.to(present.dtype) if mixes else mask
            result.append(mixed(shares, present, absent).expand(len(rows), *tensor.shape[1:]))
        return tuple(result)
