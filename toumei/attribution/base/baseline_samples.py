"""The baselines of a problem's inputs, of which only those are made that a batch needs."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ...core.errors import ArgumentError
from .baselines import AtLayer, Baseline, BaselineLike, as_baseline
from .batching import at, batches
from .inputs import Inputs, parts
from .problem import Problem


class BaselineSamples:
    """Draws of baselines for what a problem attributes to; each input has those that it has alone.

    Args:
        problem: The network and its inputs.
        baselines: What the user gave.
        count: How many draws each input has, K.
        generator: Where randomness comes from.

    Attributes:
        baselines: Those of the inputs that they replace, or of the layer's activation.
        is_random: Whether draws differ.
        is_shared: Whether a draw is the same for all inputs.

    Raises:
        ArgumentError: Baselines that the problem cannot be given.
        ShapeError: Baselines of another shape than the inputs.
    """

    def __init__(
        self,
        problem: Problem,
        baselines: BaselineLike,
        count: int,
        generator: torch.Generator | None = None,
    ) -> None:
        own = as_baselines(baselines, problem.inputs)
        inner = [as_baseline(baseline.baseline) for baseline in own if isinstance(baseline, AtLayer)]
        if inner and problem.layer is None:
            raise ArgumentError("a baseline AtLayer is for methods with layer=...")
        self.problem = problem
        self.baselines = tuple(inner[:1]) or problem.moving(own)
        self.is_random = any(baseline.is_random for baseline in self.baselines)
        self._tensors = problem.tensors if inner else problem.moving(parts(problem.inputs))
        self._through = problem.layer is not None and not inner  # to the layer, from baselines of the inputs
        # what the layer does with a draw may depend on inputs that stay as they are
        seen = self._through and any(problem.fixed)
        self.is_shared = all(baseline.is_shared for baseline in self.baselines) and not seen
        self.numbers = torch.stack([own.numbers(count, generator) for own in self.baselines], 1)
        # a baseline that is not drawn may be given for each input, or take long to make
        self._once = [
            None if baseline.is_random else baseline.draw(tensor, 1)[0]
            for baseline, tensor in zip(self.baselines, self._tensors, strict=True)
        ]

    def __call__(self, rows: Tensor, draws: Tensor) -> list[Tensor]:
        """Returns baselines, each (B, ...): for inputs in rows (B,) which of their K draws, (B,)."""
        numbers = self.numbers[draws]
        if not (self._through and self.is_shared):
            return self._made(rows, numbers)
        # many inputs need the activation at the same draw
        numbers, which = numbers.unique(dim=0, return_inverse=True)
        return at(self._made(torch.zeros(len(numbers), dtype=torch.long), numbers), which)

    def all(self, batch_size: int) -> list[Tensor]:
        """Returns all that differ: each (K, N, ...), with 1 for K where not drawn, and for N where shared."""
        count = len(self.numbers) if self.is_random else 1
        rows = 1 if self.is_shared else len(self.problem)
        made = [self(pairs % rows, pairs // rows) for pairs in batches(count * rows, batch_size)]
        return [torch.cat(own).unflatten(0, (count, rows)) for own in zip(*made, strict=True)]

    def outputs(self, batch_size: int) -> Tensor:
        """Returns the mean scores (N, T) over the draws, in float64 on the CPU.

        Each different baseline passes through the network once.
        """
        problem, count = self.problem, len(self.problem)
        numbers, times = self.numbers.unique(dim=0, return_counts=True)
        shares = times.double() / times.sum()
        total = torch.zeros(count, len(problem.targets), dtype=torch.float64)
        alike = self.is_shared and problem.layer is None and not any(problem.fixed)
        each = 1 if alike else count
        for pairs in batches(len(numbers) * each, batch_size):
            own, rows = pairs // each, pairs % each
            tensors = self._made(rows, numbers[own])
            with torch.no_grad():
                scores = problem.crossed(tensors) if alike else problem.scores(tensors, rows)
            scores = scores.double().cpu()
            if alike:
                total += torch.einsum("b,bnt->nt", shares[own], scores)
            else:
                total.index_add_(0, rows, shares[own, None] * scores)
        return total

    def _made(self, rows: Tensor, numbers: Tensor) -> list[Tensor]:
        """Baselines, each (B, ...), of the inputs in rows (B,), by the numbers (B, inputs) of their draws."""
        tensors = [
            baseline.numbered(at([tensor], rows)[0], own) if once is None else at([once], rows)[0]
            for baseline, tensor, once, own in zip(
                self.baselines, self._tensors, self._once, numbers.unbind(1), strict=True
            )
        ]
        return list(self.problem.at_layer(tensors, rows)) if self._through else tensors


def as_baselines(given: BaselineLike, inputs: Inputs) -> tuple[Baseline, ...]:
    """Returns a baseline for each of several inputs, for what users write in the place of one.

    Args:
        given: None for zeros, a number, a tensor, an array, a `Baseline`, a sequence of one for each input,
            or a dictionary by the names of inputs, which may leave some out.
        inputs: The inputs.

    Raises:
        ArgumentError: A sequence of another length, names of inputs that there are not, or something else.
    """
    count = len(parts(inputs))
    if isinstance(given, Mapping):
        if not isinstance(inputs, dict) or not set(given) <= set(inputs):
            names = list(inputs) if isinstance(inputs, dict) else "no names"
            raise ArgumentError(f"baselines for {list(given)}, the inputs have {names}")
        return tuple(as_baseline(given.get(name)) for name in inputs)
    if isinstance(given, list | tuple):
        if len(given) != count:
            raise ArgumentError(f"{len(given)} baselines for {count} inputs")
        return tuple(as_baseline(own) for own in given)
    if isinstance(given, Tensor | np.ndarray) and count > 1:
        raise ArgumentError(f"one tensor as baseline for {count} inputs: give one for each")
    return tuple(as_baseline(given) for _ in range(count))
