"""The baselines of a problem's inputs, made a batch at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.checks import check_memory
from ...core.conversions import MISFIT, as_tensor
from ...core.errors import ArgumentError, ShapeError
from ...core.summaries import counted
from .baselines import AtLayer, Baseline, BaselineLike, as_baseline
from .batching import BATCH_SIZE, batches, take_rows
from .input_roles import with_baselines
from .inputs import Inputs, parts_of
from .problem import Problem
from .random_baselines import FromData


class BaselineSamples:
    """K samples of a baseline for each input of a problem; an input has the same samples alone.

    Args:
        problem: The network and its inputs.
        baselines: What the user gave.
        count: How many samples each input has, K.
        generator: Where randomness comes from.

    Attributes:
        baselines: The baselines of the inputs that they replace, or of the layer's activation.
        is_random: Whether samples differ.
        is_shared: Whether a sample is the same for all inputs.

    Raises:
        ArgumentError: Baselines that do not suit the problem.
        ShapeError: Baselines of another shape than the inputs.
    """

    def __init__(
        self,
        problem: Problem,
        baselines: BaselineLike,
        count: int,
        generator: torch.Generator | None = None,
    ) -> None:
        inner = at_layers(baselines, problem)
        given = zip(problem.fixed, with_baselines(baselines, problem.inputs), strict=True)
        if any(stays and has_baseline for stays, has_baseline in given):
            raise ArgumentError(
                "a baseline of whole numbers would not be used: they have no gradient, and stay as they are "
                "on the path of the inputs"
            )
        self.problem = problem
        self.baselines = inner or problem.moving(as_baselines(baselines, problem.inputs))
        self.is_random = any(baseline.is_random for baseline in self.baselines)
        self._tensors = problem.tensors if inner else problem.moving(parts_of(problem.inputs))
        # baselines of the inputs pass through the network up to the layer
        self._through = problem.layer is not None and not inner
        # the layer's activation at a sample may depend on inputs that stay as they are
        mixed = self._through and any(problem.fixed)
        self.is_shared = all(baseline.is_shared for baseline in self.baselines) and not mixed
        self.numbers = torch.stack(joint_numbers(self.baselines, count, generator), 1)
        # a baseline without randomness may be given for each input, or take long to make: made once
        self._once = [
            None if baseline.is_random else baseline.draw(tensor, 1)[0]
            for baseline, tensor in zip(self.baselines, self._tensors, strict=True)
        ]

    def __call__(self, rows: Tensor, samples: Tensor) -> list[Tensor]:
        """Returns baselines, each (B, ...), for the inputs in rows (B,): sample k of K for each, (B,)."""
        numbers = self.numbers[samples]
        if not (self._through and self.is_shared):
            return self._made(rows, numbers)
        # many inputs need the activation at the same sample
        numbers, which = numbers.unique(dim=0, return_inverse=True)
        return take_rows(self._made(torch.zeros(len(numbers), dtype=torch.long), numbers), which)

    def all(self, batch_size: int) -> list[Tensor]:
        """Returns all different samples, each (K, N, ...): K is 1 without randomness, N is 1 where shared."""
        count = len(self.numbers) if self.is_random else 1
        rows = 1 if self.is_shared else len(self.problem)
        check_memory(
            f"{counted(count, 'sample', form=',')} of baselines",
            count * rows * sum(tensor[0].numel() for tensor in self.problem.tensors),
            "give fewer baseline_samples=...",
        )
        made = [self(pairs % rows, pairs // rows) for pairs in batches(count * rows, batch_size)]
        return [torch.cat(tensors).unflatten(0, (count, rows)) for tensors in zip(*made, strict=True)]

    def outputs(self, batch_size: int) -> Tensor:
        """Returns the mean scores (N, T) over the samples, in float64 on the CPU.

        Each different baseline passes through the network once.
        """
        problem, count = self.problem, len(self.problem)
        numbers, times = self.numbers.unique(dim=0, return_counts=True)
        shares = times.double() / times.sum()
        total = torch.zeros(count, len(problem.targets), dtype=torch.float64)
        alike = self.is_shared and problem.layer is None and not any(problem.fixed)
        each = 1 if alike else count
        for pairs in batches(len(numbers) * each, batch_size):
            samples, rows = pairs // each, pairs % each
            tensors = self._made(rows, numbers[samples])
            with torch.no_grad():
                scores = problem.crossed(tensors) if alike else problem.scores(tensors, rows)
            scores = scores.double().cpu()
            if alike:
                total += torch.einsum("b,bnt->nt", shares[samples], scores)
            else:
                total.index_add_(0, rows, shares[samples, None] * scores)
        return total

    def _made(self, rows: Tensor, numbers: Tensor) -> list[Tensor]:
        """Baselines, each (B, ...), of the inputs in rows (B,), with sample numbers (B, inputs)."""
        tensors = [
            baseline.numbered(take_rows([tensor], rows)[0], of_input)
            if once is None
            else take_rows([once], rows)[0]
            for baseline, tensor, once, of_input in zip(
                self.baselines, self._tensors, self._once, numbers.unbind(1), strict=True
            )
        ]
        return list(self.problem.at_layer(tensors, rows)) if self._through else tensors


def one_baseline(
    problem: Problem,
    baselines: BaselineLike,
    method: str,
    alternative: str,
    batch_size: int = BATCH_SIZE,
) -> tuple[Tensor, ...]:
    """Returns the baselines of the tensors that contributions are for, each (N, ...).

    Raises:
        ArgumentError: A distribution of baselines; the message names the method that takes one.
    """
    samples = BaselineSamples(problem, baselines, 1)
    if samples.is_random:
        raise ArgumentError(
            f"{method} takes one baseline an input: for a distribution there is {alternative}"
        )
    return tuple(tensor[0].expand(len(problem), *tensor.shape[2:]) for tensor in samples.all(batch_size))


def joint_numbers(
    baselines: Sequence[Baseline], count: int, generator: torch.Generator | None = None
) -> list[Tensor]:
    """Returns the numbers of the samples of each baseline, (count,): rows of data are drawn together.

    A row of the data of one input belongs to the row with the same number of another.

    Raises:
        ShapeError: Data of different lengths.

    Example:
        >>> data = FromData(torch.zeros(9, 2)), FromData(torch.ones(9, 3))
        >>> first, second = joint_numbers(data, 4)
        >>> torch.equal(first, second)
        True
    """
    data = [one for one in baselines if isinstance(one, FromData) and len(one.data) > 1]
    lengths = {len(one.data) for one in data}
    if len(lengths) > 1:
        raise ShapeError(
            f"rows of the data of several inputs belong together, got FromData of {sorted(lengths)} rows"
        )
    # without replacement if any of them says so
    rows = min(data, key=lambda one: one.replace).numbers(count, generator) if data else None
    return [
        rows
        if rows is not None and any(one is of_data for of_data in data)
        else one.numbers(count, generator)
        for one in baselines
    ]


def at_layers(given: BaselineLike, problem: Problem) -> tuple[Baseline, ...]:
    """Returns the baselines for the tensors of a layer, none where the baselines are for the inputs.

    Args:
        given: What the user gave: one `AtLayer` for all tensors, a sequence of one for each, or a dictionary
            by their names.
        problem: The network and its inputs.

    Raises:
        ArgumentError: There is no layer, baselines for inputs beside them, or another number of them.
    """
    count = len(problem.tensors)
    if isinstance(given, Mapping) and problem.layer is not None and set(given) <= set(problem.names):
        found: list[Any] = [given.get(name) for name in problem.names]
    elif isinstance(given, Mapping):
        found = list(given.values())
    else:
        found = list(given) if isinstance(given, list | tuple) else [given]
    inner = [as_baseline(one.baseline) for one in found if isinstance(one, AtLayer)]
    if not inner:
        return ()
    if problem.layer is None:
        raise ArgumentError("a baseline AtLayer is for methods with layer=...")
    if any(one is not None and not isinstance(one, AtLayer) for one in found):
        raise ArgumentError("baselines AtLayer stand for those of the inputs: give no others beside them")
    if len(inner) not in (1, count):
        raise ArgumentError(
            f"{counted(len(inner), 'baseline')} AtLayer for {counted(count, 'tensor')} of the layer"
        )
    return tuple(inner * count if len(inner) == 1 else inner)


def as_baselines(given: BaselineLike, inputs: Inputs) -> tuple[Baseline, ...]:
    """Returns a baseline for each of several inputs.

    Args:
        given: None for zeros, a number, a tensor, an array, a `Baseline`, a sequence of one for each input,
            or a dictionary by the names of inputs, which may leave some out; of a single input also the
            numbers of a row in a list.
        inputs: The inputs.

    Raises:
        ArgumentError: A sequence of another length, names of inputs that do not exist, or something else.
    """
    count = len(parts_of(inputs))
    if isinstance(given, Mapping):
        if not isinstance(inputs, dict) or not set(given) <= set(inputs):
            names = list(inputs) if isinstance(inputs, dict) else "no names"
            raise ArgumentError(f"baselines for {list(given)}, the inputs have {names}")
        return tuple(as_baseline(given.get(name)) for name in inputs)
    if isinstance(given, list | tuple):
        if len(given) != count:
            row: Any = as_tensor(given) if count == 1 else MISFIT
            if row is not MISFIT and row.numel():
                return (as_baseline(row),)
            raise ArgumentError(f"{counted(len(given), 'baseline')} for {counted(count, 'input')}")
        return tuple(as_baseline(one) for one in given)
    if isinstance(given, Tensor | np.ndarray) and count > 1:
        raise ArgumentError(f"one tensor as baseline for {counted(count, 'input')}: give one for each")
    return tuple(as_baseline(given) for _ in range(count))
