"""Scores of all edges from gradients, and of single edges by patching them."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.progress import tqdm
from ..patching.problems import Direction, Problem, problem_of
from ..patching.sweep import rows_at_once
from .ablated_run import AblatedRun
from .alternatives import Chunks
from .recorded_run import Inputs, RecordedRun
from .wiring import Wiring

Edge = tuple[int, int]  # numbers of reader and writer


class GradientScores:
    """The score of each edge: the change of what the writer adds, times a gradient at what the reader reads.

    The change is clean minus replaced, the gradient that of the metric before the reader's norm; the product
    is summed over positions.

    Args:
        chunks: The prompts.
        direction: Gradients are those of the clean run for noising, of the corrupt one for denoising.
        steps: Of integrated gradients: the mean of the gradients at the middles of so many parts of the way
            from the replaced embeddings to the clean ones. None for the gradient of one run.
        verbose: Show progress.

    Attributes:
        scores: The mean over the prompts, (readers, writers), float64 on the CPU.
        way: The metric with clean embeddings minus that with the replaced ones; integrated gradients only.
    """

    def __init__(self, chunks: Chunks, direction: Direction, steps: int | None, verbose: bool) -> None:
        self._chunks, self._wiring, self._direction = chunks, chunks.wiring, direction
        shape = len(self._wiring.readers), len(self._wiring.writers)
        self.scores, self.way = torch.zeros(shape, dtype=torch.float64), 0.0
        total = chunks.texts * (steps or 1)
        with tqdm(total=total, desc="edges", unit="gradient", disable=not verbose) as self._progress:
            for chosen in chunks.slices():
                if steps is None:
                    self._add_gradient(chosen)
                else:
                    self._add_path(chosen, steps)
        self.scores /= chunks.texts
        self.way /= chunks.texts

    def _add_gradient(self, chosen: slice) -> None:
        """The gradient of one run."""
        chunks = self._chunks
        if self._direction == "noising":
            clean = run = self._run(chosen, chunks.clean(chosen))
            replaced = chunks.replaced(chosen)
        else:
            run = self._run(chosen, chunks.corrupt(chosen))
            replaced = run.written()
            with torch.no_grad():
                clean = RecordedRun(self._wiring, chunks.clean(chosen))
        self._add(clean.written() - replaced, run, 1.0)

    def _add_path(self, chosen: slice, steps: int) -> None:
        """The gradients of runs whose embeddings lie between the replaced ones and the clean ones."""
        inputs, embeddings = self._chunks.clean(chosen), len(self._wiring.embeddings)
        with torch.no_grad():
            clean = RecordedRun(self._wiring, inputs)
        replaced = self._chunks.replaced(chosen)
        changes = clean.written() - replaced
        start, way = replaced[:embeddings].sum(0), changes[:embeddings].sum(0)
        start = start.expand_as(way)
        for step in range(steps):
            run = self._run(chosen, inputs, start + (step + 0.5) / steps * way)
            self._add(changes, run, 1 / steps)
        with torch.no_grad():
            ends = [clean, RecordedRun(self._wiring, inputs, start=start)]
        values = [float(self._chunks.read(chosen)(one.logits).double().sum()) for one in ends]
        self.way += values[0] - values[1]

    def _run(self, chosen: slice, inputs: dict[str, Tensor], start: Tensor | None = None) -> RecordedRun:
        read = self._chunks.read(chosen)
        return RecordedRun(self._wiring, inputs, lambda logits: read(logits).sum(), start)

    def _add(self, changes: Tensor, run: RecordedRun, weight: float) -> None:
        """Adds the products of all changes and gradients."""
        self.scores += weight * _products(self._wiring, changes, run)
        self._progress.update(changes.shape[1])


def scores_of_a_batch(wiring: Wiring, inputs: Sequence[Inputs], metric: Any) -> tuple[Problem, Tensor]:
    """Returns the problem and the score of each edge for noising, when all prompts run at once.

    Two passes and a gradient are all that runs: the metric is made of the logits of these passes.

    Args:
        wiring: The nodes of the model.
        inputs: The inputs of the clean and of the corrupt prompts.
        metric: The metric.
    """
    problems: list[Problem] = []
    with torch.no_grad():
        corrupt = RecordedRun(wiring, inputs[1])

    def total(logits: Tensor) -> Tensor:
        problems.append(problem_of(wiring.model, inputs, [logits.detach(), corrupt.logits], metric))
        return problems[0].read(logits).sum()

    clean = RecordedRun(wiring, inputs[0], total)
    scores = _products(wiring, clean.written() - corrupt.written(), clean)
    return problems[0], scores / len(clean.logits)


def _products(wiring: Wiring, changes: Tensor, run: RecordedRun) -> Tensor:
    """The products of all changes and gradients, (readers, writers) in float64 on the CPU."""
    rows = []
    for stage, gradients in run.gradients():
        products = gradients.flatten(1) @ changes[: stage.sees].flatten(1).T
        rows.append(torch.nn.functional.pad(products, (0, len(wiring.writers) - stage.sees)))
    return torch.cat(rows).double().cpu()


def patched_scores(
    chunks: Chunks, direction: Direction, edges: Sequence[Edge], batch_size: int | None, verbose: bool
) -> Tensor:
    """Returns the effect of each edge on the metric when it alone is patched, NaN for others.

    Noising replaces the writer's contribution in the clean run and gives by how much the metric falls.
    Denoising puts the clean contribution into the corrupt run and gives by how much it rises.

    Args:
        chunks: The prompts.
        direction: See above.
        edges: Which edges.
        batch_size: How many prompts times edges run at once; by default as many as keep the device busy.
        verbose: Show progress.
    """
    wiring = chunks.wiring
    shape = len(wiring.readers), len(wiring.writers)
    scores = torch.full(shape, torch.nan, dtype=torch.float64)
    ordered = sorted(edges)  # edges into one part of the model come together, so that others run as they are
    total = {edge: 0.0 for edge in ordered}
    count = len(ordered) * chunks.texts
    with tqdm(total=count, desc="edges", unit="run", disable=not verbose) as progress:
        for chosen in chunks.slices():
            for rows, values in _patched(chunks, direction, ordered, chosen, batch_size):
                for edge, value in zip(rows, values, strict=True):
                    total[edge] += value
                progress.update(len(rows) * (chosen.stop - chosen.start))
    sign = -1 if direction == "noising" else 1
    base = chunks.problem.values[0 if direction == "noising" else 1]
    for (reader, writer), value in total.items():
        scores[reader, writer] = sign * (value / chunks.texts - base)
    return scores


def _patched(
    chunks: Chunks, direction: Direction, edges: Sequence[Edge], chosen: slice, batch_size: int | None
) -> Iterator[tuple[Sequence[Edge], list[float]]]:
    """Some edges and the sum of the metric over some prompts when each of them is patched."""
    wiring, read = chunks.wiring, chunks.read(chosen)
    if direction == "noising":
        inputs, replaced = chunks.clean(chosen), chunks.replaced(chosen)
    else:
        inputs = chunks.corrupt(chosen)
        with torch.no_grad():
            replaced = RecordedRun(wiring, chunks.clean(chosen)).written()
    main = next(one for one in inputs.values() if isinstance(one, Tensor))
    size = rows_at_once(main, chunks.problem.length, batch_size)
    for start in range(0, len(edges), size):
        rows = edges[start : start + size]
        cut = torch.zeros(len(rows), len(wiring.readers), len(wiring.writers), dtype=torch.bool)
        for row, (reader, writer) in zip(cut, rows, strict=True):
            row[reader, writer] = True
        logits = AblatedRun(wiring, replaced, cut.to(main.device)).logits(inputs)
        values = read(logits.unflatten(0, (len(rows), -1)))
        yield rows, values.double().sum(1).tolist()
