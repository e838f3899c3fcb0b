"""Path patching: what the answer loses when one part's effect on others goes through single paths only."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ...core.checks import check_choice, check_counts, checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.progress import tqdm
from ..model.activation_cache import ActivationCache
from ..model.blockwise import BlockwiseRunner, nearly_equal
from ..model.hooked_model import HookedModel
from .base_run import BaseRun
from .changes import Change, Replacement
from .patching_result import PatchingResult
from .path_sweep import PathSweep
from .problems import DIRECTIONS, Direction, Problem, axes_of, layers_with, make_problem, recorded
from .sweep import read_logits, repeated, rows_at_once

Input = Literal["q", "k", "v"]
Receiver = tuple[int, int, str]
Senders = Literal["heads", "mlps"]
Mlps = Literal["free", "frozen"]
_WHAT = {"heads": "z", "mlps": "mlp_out"}


@checked
def path_patching(
    model: HookedModel,
    clean: Any,
    corrupt: Any,
    metric: Any,
    receivers: Any = "logits",
    *,
    senders: Senders = "heads",
    mlps: Mlps = "frozen",
    direction: Direction = "noising",
    batch_size: int | None = None,
    verbose: bool = False,
) -> PatchingResult:
    """Returns the effect of each head or MLP on the metric through paths to some receivers only.

    Wang et al. 2022 (arXiv:2211.00593), appendix B: in a first run the sender has its output of the other
    run, while all other heads, and with ``mlps="frozen"`` all MLPs, keep theirs; the inputs of the receivers
    are recorded. In a second run only these inputs are replaced. Paths to ``"logits"`` end in the first run.

    Args:
        model: The model.
        clean: Prompts, as texts or token ids.
        corrupt: Prompts of the same number of tokens.
        metric: As for `activation_patching`.
        receivers: ``"logits"``, or the inputs of heads: (layer, head, ``"q"``), (layer, head, ``"k"``) and
            (layer, head, ``"v"``). Keys and values are counted by the heads of keys, which queries share.
        senders: ``"heads"`` or ``"mlps"``; each is a sender once.
        mlps: Whether MLPs on the way keep their outputs (``"frozen"``: paths go through the residual stream
            alone) or compute anew (``"free"``: paths go through MLPs, too).
        direction: ``"noising"``: the clean run, the sender's output from the corrupt run; or ``"denoising"``.
        batch_size: How many prompts times senders run at once; by default as many as keep the device busy.
        verbose: Show progress.

    Raises:
        ArgumentError: There is no such receiver, numbers of tokens differ, or the gap is near 0.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers.patching import logit_difference
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
        >>> paths = path_patching(model, clean, corrupt, logit_difference(4, 5), [(1, 0, "k")])
        >>> paths.top(1)
        (('0.0', 1.0),)
    """
    check_choice("senders", senders, _WHAT)
    check_choice("mlps", mlps, ("free", "frozen"))
    check_choice("direction", direction, DIRECTIONS)
    check_counts(1, batch_size=batch_size)
    inputs = _receivers(model, receivers)
    with torch.no_grad(), evaluating(model.model):
        problem = make_problem(model, clean, corrupt, metric)
        paths = _Paths(problem, inputs, senders, mlps, direction)
        return paths.result(batch_size, verbose)


class _Paths:
    """The paths from all senders to some receivers; none for the logits."""

    def __init__(
        self,
        problem: Problem,
        receivers: Sequence[Receiver],
        senders: Senders,
        mlps: Mlps,
        direction: Direction,
    ) -> None:
        self._problem, self._receivers, self._direction = problem, receivers, direction
        self._model, self._what = problem.model, _WHAT[senders]
        self._layers = layers_with(self._model, self._what)
        self._source = recorded(problem, problem.source(direction), self._what, self._layers)
        frozen = ["z", *(["mlp_out"] if mlps == "frozen" and self._has_mlps() else [])]
        frozen += [self._what] if self._what not in frozen else []
        self._frozen: dict[str, ActivationCache] = {}
        for what in frozen:
            layers = layers_with(self._model, what)
            self._frozen[what] = recorded(problem, problem.base(direction), what, layers)
        self._free_mlps = "mlp_out" in self._frozen and mlps == "free"
        self._sweep: PathSweep | None = None

    def _has_mlps(self) -> bool:
        return any(name.endswith("hook_mlp_out") for name in self._model.points.points)

    def result(self, batch_size: int | None, verbose: bool) -> PatchingResult:
        """Runs all senders."""
        problem = self._problem
        heads = [
            self._source[self._what, layer].shape[2] if self._what == "z" else 1 for layer in self._layers
        ]
        raw = torch.full((len(self._layers), max(heads)), torch.nan, dtype=torch.float64)
        base = problem.values[1] if self._direction == "denoising" else problem.values[0]
        last = max((layer for layer, _, _ in self._receivers), default=self._layers[-1] + 1)
        senders = []
        for place, (layer, count) in enumerate(zip(self._layers, heads, strict=True)):
            raw[place, :count] = base  # a sender after all receivers has no path to them
            if layer < last:
                senders += [Change(layer, unit=head if self._what == "z" else None) for head in range(count)]
        texts = next(iter(self._source.values()))
        if senders:
            self._prepare(senders)
        size = rows_at_once(texts, problem.length - self._start, batch_size)
        with tqdm(total=len(senders), desc="paths", unit="sender", disable=not verbose) as progress:
            for start in range(0, len(senders), size):
                chosen = senders[start : start + size]
                found = self._plain if self._sweep is None else self._sweep.logits
                for sender, value in zip(
                    chosen, problem.read(found(chosen)).double().mean(1).tolist(), strict=True
                ):
                    raw[self._layers.index(sender.layer), sender.unit or 0] = value
                progress.update(len(chosen))
        raw = raw if self._what == "z" else raw[:, 0]
        return self._as_result(raw)

    def _as_result(self, raw: Tensor) -> PatchingResult:
        problem = self._problem
        ends = ", ".join(f"{layer}.{head} {kind}" for layer, head, kind in self._receivers) or "logits"
        return PatchingResult(
            values=problem.normalized(raw, self._direction),
            raw=raw,
            clean=problem.values[0],
            corrupt=problem.values[1],
            metric=problem.metric,
            what=f"{self._what} to {ends}",
            axes=("layer", "head") if self._what == "z" else ("layer",),
            direction=self._direction,
            layer_names=tuple(map(str, self._layers)),
            tokens=problem.tokens(),
        )

    @property
    def _start(self) -> int:
        """The first position that runs."""
        return 0 if self._sweep is None else self._sweep.start

    def _prepare(self, senders: Sequence[Change]) -> None:
        """Finds out, by the first and last sender, whether the blocks can be called one by one."""
        tried = list(dict.fromkeys([senders[0], senders[-1]]))
        expected: Tensor | None = None
        for cached in (True, False):
            try:
                sweep = self._make_sweep(cached)
                expected = self._plain(tried) if expected is None else expected
                if nearly_equal(sweep.logits(tried), expected):
                    self._sweep = sweep
                    return
            except torch.OutOfMemoryError:
                raise
            except Exception:  # the block of an unknown model may raise any error when it is called alone
                continue

    def _make_sweep(self, cached: bool) -> PathSweep:
        parts = self._model.parts
        ids = self._problem.base(self._direction)["input_ids"]
        values = {layer: self._source[self._what, layer] for layer in self._layers}
        free = ("mlp_out",) if self._free_mlps else ()
        return PathSweep(
            BaseRun(parts, BlockwiseRunner(parts), ids, cached),
            self._model.points,
            Replacement(self._what, values, axes_of(self._model, self._what, self._layers[0])),
            {what: cache for what, cache in self._frozen.items() if what not in free},
            self._receivers,
            min(self._problem.unchanged, self._problem.length - 1),
        )

    def _plain(self, senders: Sequence[Change]) -> Tensor:
        """The logits (senders, texts, tokens) from two passes of the whole model with all senders as rows."""
        rows = len(senders)
        inputs = repeated(self._problem.base(self._direction), rows)
        seen: dict[tuple[int, str], Tensor] = {}
        edits: dict[Any, Callable[..., Any]] = {}
        for layer, _, kind in self._receivers:
            edits[kind, layer] = _noting(seen, (layer, kind))
        first = min(sender.layer for sender in senders)
        for what, cache in self._frozen.items():
            for layer in layers_with(self._model, what):
                if layer >= first:
                    edits[what, layer] = self._freezing(what, layer, cache[what, layer], senders)
        with self._model.edit(edits):
            logits = read_logits(self._model, inputs, last=True)[:, 0]
        if self._receivers:
            with self._model.edit(self._replacing(seen)):
                logits = read_logits(self._model, inputs, last=True)[:, 0]
        result: Tensor = logits.unflatten(0, (rows, -1))
        return result

    def _freezing(
        self, what: str, layer: int, base: Tensor, senders: Sequence[Change]
    ) -> Callable[[Tensor], Tensor]:
        """Keeps an activation as it is in the base run, but for the senders."""
        free = what == "mlp_out" and self._free_mlps

        def freeze(tensor: Tensor) -> Tensor:
            value = tensor if free else base.repeat(len(senders), *[1] * (base.dim() - 1))
            by_row = value.unflatten(0, (len(senders), -1))
            for row, sender in zip(by_row, senders, strict=True):
                if sender.layer == layer and what == self._what:
                    new = self._source[what, layer]
                    if sender.unit is None:
                        row.copy_(new)
                    else:
                        row[:, :, sender.unit] = new[:, :, sender.unit]
            return value

        return freeze

    def _replacing(self, seen: dict[tuple[int, str], Tensor]) -> dict[Any, Callable[..., Any]]:
        """Gives the receivers the inputs of the first run."""
        heads: dict[tuple[int, str], list[int]] = {}
        for layer, head, kind in self._receivers:
            heads.setdefault((layer, kind), []).append(head)

        def replacing(place: tuple[int, str]) -> Callable[[Tensor], None]:
            def replace(tensor: Tensor) -> None:
                tensor[:, :, heads[place]] = seen[place][:, :, heads[place]]

            return replace

        return {(kind, layer): replacing((layer, kind)) for layer, kind in heads}


def _noting(seen: dict[tuple[int, str], Tensor], place: tuple[int, str]) -> Callable[[Tensor], None]:
    def note(tensor: Tensor) -> None:
        seen[place] = tensor.clone()

    return note


def _receivers(model: HookedModel, receivers: Any) -> list[Receiver]:
    """The receivers, which the model has; none for the logits."""
    if isinstance(receivers, str) and receivers == "logits":
        return []
    listed = [receivers] if isinstance(receivers, tuple) and len(receivers) == 3 else receivers
    expected = 'expected "logits" or a list of (layer, head, "q"), (layer, head, "k"), (layer, head, "v")'
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise ArgumentError(f"{expected}, got {receivers!r}")
    found: list[Receiver] = []
    for one in listed:
        if not isinstance(one, Sequence) or len(one) != 3 or str(one[2]) not in ("q", "k", "v"):
            raise ArgumentError(f"{expected}, got {one!r}")
        layer, head, kind = one
        attention = model.points.attentions.get(layer) if isinstance(layer, int) else None
        if attention is None:
            raise ArgumentError(f"layers with attention are {sorted(model.points.attentions)}, got {layer!r}")
        count = attention.num_heads if kind == "q" else attention.num_key_value_heads
        if not isinstance(head, int) or not 0 <= head < count:
            raise ArgumentError(f"{kind!r} of layer {layer} has the heads 0 to {count - 1}, got {head!r}")
        found.append((layer, head, kind))
    return found
