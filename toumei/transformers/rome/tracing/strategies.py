"""The strategies to compute a trace, from the fastest to the plainest, and the choice between them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ....core.hooks import hooked
from ....core.progress import tqdm
from ....core.targets import Edit
from ...model.blockwise import BlockwiseRunner, nearly_equal
from ...model.families import Anatomy
from .noise import Corruption
from .runs import LogitMetric, Plan, Run, last_logits, overwriting_edit, record
from .settings import STRATEGIES, Strategy, TraceSettings
from .sweep import LayerSweep

_TOKENS_AT_ONCE = 8192


@dataclass(frozen=True, kw_only=True)
class TraceInputs:
    """One prompt to trace, and everything that was computed for it in advance.

    Attributes:
        parts: Where the parts of the model are.
        ids: The prompt (1, T).
        subject: The range [first, end) of the subject's tokens.
        corruption: The noise.
        plan: Which states a cell restores.
        clean: The run without noise.
        clean_logits: The logits (1, tokens) of the clean run at the last position.
        metric: From logits (N, tokens) to values (N,).
        settings: Batch size and progress bar are read from these.
        leaks: Whether tokens mix after the restored modules of the last block.
    """

    parts: Anatomy
    ids: Tensor
    subject: tuple[int, int]
    corruption: Corruption
    plan: Plan
    clean: Run
    clean_logits: Tensor
    metric: LogitMetric
    settings: TraceSettings
    leaks: bool = False

    @property
    def samples(self) -> int:
        """The number of samples of noise."""
        return len(self.corruption.values)

    @property
    def groups(self) -> list[Corruption]:
        """The noise in groups of at most `batch_size` samples."""
        size = min(self.settings.batch_size or self.samples, self.samples)
        return [self.corruption.samples(start, start + size) for start in range(0, self.samples, size)]

    def layer_sweep(self, corruption: Corruption, runner: BlockwiseRunner, cached: bool) -> LayerSweep:
        """Returns the sweep over the layers for some of the samples."""
        return LayerSweep(
            parts=self.parts,
            runner=runner,
            ids=self.ids,
            corruption=corruption,
            plan=self.plan,
            cached=cached,
            leaks=self.leaks,
        )


def fastest_strategy(inputs: TraceInputs) -> Strategy:
    """Returns the fastest strategy that computes the same as the model; this is tried on the inputs."""
    return next((name for name in STRATEGIES if name == "plain" or _works(inputs, name)), "plain")


def leaks(inputs: TraceInputs) -> bool:
    """Returns whether the output of the last block's module at one token changes the logits at another.

    It does not in a transformer, where attention mixes tokens before that. It does where a feed-forward layer
    reads the preceding token, as in RWKV.
    """
    name = inputs.plan.modules(inputs.parts)[-1]

    def moved(output: Tensor) -> Tensor:
        view = output.contiguous().view(1, -1, inputs.parts.width)
        view[:, -2] = 1 - 2 * view[:, -2]
        return view.view(output.shape)

    with hooked(inputs.parts.model, edit={name: moved}):
        return not nearly_equal(last_logits(inputs.parts, inputs.ids), inputs.clean_logits)


def _works(inputs: TraceInputs, strategy: Strategy) -> bool:
    """Whether the blocks of the model can be called one by one with the rows of a strategy."""
    corruption = inputs.corruption.samples(0, 1)
    try:
        sweep = inputs.layer_sweep(corruption, BlockwiseRunner(inputs.parts), cached=strategy == "suffix")
        with hooked(inputs.parts.model, edit={inputs.parts.embedding: corruption.edit}):
            logits = last_logits(inputs.parts, inputs.ids)
        sweep.check(logits)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # the block of an unknown model may raise any error when it is called in this way
        return False
    return True


def swept_scores(inputs: TraceInputs, cached: bool) -> tuple[Tensor, float]:
    """Returns the mean metric over the samples of each cell (tokens, layers), and of the corrupted run."""
    length, layers = inputs.ids.shape[1], inputs.plan.layers
    sums, low = torch.zeros(length, layers, dtype=torch.float64), 0.0
    runner = BlockwiseRunner(inputs.parts)
    tokens = range(inputs.subject[0], length)
    total = len(inputs.groups) * len(tokens)
    with tqdm(total=total, desc="trace", disable=not inputs.settings.verbose, unit="token") as progress:
        for corruption in inputs.groups:
            sweep = inputs.layer_sweep(corruption, runner, cached)
            samples = len(corruption.values)
            corrupted = float(sweep.low(inputs.metric).double().sum())
            low, sums = (
                low + corrupted,
                sums + corrupted,
            )  # cells that are not computed equal the corrupted run
            for token in tokens:
                cells = _open_cells(inputs.plan, token == length - 1 or inputs.leaks)
                size = _cells_at_once(inputs, samples, length - token if cached else length)
                for start in range(0, len(cells), size):
                    chosen = cells[start : start + size]
                    measured = sweep.token(token, chosen, inputs.clean, inputs.metric)
                    sums[token, chosen] = sums[token, chosen] - corrupted + measured.double().sum(1).cpu()
                progress.update()
    scores = sums / inputs.samples
    if inputs.plan.kind == "hidden":  # only the last block's output at the last position reaches the head
        scores[-1, -1] = float(inputs.metric(inputs.clean_logits))
    return scores, low / inputs.samples


def _open_cells(plan: Plan, reaches: bool) -> list[int]:
    """The layers of the cells of one token that have to be computed.

    A change that begins in the last block reaches the answer only from the last token, or where tokens mix.
    For hidden states it is known even there: the output of the last block is the answer of the clean run.
    """
    end = plan.layers - 1
    if reaches and plan.kind != "hidden":
        return list(range(plan.layers))
    return [cell for cell in range(plan.layers) if plan.first(cell) < end]


def _cells_at_once(inputs: TraceInputs, samples: int, positions: int) -> int:
    rows = inputs.settings.batch_size or _TOKENS_AT_ONCE // positions
    return max(1, rows // samples)


def plain_scores(inputs: TraceInputs) -> tuple[Tensor, float]:
    """Returns the same as `swept_scores`, from one forward pass of the whole model for each cell."""
    parts, plan = inputs.parts, inputs.plan
    length = inputs.ids.shape[1]
    sums, low = torch.zeros(length, plan.layers, dtype=torch.float64), 0.0
    names = plan.modules(parts)
    total = len(inputs.groups) * sums.numel()
    with tqdm(total=total, desc="trace", disable=not inputs.settings.verbose, unit="cell") as progress:
        for corruption in inputs.groups:
            corrupted = record(parts, inputs.ids, names, corruption)
            low += _measured(inputs, corruption, {})
            for token in range(length):
                for cell in range(plan.layers):
                    edits = _edits(inputs, corrupted, token, cell, names)
                    sums[token, cell] += _measured(inputs, corruption, edits)
                    progress.update()
    return sums / inputs.samples, low / inputs.samples


def _measured(inputs: TraceInputs, corruption: Corruption, edits: dict[str, Edit]) -> float:
    rows = inputs.ids.expand(len(corruption.values), -1)
    with hooked(inputs.parts.model, edit={inputs.parts.embedding: corruption.edit, **edits}):
        return float(inputs.metric(last_logits(inputs.parts, rows)).double().sum())


def _edits(inputs: TraceInputs, corrupted: Run, token: int, cell: int, names: list[str]) -> dict[str, Edit]:
    """The edits of one cell: clean states are restored, severed modules keep their corrupted outputs."""
    plan, rows = inputs.plan, len(corrupted.blocks[0])
    every_row = torch.ones(rows, dtype=torch.bool, device=inputs.ids.device)
    values = corrupted.modules if plan.kind == "hidden" else inputs.clean.modules

    def put(states: Tensor) -> Callable[[Tensor], Tensor]:
        new = states[:, token].expand(rows, -1)
        return overwriting_edit(every_row.to(new.device), token, new, inputs.parts.width)

    edits = {names[layer]: put(values[layer]) for layer in range(plan.layers) if plan.touches(cell, layer)}
    restored = {
        inputs.parts.blocks[layer]: put(inputs.clean.blocks[layer])
        for layer in range(plan.layers)
        if plan.restores(cell, layer)
    }
    return {**edits, **restored}
