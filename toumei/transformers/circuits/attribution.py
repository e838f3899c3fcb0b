"""Which edges between the parts of a transformer carry a behaviour: attribution graphs."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ...core.checks import check_choice, check_counts, check_gradients_on, checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.seeding import make_generator
from ..model.hooked_model import HookedModel
from ..patching.problems import DIRECTIONS, Direction, make_problem, paired_inputs
from .alternatives import ABLATIONS, Ablation, Chunks, prompts_at_once
from .attribution_result import AttributionGraph
from .edge_names import edge_mask
from .edge_scores import GradientScores, patched_scores, scores_of_a_batch
from .recorded_run import Inputs
from .wiring import Wiring

Method = Literal["eap", "eap-ig", "exact"]
METHODS: tuple[Method, ...] = get_args(Method)


@checked
def attribution_graph(
    model: HookedModel,
    clean: Any,
    corrupt: Any,
    metric: Any,
    method: Method = "eap-ig",
    *,
    steps: int = 10,
    ablation: Ablation = "resample",
    direction: Direction = "noising",
    edges: Iterable[str] | None = None,
    sample: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    verbose: bool = False,
) -> AttributionGraph:
    """Returns the score of each edge of a model: how much the metric owes to a writer through one reader.

    The residual stream is a sum of what embeddings, heads and MLPs write; each input of a head, each MLP and
    the logits read it. An edge is what one of them adds to what another one reads. Where heads share keys and
    values, they have one reader of keys and one of values. With z the contribution of a writer u, clean and
    replaced, a what a reader v reads before its norm, and m the metric:

    - ``"eap"``, edge attribution patching (Syed et al. 2023, arXiv:2310.10348): (z_clean - z_replaced) dm/da,
      summed over positions, for all edges from two passes and a gradient. The gradient is that of the clean
      run for noising, of the corrupt run for denoising.
    - ``"eap-ig"`` (Hanna et al. 2024, arXiv:2403.17806): the gradient is the mean over runs whose embeddings
      go from the replaced ones to the clean ones, at the middles of equal steps.
    - ``"exact"``: each edge is patched in a run. Noising gives m(clean) - m(patched), denoising m(patched) -
      m(corrupt), so that all methods have the same sign.

    Args:
        model: The model.
        clean: Prompts, as texts or token ids, all of the same number of tokens.
        corrupt: As many prompts of the same number of tokens.
        metric: A `Metric`, such as `logit_difference(answers, wrong)`, or a function from logits (prompts,
            tokens) at the last position to a number for each prompt.
        method: See above.
        steps: Of integrated gradients. Hanna et al. take 5 to 30.
        ablation: What replaces a contribution: that of the corrupt prompt (``"resample"``), its mean over the
            corrupt prompts at each position (``"mean"``), or nothing (``"zero"``).
        direction: ``"noising"`` or ``"denoising"``; the latter with ``"resample"`` only. Integrated gradients
            have no direction.
        edges: Which edges are patched by ``"exact"``, as names such as ``"a0.1->m2"``; all by default.
        sample: How many of them are drawn and patched; all by default.
        seed: Draws them.
        batch_size: How many pairs of prompts run at once, for patches how many prompts times edges. By
            default as many as 256 MB of contributions allow, or as keep the device busy.
        verbose: Show progress.

    Raises:
        ArgumentError: Numbers of tokens differ, the gap of the metric is near 0, there is no such method,
            ablation or edge.
        ArchitectureError: The stream of the model is no sum of embeddings, heads and MLPs, or it is not known
            how its heads read it; the message says why.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers import HookedModel, logit_difference
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
        >>> graph = attribution_graph(model, clean, corrupt, logit_difference(4, 5), "exact")
        >>> sorted(graph.prune(threshold=0.1).edges)
        ['a0.0->a1.0<k>', 'a1.0->logits', 'embed->a0.0<v>']
    """
    check_counts(1, steps=steps, sample=sample)
    _check_choices(method, ablation, direction)
    if method != "exact" and (edges is not None or sample is not None):
        raise ArgumentError(f"{method!r} scores all edges at once: edges and sample are of 'exact'")
    if method != "exact":
        check_gradients_on()
    wiring = Wiring(model)
    allowed = wiring.allowed
    chosen = allowed if edges is None else edge_mask(edges, wiring.writers, wiring.readers, allowed)
    with evaluating(model.model):
        inputs = paired_inputs(model, clean, corrupt)
        error: float | None = None
        if (method, ablation, direction) == ("eap", "resample", "noising") and _fits(
            wiring, inputs, batch_size
        ):
            problem, scores = scores_of_a_batch(wiring, inputs, metric)
        else:
            with torch.no_grad():
                problem = make_problem(model, clean, corrupt, metric)
            chunks = Chunks(wiring, problem, ablation, batch_size)
            if method == "exact":
                places = _drawn([(one[0], one[1]) for one in chosen.nonzero().tolist()], sample, seed)
                scores = patched_scores(chunks, direction, places, batch_size, verbose)
            else:
                found = GradientScores(chunks, direction, steps if method == "eap-ig" else None, verbose)
                scores = found.scores
                if method == "eap-ig":
                    error = float(scores[:, : len(wiring.embeddings)].sum()) - found.way
    path = method == "eap-ig"
    run = "clean" if direction == "noising" else "corrupt"
    return AttributionGraph(
        scores=scores.masked_fill(~allowed, torch.nan),
        allowed=allowed,
        writers=wiring.writers,
        readers=wiring.readers,
        method=method,
        ablation=ablation,
        direction="path" if path else direction,
        gradient_at={"eap": run, "eap-ig": "path", "exact": ""}[method],
        metric=problem.metric,
        clean=problem.values[0],
        corrupt=problem.values[1],
        completeness_error=error,
    )


def _fits(wiring: Wiring, inputs: Sequence[Inputs], batch_size: int | None) -> bool:
    """Whether all prompts run at once."""
    texts = len(next(one for one in inputs[0].values() if isinstance(one, Tensor)))
    return prompts_at_once(wiring, inputs[0], batch_size) == texts


def _check_choices(method: str, ablation: str, direction: str) -> None:
    check_choice("method", method, METHODS)
    check_choice("ablation", ablation, ABLATIONS)
    check_choice("direction", direction, DIRECTIONS)
    if direction == "denoising" and (method == "eap-ig" or ablation != "resample"):
        why = (
            "integrated gradients go from one run to the other and have no direction"
            if method == "eap-ig"
            else f"denoising puts clean contributions into the corrupt run, and {ablation!r} has no such run"
        )
        raise ArgumentError(f"direction is 'noising' here, got 'denoising': {why}")


def _drawn(edges: list[tuple[int, int]], sample: int | None, seed: int) -> list[tuple[int, int]]:
    """Some of the edges."""
    if sample is None or sample >= len(edges):
        return edges
    order = torch.randperm(len(edges), generator=make_generator(seed)).tolist()
    return [edges[place] for place in order[:sample]]
