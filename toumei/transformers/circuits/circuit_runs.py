"""Runs of a model with nothing but a circuit: all other edges are cut."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.checks import check_choice, checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.summaries import counted
from ..model.hooked_model import HookedModel
from ..patching.problems import SMALLEST, Problem, make_problem, paired_inputs
from .ablated_run import AblatedRun
from .alternatives import ABLATIONS, Ablation, Chunks
from .circuit import Circuit
from .wiring import Wiring


@checked
def run_circuit(
    model: HookedModel,
    circuit: Any,
    clean: Any,
    corrupt: Any,
    *,
    ablation: Ablation = "resample",
    batch_size: int | None = None,
) -> Tensor:
    """Returns the logits (prompts, tokens) at the last position of a model with the edges of a circuit only.

    What a node reads is the stream in which the contributions of all writers without an edge to it are
    replaced. A writer that is itself computed from replaced contributions hands on what it then writes.

    Args:
        model: The model.
        circuit: A `Circuit` of it.
        clean: Prompts, as texts or token ids, all of the same number of tokens.
        corrupt: As many prompts of the same number of tokens.
        ablation: What replaces a contribution: that of the corrupt prompt (``"resample"``), its mean over the
            corrupt prompts at each position (``"mean"``), or nothing (``"zero"``); biases of attention stay.
        batch_size: How many prompts run at once; by default as many as 256 MB of contributions allow.

    Raises:
        ArgumentError: Numbers of tokens differ, or the circuit is of another model.
        ArchitectureError: See `attribution_graph`.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers import HookedModel, logit_difference
        >>> from toumei.transformers.circuits import attribution_graph
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
        >>> graph = attribution_graph(model, clean, corrupt, logit_difference(4, 5), "exact")
        >>> run_circuit(model, graph.prune(edges=3), clean, corrupt).argmax(-1)
        tensor([4])
    """
    check_choice("ablation", ablation, ABLATIONS)
    wiring = Wiring(model)
    check_circuit(circuit, wiring)
    with evaluating(model.model), torch.no_grad():
        inputs = paired_inputs(model, clean, corrupt)
        chunks = Chunks(wiring, _without_metric(model, inputs), ablation, batch_size)
        return torch.cat([logits for _, logits in chunk_logits(chunks, circuit.kept)])


class CircuitValues:
    """The metric of a model that has some of its edges only.

    Args:
        model: The model.
        clean: Prompts.
        corrupt: As many prompts of the same number of tokens.
        metric: The metric.
        ablation: What replaces contributions.
        batch_size: How many prompts run at once, or None.

    Attributes:
        wiring: The nodes of the model.
        problem: The prompts and the metric.
    """

    def __init__(
        self,
        model: HookedModel,
        clean: Any,
        corrupt: Any,
        metric: Any,
        ablation: Ablation,
        batch_size: int | None,
    ) -> None:
        check_choice("ablation", ablation, ABLATIONS)
        self.wiring = Wiring(model)
        self.problem = make_problem(model, clean, corrupt, metric)
        self._chunks = Chunks(self.wiring, self.problem, ablation, batch_size)

    def empty(self) -> float:
        """Returns the mean metric without any edge.

        Raises:
            ArgumentError: It is that of the whole model.
        """
        full, empty = self.problem.values[0], self.of(torch.zeros_like(self.wiring.allowed))
        if abs(full - empty) <= SMALLEST * max(abs(full), abs(empty)):
            raise ArgumentError(
                f"the {self.problem.metric} is {full:.4g} with all edges and {empty:.4g} without any: a "
                f"share of so small a gap means nothing"
            )
        return empty

    def of(self, kept: Tensor) -> float:
        """Returns the mean metric with some edges, (readers, writers)."""
        found = [
            self._chunks.read(chosen)(logits).double().sum()
            for chosen, logits in chunk_logits(self._chunks, kept)
        ]
        return float(sum(found)) / self._chunks.texts


def chunk_logits(chunks: Chunks, kept: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yields some prompts and the logits (prompts, tokens) of a model that has some of its edges only."""
    cut = chunks.wiring.allowed & ~kept
    for chosen in chunks.slices():
        replaced = chunks.replaced(chosen)
        yield (
            chosen,
            AblatedRun(chunks.wiring, replaced, cut.to(replaced.device)).logits(chunks.clean(chosen)),
        )


def check_circuit(circuit: Any, wiring: Wiring) -> None:
    """Makes sure that something is a circuit of a model.

    Raises:
        ArgumentError: It is none, or that of another model.
    """
    if not isinstance(circuit, Circuit):
        raise ArgumentError(
            f"expected a Circuit, as prune() of an AttributionGraph returns, got {circuit!r:.80}"
        )
    check_nodes(circuit.writers, circuit.readers, wiring)


def check_nodes(writers: Sequence[str], readers: Sequence[str], wiring: Wiring) -> None:
    """Makes sure that nodes are those of a model.

    Raises:
        ArgumentError: They are those of another one.
    """
    if (tuple(writers), tuple(readers)) != (wiring.writers, wiring.readers):
        raise ArgumentError(
            f"the model has {counted(len(wiring.writers), 'node')} that write and "
            f"{counted(len(wiring.readers), 'input')}, the circuit {len(writers)} and {len(readers)}: it was "
            "found in another model"
        )


def _without_metric(model: HookedModel, inputs: list[dict[str, Any]]) -> Problem:
    main = next(one for one in inputs[0].values() if isinstance(one, Tensor))
    return Problem(
        model=model,
        clean=inputs[0],
        corrupt=inputs[1],
        read=lambda logits: logits[..., 0],
        metric="",
        values=(0.0, 0.0),
        unchanged=0,
        length=main.shape[1],
    )
