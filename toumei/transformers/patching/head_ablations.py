"""What ablating each attention head costs: in next-token loss, or in a metric."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...core.checks import check_choice, check_counts, check_no_nan, checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.parallel import sweep
from ...core.products import onednn_products
from ...core.progress import tqdm
from ...core.summaries import counted
from ..model.causality import check_next_token_logits
from ..model.hooked_model import HookedModel
from .ablation_edits import KINDS, Kind
from .ablation_table import HeadAblation
from .changes import Change, Replacement
from .metrics import Metric, as_metric
from .sweep import PatchedRuns, Read, read_logits

_TOKENS = 1024  # of a group of texts that run together
_LOGITS = 2**26
_LOSSES = 2**20  # logits at once on a CPU: what the loss writes of more has to come from the system each time
_Z_AXES = ("batch", "position", "head", "width")


@checked
def head_ablation(
    model: HookedModel,
    texts: Any,
    kind: Kind = "zero",
    *,
    metric: Any = None,
    reference: Any = None,
    pooled: bool = True,
    layers: Sequence[int] | None = None,
    confidence: float = 0.95,
    batch_size: int | None = None,
    jobs: int = 1,
    verbose: bool = False,
) -> HeadAblation:
    """Returns how much the mean next-token loss of texts rises, or a metric falls, when a head is ablated.

    The output ``z`` of a head is ablated before its output map, whose bias stays. Blocks below a head are not
    run again, the attention of its block is computed once, and the heads of many layers run as one batch (see
    `toumei.transformers.patching.sweep`); the numbers are those of one edited pass for each head.

    Args:
        model: A causal language model.
        texts: Texts, or token ids.
        kind: What a head's output becomes: ``"zero"``; ``"mean"``, its mean over a reference set;
            ``"resample"``, its output at the same position of the next text.
        metric: As for `activation_patching`, at the last position of texts of one length; by default
            the mean next-token loss of each text is measured.
        reference: Texts for the mean; by default `texts`.
        pooled: The mean is over all positions; otherwise each position has its mean, for templates.
        layers: The layers whose heads are ablated; all by default.
        confidence: Of the intervals over texts.
        batch_size: How many texts times heads run at once; by default as many as keep the device busy.
        jobs: How many groups of texts of about the same length run at once, in processes or on a cluster; see
            `toumei.core.sweep`. Any number gives the same result.
        verbose: Show progress.

    Raises:
        ArgumentError: There is no text with two tokens, or texts of several lengths where positions are
            compared.
        ArchitectureError: The model is no causal language model.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> network = InductionTransformer()
        >>> result = head_ablation(HookedModel(network), network.sequences(4, 8))
        >>> [name for name, difference in result.top(4) if difference]
        ['0.0', '1.0']
    """
    check_choice("kind", kind, KINDS)
    check_counts(1, batch_size=batch_size)
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence is between 0 and 1, got {confidence}")
    metric = None if metric is None else as_metric(metric)
    rows = _rows(model, texts)
    with torch.no_grad(), evaluating(model.model):
        if metric is None:
            _check_causal(model, rows)
        elif len({len(row) for row in rows}) > 1:
            raise ArgumentError(f"a metric needs texts of one length, got lengths {_lengths(rows)}")
        chosen = _layers(model, layers)
        heads = {layer: model.points.attentions[layer].num_heads for layer in chosen}
        task = _GroupTask(
            model=model,
            rows=rows,
            metric=metric,
            layers=chosen,
            heads=heads,
            values=_values(model, rows, kind, reference, pooled, chosen),
            batch_size=batch_size,
        )
        groups = list(_groups(model, rows)) if metric is None else [list(range(len(rows)))]
        before, table = _measured(task, groups, jobs, verbose)
    rise = table - before[:, None, None]
    return HeadAblation(
        kind=kind,
        measure="loss" if metric is None else metric.name,
        by_text=rise if metric is None else -rise,
        before=before,
        confidence=confidence,
        layer_names=tuple(map(str, chosen)),
    )


@dataclass(frozen=True)
class _GroupTask:
    """The function of a sweep over groups of texts.

    Attributes:
        model: The model.
        rows: The tokens of each text.
        metric: What is measured, None for the loss.
        layers: The layers whose heads are ablated.
        heads: How many heads each has.
        values: What their outputs become, None where each text has another one.
        batch_size: As for `head_ablation`.
    """

    model: HookedModel
    rows: list[list[int]]
    metric: Metric | None
    layers: list[int]
    heads: dict[int, int]
    values: dict[int, Tensor] | None
    batch_size: int | None

    @property
    def changes(self) -> list[Change]:
        """The heads."""
        return [Change(layer, unit=head) for layer in self.layers for head in range(self.heads[layer])]

    def __call__(
        self, group: list[int], advance: Callable[[int], object] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the measure of some texts (texts,), and without each head (texts, layers, heads)."""
        with torch.no_grad(), onednn_products():
            return self._run(group, advance)

    def _run(self, group: list[int], advance: Callable[[int], object] | None) -> tuple[Tensor, Tensor]:
        model, rows, metric = self.model, self.rows, self.metric
        texts = [rows[index] for index in group]
        # The last token is only predicted: without it the loss is the same, and so are the other positions.
        inputs = model.inputs([row[:-1] for row in texts] if metric is None else texts)
        logits = read_logits(model, inputs)
        read = _Loss(model, texts) if metric is None else _last(metric, model, inputs, logits)
        first = 0 if metric is None else logits.shape[1] - 1
        before = read(logits[None, :, first:])[0]
        new = self.values or _outputs(model, [rows[index - 1] for index in group], self.layers)
        runs = PatchedRuns(
            model, inputs, Replacement("z", new, _Z_AXES), first=first, batch_size=self.batch_size
        )
        shape = len(group), len(self.layers), max(self.heads.values())
        table = torch.full(shape, torch.nan, dtype=torch.float64)
        for done, found in runs.values(self.changes, read):
            for change, row in zip(done, found, strict=True):
                assert change.unit is not None
                table[:, self.layers.index(change.layer), change.unit] = row
            if advance is not None:
                advance(len(done) * len(group))
        return before.double(), table


def _measured(
    task: _GroupTask, groups: Sequence[list[int]], jobs: int, verbose: bool
) -> tuple[Tensor, Tensor]:
    """The measure of each text and that without each head, in the order of the texts."""
    found = (
        _one_by_one(task, groups, verbose) if jobs == 1 else sweep(task, groups, jobs=jobs, verbose=verbose)
    )
    order = torch.tensor([index for group in groups for index in group]).argsort()
    before, table = (torch.cat(parts)[order] for parts in zip(*found, strict=True))
    check_no_nan("the measure of the whole model", before)
    return before, table


def _one_by_one(task: _GroupTask, groups: Sequence[list[int]], verbose: bool) -> list[tuple[Tensor, Tensor]]:
    """The results of groups, with a bar that counts heads of texts: there may be few groups."""
    total = len(task.changes) * sum(map(len, groups))
    with tqdm(total=total, desc="ablation", unit="head", disable=not verbose) as progress:
        return [task(group, progress.update) for group in groups]


def _last(metric: Metric, model: HookedModel, inputs: dict[str, Any], logits: Tensor) -> Read:
    """Reads a metric, from logits (rows, texts, 1, tokens)."""
    read = metric.reading(model, inputs["input_ids"], logits[:, -1])
    return lambda given: read(given[:, :, -1]).double().cpu()


class _Loss:
    """Reads the mean loss of each text, from logits (rows, texts, positions, tokens) of all but the last."""

    def __init__(self, model: HookedModel, texts: list[list[int]]) -> None:
        inputs = model.inputs([row[1:] for row in texts])
        self._targets = inputs["input_ids"]
        self._valid = inputs.get("attention_mask", torch.ones_like(self._targets)).bool()

    def __call__(self, logits: Tensor) -> Tensor:
        targets = self._targets.expand(logits.shape[:-1]).to(logits.device)
        size = max(1, _LOSSES // logits.shape[-1]) if logits.device.type == "cpu" else targets.numel()
        pairs = zip(logits.flatten(0, -2).split(size), targets.flatten().split(size), strict=True)
        losses = torch.cat([cross_entropy(some.float(), wanted, reduction="none") for some, wanted in pairs])
        losses = losses.unflatten(0, targets.shape).double() * self._valid.to(logits.device)
        result: Tensor = (losses.sum(-1) / self._valid.sum(-1).to(logits.device)).cpu()
        return result


def _rows(model: HookedModel, texts: Any) -> list[list[int]]:
    """The tokens of each text, without padding."""
    inputs = model.inputs(texts)
    if "input_ids" not in inputs:
        raise ArgumentError("head_ablation needs texts or token ids")
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    rows = [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]
    short = next((row for row in rows if len(row) < 2), None)
    if short is not None:
        raise ArgumentError(f"a text of {len(short)} token has no next one to predict: give two or more")
    return rows


def _lengths(rows: list[list[int]]) -> list[int]:
    return sorted({len(row) for row in rows})


def _check_causal(model: HookedModel, rows: list[list[int]]) -> None:
    """Raises an error for a model whose heads see the tokens that come next."""
    ids = torch.tensor([rows[0][:2]])
    with onednn_products():
        check_next_token_logits(type(model.model).__name__, lambda ids: model(ids.tolist()), ids)


def _layers(model: HookedModel, layers: Sequence[int] | None) -> list[int]:
    known = sorted(model.points.attentions)
    if layers is None:
        return known
    wrong = [one for one in layers if one not in known]
    if wrong or not layers:
        raise ArgumentError(f"layers with attention are {known}, got {list(layers)}")
    return sorted(set(layers))


def _groups(model: HookedModel, rows: list[list[int]]) -> Iterator[list[int]]:
    """Texts of about the same length that run together, by their place."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    vocabulary = getattr(getattr(model.model, "config", None), "vocab_size", 1)
    most = min(_TOKENS, _LOGITS // vocabulary)
    while order:
        fitting = (n for n in range(len(order), 1, -1) if n * len(rows[order[n - 1]]) <= most)
        count = next(fitting, 1)
        yield order[:count]
        order = order[count:]


def _values(
    model: HookedModel, rows: list[list[int]], kind: Kind, reference: Any, pooled: bool, layers: list[int]
) -> dict[int, Tensor] | None:
    """What the outputs of heads become, by layer; None where each text has another one."""
    if kind == "zero":
        return {layer: torch.zeros(1, 1, 1, 1) for layer in layers}
    if kind == "resample":
        if len({len(row) for row in rows}) > 1 or len(rows) < 2:
            raise ArgumentError(
                f"resampling takes the same position of another text: expected several texts of one length, "
                f"got lengths {_lengths(rows)}"
            )
        return None
    longest = max(map(len, rows))
    rows = rows if reference is None else _rows(model, reference)
    if not pooled and len({len(row) for row in rows}) > 1:
        raise ArgumentError("means of single positions need texts of one length: give pooled=True")
    if not pooled and len(rows[0]) < longest:
        raise ArgumentError(
            "means of single positions need reference texts as long as the texts, "
            f"{counted(longest, 'token')}, got {len(rows[0])}: give pooled=True"
        )
    sums: dict[int, Tensor] = {}
    for group in _groups(model, rows):
        inputs = model.inputs([rows[index] for index in group])
        mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
        _, cache = model.run_with_cache(inputs, [("z", layer) for layer in layers])
        for layer in layers:
            z = cache["z", layer].double() * mask[..., None, None].to(cache["z", layer].device)
            total = z.sum((0, 1) if pooled else 0, keepdim=True)
            sums[layer] = sums.get(layer, torch.zeros_like(total)) + total
    count = sum(map(len, rows)) if pooled else len(rows)
    return {layer: (total / count).float() for layer, total in sums.items()}


def _outputs(model: HookedModel, rows: list[list[int]], layers: list[int]) -> dict[int, Tensor]:
    """The outputs of heads for texts, by layer."""
    _, cache = model.run_with_cache(model.inputs(rows), [("z", layer) for layer in layers])
    return {layer: cache["z", layer] for layer in layers}
