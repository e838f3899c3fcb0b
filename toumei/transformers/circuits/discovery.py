"""Automatic circuit discovery: edges are cut one by one, from the logits back, where that changes little."""

from typing import Any

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.progress import tqdm
from ..model.hooked_model import HookedModel
from .alternatives import Ablation
from .circuit import Circuit
from .circuit_runs import CircuitValues
from .labels import LOGITS, place_of


@checked
def acdc(
    model: HookedModel,
    clean: Any,
    corrupt: Any,
    metric: Any,
    threshold: float,
    *,
    ablation: Ablation = "resample",
    batch_size: int | None = None,
    verbose: bool = False,
) -> Circuit:
    """Returns the circuit that is left when all edges are cut whose loss changes the metric by little.

    Conmy et al. 2023 (arXiv:2304.14997), algorithm 1: inputs are visited from the logits back to the first
    layer, and the writers that each one sees from the last to the first. An edge is cut for good if the
    metric, away from that of the clean run and towards that of the corrupt one, then changes by less than the
    threshold. Inputs of nodes from which no edge is left are cut without a run. That takes a pass for each
    edge: it is the slow reference for `attribution_graph`.

    Args:
        model: The model.
        clean: Prompts, all of the same number of tokens.
        corrupt: As many prompts of the same number of tokens.
        metric: As for `attribution_graph`. With `kl_to_clean()` the threshold is the rise of the divergence
            in nats, as in the paper.
        threshold: The largest change that does not count, in units of the metric.
        ablation: What replaces the contributions of edges that are cut; see `run_circuit`.
        batch_size: How many prompts run at once.
        verbose: Show progress.

    Returns:
        The circuit; its scores are by how much the metric changed when each edge was tried.

    Raises:
        ArgumentError: The threshold is not positive, numbers of tokens differ, the gap is near 0.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers import HookedModel, logit_difference
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
        >>> sorted(acdc(model, clean, corrupt, logit_difference(4, 5), 0.1).edges)
        ['a0.0->a1.0<k>', 'a1.0->logits', 'embed->a0.0<v>']
    """
    if not threshold > 0:
        raise ArgumentError(f"a threshold is positive, got {threshold}")
    with evaluating(model.model), torch.no_grad():
        runs = CircuitValues(model, clean, corrupt, metric, ablation, batch_size)
        wiring = runs.wiring
        kept, scores = (
            wiring.allowed.clone(),
            torch.full(wiring.allowed.shape, torch.nan, dtype=torch.float64),
        )
        sign = 1 if runs.problem.gap > 0 else -1
        now = runs.problem.values[0]
        with tqdm(total=int(kept.sum()), desc="discovery", unit="edge", disable=not verbose) as progress:
            for reader in reversed(range(len(wiring.readers))):
                writers = kept[reader].nonzero().flatten().tolist()
                if not _goes_on(wiring.readers[reader], wiring.writers, kept):
                    kept[reader] = False
                    writers = []
                for writer in reversed(writers):
                    kept[reader, writer] = False
                    value = runs.of(kept)
                    scores[reader, writer] = loss = sign * (now - value)
                    if loss < threshold:
                        now = value
                    else:
                        kept[reader, writer] = True
                progress.update(int(wiring.allowed[reader].sum()))
    return Circuit(
        kept=kept,
        allowed=wiring.allowed,
        scores=scores,
        writers=wiring.writers,
        readers=wiring.readers,
        found_by=f"ACDC, threshold {threshold:g}",
    )


def _goes_on(reader: str, writers: tuple[str, ...], kept: Tensor) -> bool:
    """Whether an edge is left from a node that an input belongs to."""
    if reader == LOGITS:
        return True
    return any(bool(kept[:, writers.index(label)].any()) for label in place_of(reader).writers)
