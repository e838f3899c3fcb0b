"""What a method says of numbers that mean nothing: NaN, and scores that another pass does not repeat."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.finite import check_finite, infinite_rows, shown_rows
from ...core.repeats import always_repeats, repeat_gap, warn_of_gap
from ...core.summaries import counted
from ...core.user_warnings import warn
from .batching import batches, take_rows
from .inputs import parts_of
from .problem import Problem

_TOGETHER = 1e-2  # largest difference, as a share, of a row alone and the same row among others


def check_inputs(problem: Problem, batch_size: int) -> None:
    """Raises an error for inputs with NaN whose scores are NaN, before anything else is done.

    Only inputs with NaN pass through the network for it: some networks take NaN for a number that is missing.

    Raises:
        NonFiniteError: There are such inputs.
    """
    nan = torch.zeros(len(problem), dtype=torch.bool)
    for part in parts_of(problem.inputs):
        if part.is_floating_point() and bool(part.sum().isnan()):
            nan |= part.isnan().flatten(1).any(1).cpu() if part.dim() > 1 else part.isnan().cpu()
    if not nan.any():
        return
    rows, inner = nan.nonzero()[:, 0], problem.of_inputs()
    with torch.no_grad():
        for batch in batches(len(rows), batch_size):
            check_scores(
                inner.scores(take_rows(inner.tensors, rows[batch]), rows[batch]),
                "the inputs have NaN, and their scores",
                rows[batch],
            )


def check_scores(scores: Tensor, what: str, numbers: Tensor | None = None) -> None:
    """Raises an error for scores (N, ...) that are NaN or infinite, which nothing can be attributed to.

    Args:
        scores: The scores.
        what: What they are, as the beginning of a sentence.
        numbers: (N,) the numbers of the rows, by default from 0 on.

    Raises:
        NonFiniteError: There are such scores.
    """
    check_finite(
        scores,
        what,
        "leave these rows out, or look for the layer whose output is NaN first with toumei.core.run",
        numbers,
    )


def warn_of_infinite(values: Sequence[Tensor], method: str, differentiates: bool) -> None:
    """Warns of contributions, each (T, N, ...), that are NaN or infinite.

    Raises:
        NonFiniteError: They are NaN, of a method that only hides parts of the inputs.
    """
    if not differentiates:
        for part in values:
            if part.isnan().any():
                what = "the scores of inputs with parts replaced by the baseline"
                check_finite(part.transpose(0, 1), what, "give a baseline that the network takes")
    rows = [infinite_rows(part.transpose(0, 1)) for part in values]
    if found := sorted({row for part in rows for row in part.tolist()}):
        warn(
            f"contributions of {method} are not finite in {len(found)} of "
            f"{counted(values[0].shape[1], 'row')}, {shown_rows(torch.tensor(found))}, although the scores "
            "are: the score or its gradient is NaN or infinite somewhere, as that of a square root at 0"
        )


def repeated_gap(problem: Problem, output: Tensor, largest: float = 0.0) -> float:
    """Returns how far the first score is from that in one more pass, after a warning if it is another one.

    A second pass is made only where the two differ, as by rounding in a batch of another size, and none where
    a network with a single row is known to say the same twice.

    Args:
        problem: The network and its inputs.
        output: (N, T) scores at the inputs.
        largest: The largest score that is known beside these, for what counts as rounding.
    """
    if _is_known(problem):
        return 0.0
    said, first = output[0].detach().cpu(), _first_scores(problem).to(output.dtype)
    if not repeat_gap(first, said):
        return 0.0
    gap = repeat_gap(first, _first_scores(problem).to(output.dtype))
    apart = float((first.double() - said.double()).abs().max())
    wide = apart > _TOGETHER * max(1e-3, largest, float(output.abs().max()))
    if gap or (wide and len(problem) == 1):
        gap = max(gap, apart)
        warn_of_gap(gap)
    elif wide:
        gap = apart
        warn(
            f"the score of the first row is another one when it passes alone, by {apart:.2g}: rows of a "
            f"batch depend on each other, as with batch statistics, random numbers or a counter in the "
            f"network; batch_size=1 keeps them apart"
        )
    return gap


def _is_known(problem: Problem) -> bool:
    """Whether a single row has the same score in each pass, by what the network is made of."""
    functions = any(callable(target) and not isinstance(target, Tensor) for target in problem.targets)
    if len(problem) > 1 or problem.preprocess is not None or functions:
        return False
    return always_repeats(problem.model)


@torch.no_grad()
def _first_scores(problem: Problem) -> Tensor:
    """The scores (T,) of the first row, in a pass of its inputs alone, or of all where it cannot be alone."""
    inner = problem if problem.layer is None else problem.of_inputs()
    try:
        rows = torch.zeros(1, dtype=torch.long)
        scores = inner.scores(take_rows(inner.tensors, rows), rows)
    except Exception:  # as in a network with a loss inside, whose targets are those of all rows
        if len(problem) == 1:
            raise
        scores = inner.scores(inner.tensors)
    return scores[0].cpu()
