"""What replaces the contributions of edges that are cut: nothing, a mean, or those of the corrupt prompts."""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from ..patching.metrics import Read
from ..patching.problems import Problem
from .recorded_run import Inputs, RecordedRun
from .wiring import Wiring

Ablation = Literal["resample", "mean", "zero"]
"""The corrupt prompt's contribution, its mean over the corrupt prompts at each position, or none."""

ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)
_MOST_NUMBERS = 2**26  # of what all writers write for the prompts that run at once


class Chunks:
    """The pairs of prompts, some at a time, and what replaces the contributions of writers for them.

    Args:
        wiring: The nodes of the model.
        problem: The prompts and the metric.
        ablation: What replaces contributions.
        batch_size: How many pairs run at once; by default as many as keep what all writers write in memory.
    """

    def __init__(self, wiring: Wiring, problem: Problem, ablation: Ablation, batch_size: int | None) -> None:
        self.wiring, self.problem, self.ablation = wiring, problem, ablation
        self.texts = len(next(one for one in problem.clean.values() if isinstance(one, Tensor)))
        self.size = prompts_at_once(wiring, problem.clean, batch_size)
        self._kept = self._mean_written() if ablation == "mean" else None

    def slices(self) -> Iterator[slice]:
        """Yields which prompts run at once."""
        for start in range(0, self.texts, self.size):
            yield slice(start, min(start + self.size, self.texts))

    def clean(self, chosen: slice) -> Inputs:
        """Returns the model's inputs of some clean prompts."""
        return sliced(self.problem.clean, chosen)

    def corrupt(self, chosen: slice) -> Inputs:
        """Returns those of some corrupt prompts."""
        return sliced(self.problem.corrupt, chosen)

    def read(self, chosen: slice) -> Read:
        """Returns the metric of some prompts, from logits (..., prompts, tokens) to values (..., prompts)."""
        before, after = chosen.start, self.texts - chosen.stop

        def read(logits: Tensor) -> Tensor:
            whole = torch.nn.functional.pad(logits, (0, 0, before, after))
            return self.problem.read(whole)[..., chosen]

        return read

    def replaced(self, chosen: slice) -> Tensor:
        """Returns what replaces each contribution, (writers, 1 or prompts, 1 or positions, width)."""
        if self._kept is not None:
            return self._kept
        if self.ablation == "zero":
            sizes = len(self.wiring.writers), 1, 1, self.wiring.model.width
            device = next(self.wiring.model.model.parameters()).device
            return torch.zeros(1, device=device).expand(sizes)
        with torch.no_grad():
            found = RecordedRun(self.wiring, self.corrupt(chosen)).written()
        self._kept = found if self.size == self.texts else None
        return found

    def _mean_written(self) -> Tensor:
        total: Tensor | None = None
        with torch.no_grad():
            for chosen in self.slices():
                summed = RecordedRun(self.wiring, self.corrupt(chosen)).written().sum(1, keepdim=True)
                total = summed if total is None else total + summed
        assert total is not None
        return total / self.texts


def prompts_at_once(wiring: Wiring, inputs: Inputs, batch_size: int | None) -> int:
    """Returns how many prompts run at once, at most all."""
    texts, length = next(one for one in inputs.values() if isinstance(one, Tensor)).shape[:2]
    numbers = len(wiring.writers) * length * wiring.model.width
    return int(min(batch_size or max(1, _MOST_NUMBERS // numbers), texts))


def sliced(inputs: Inputs, chosen: slice) -> Inputs:
    """Returns the inputs of some prompts."""
    return {name: one[chosen] if isinstance(one, Tensor) else one for name, one in inputs.items()}
