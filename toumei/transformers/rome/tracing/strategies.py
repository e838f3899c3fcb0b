"""The ways to compute a trace, from the fastest to the plainest, and the choice between them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from ....core.hooks import Edit, hooked
from ...model.blockwise import BlockwiseRunner, same
from ...model.families import Anatomy
from .noise import Corruption
from .runs import Measure, Plan, Run, last_logits, overwriting, record
from .sweep import Sweep

Method = Literal["suffix", "rows", "plain"]
METHODS: tuple[Method, ...] = ("suffix", "rows", "plain")
_TOKENS_AT_ONCE = 8192


@dataclass(frozen=True)
class Task:
    """One prompt to trace.

    Attributes:
        parts: Where the parts of the model are.
        ids: The prompt (1, T).
        subject: The range [first, end) of the subject's tokens.
        corruption: The noise.
        plan: Which states a cell restores.
        clean: The run without noise.
        clean_logits: Its logits behind the last token (1, tokens).
        measure: From logits (N, tokens) to values (N,).
        batch_size: How many rows are computed at once.
        verbose: Whether to show progress.
        leaks: Whether tokens meet behind the restored modules of the last block.
    """

    parts: Anatomy
    ids: Tensor
    subject: tuple[int, int]
    corruption: Corruption
    plan: Plan
    clean: Run
    clean_logits: Tensor
    measure: Measure
    batch_size: int | None
    verbose: bool
    leaks: bool = False

    @property
    def samples(self) -> int:
        """How many samples of noise there are."""
        return len(self.corruption.values)

    @property
    def groups(self) -> list[Corruption]:
        """The noise in groups of at most `batch_size` samples."""
        size = min(self.batch_size or self.samples, self.samples)
        return [self.corruption.samples(start, start + size) for start in range(0, self.samples, size)]


def fastest_method(task: Task) -> Method:
    """Returns the fastest method that computes for this model what the model computes, which is tried."""
    return next((method for method in METHODS if method == "plain" or _works(task, method)), "plain")


def leaks(task: Task) -> bool:
    """Returns whether what the last block's module says of one token reaches the answer at another.

    It does not in a transformer, where attention reads what was there before, but where a feed-forward layer
    looks at the token before, as in RWKV.
    """
    name = task.plan.modules(task.parts)[-1]

    def moved(output: Tensor) -> Tensor:
        view = output.contiguous().view(1, -1, task.parts.width)
        view[:, -2] = 1 - 2 * view[:, -2]
        return view.view(output.shape)

    with hooked(task.parts.model, edit={name: moved}):
        return not same(last_logits(task.parts, task.ids), task.clean_logits)


def _works(task: Task, method: Method) -> bool:
    """Whether the blocks of the model can be called one by one, with the rows that a method makes."""
    corruption = task.corruption.samples(0, 1)
    try:
        sweep = Sweep(
            task.parts,
            BlockwiseRunner(task.parts),
            task.ids,
            corruption,
            task.plan,
            cached=method == "suffix",
            leaks=task.leaks,
        )
        with hooked(task.parts.model, edit={task.parts.embedding: corruption.edit}):
            logits = last_logits(task.parts, task.ids)
        sweep.check(logits)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a foreign block may fail in any way when it is called in a way it does not know
        return False
    return True


def swept_scores(task: Task, cached: bool) -> tuple[Tensor, float]:
    """Returns the mean measure over the samples of each cell (tokens, layers), and of the corrupted run."""
    length, layers = task.ids.shape[1], task.plan.layers
    sums, low = torch.zeros(length, layers, dtype=torch.float64), 0.0
    skeleton = BlockwiseRunner(task.parts)
    first = task.subject[0]
    tokens = range(first, length)
    with tqdm(total=len(task.groups) * len(tokens), disable=not task.verbose, unit="token") as progress:
        for corruption in task.groups:
            sweep = Sweep(task.parts, skeleton, task.ids, corruption, task.plan, cached, task.leaks)
            samples = len(corruption.values)
            corrupted = float(sweep.low(task.measure).double().sum())
            low, sums = low + corrupted, sums + corrupted  # the cells that are not computed are as corrupted
            for token in tokens:
                cells = _open_cells(task.plan, token == length - 1 or task.leaks)
                size = _cells_at_once(task, samples, length - token if cached else length)
                for start in range(0, len(cells), size):
                    chosen = cells[start : start + size]
                    measured = sweep.token(token, chosen, task.clean, task.measure)
                    sums[token, chosen] = sums[token, chosen] - corrupted + measured.double().sum(1).cpu()
                progress.update()
    scores = sums / task.samples
    if task.plan.kind == "hidden":  # the last block's output at the last position is all that is read
        scores[-1, -1] = float(task.measure(task.clean_logits))
    return scores, low / task.samples


def _open_cells(plan: Plan, reaches: bool) -> list[int]:
    """The layers of the cells of one token that have to be computed.

    A change that begins in the last block need not reach the answer; and where its output is the answer, that
    is known.
    """
    end = plan.layers - 1
    if reaches and plan.kind != "hidden":
        return list(range(plan.layers))
    return [cell for cell in range(plan.layers) if plan.first(cell) < end]


def _cells_at_once(task: Task, samples: int, positions: int) -> int:
    rows = task.batch_size or _TOKENS_AT_ONCE // positions
    return max(1, rows // samples)


def plain_scores(task: Task) -> tuple[Tensor, float]:
    """Returns the same as `swept_scores`, from one forward pass of the whole model for each cell."""
    parts, plan = task.parts, task.plan
    length = task.ids.shape[1]
    sums, low = torch.zeros(length, plan.layers, dtype=torch.float64), 0.0
    names = plan.modules(parts)
    with tqdm(total=len(task.groups) * sums.numel(), disable=not task.verbose, unit="cell") as progress:
        for corruption in task.groups:
            corrupted = record(parts, task.ids, names, corruption)
            low += _measured(task, corruption, {})
            for token in range(length):
                for cell in range(plan.layers):
                    edits = _edits(task, corrupted, token, cell, names)
                    sums[token, cell] += _measured(task, corruption, edits)
                    progress.update()
    return sums / task.samples, low / task.samples


def _measured(task: Task, corruption: Corruption, edits: dict[str, Edit]) -> float:
    rows = task.ids.expand(len(corruption.values), -1)
    with hooked(task.parts.model, edit={task.parts.embedding: corruption.edit, **edits}):
        return float(task.measure(last_logits(task.parts, rows)).double().sum())


def _edits(task: Task, corrupted: Run, token: int, cell: int, names: list[str]) -> dict[str, Edit]:
    """The edits of one cell: clean states restored, severed modules kept corrupted."""
    plan, rows = task.plan, len(corrupted.blocks[0])
    everywhere = torch.ones(rows, dtype=torch.bool, device=task.ids.device)
    values = corrupted.modules if plan.kind == "hidden" else task.clean.modules

    def put(states: Tensor) -> Callable[[Tensor], Tensor]:
        new = states[:, token].expand(rows, -1)
        return overwriting(everywhere.to(new.device), token, new, task.parts.width)

    edits = {names[layer]: put(values[layer]) for layer in range(plan.layers) if plan.touches(cell, layer)}
    edits.update(
        {
            task.parts.blocks[layer]: put(task.clean.blocks[layer])
            for layer in range(plan.layers)
            if plan.restores(cell, layer)
        }
    )
    return edits
