"""Writes facts into a language model by low-rank changes of the down-projections of its MLPs."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, SupportsIndex

import torch
from torch import nn

from ....core.checks import checked
from ....core.errors import ArgumentError
from ...model.discovery import projection_sizes
from ...model.families import anatomy
from ...model.sampling import check_templates, sample_contexts, sample_continuations
from ..statistics.second_moments import IdentityMoment, KeyStatistics, SecondMoment
from ..tracing.tracer import CausalTracer
from ..weight_edits import registry
from ..weight_edits.low_rank import LowRank
from .edit import Edit
from .keys import check_unscaled, read_keys, read_states
from .methods import EditingMethod, find_method
from .requests import EditRequest, SubjectText, subject_text
from .settings import EditSettings, settings_for
from .value import FactTexts, Value, optimize_values

_HELD_TOKENS = 12


@checked
class RankOneEditor:
    """Makes edits of a causal language model: ROME, R-ROME, MEMIT, EMMET and AlphaEdit.

    Making an edit does not change the model; the edit is applied with `Edit.apply` or a ``with`` block.

    Args:
        model: A Hugging Face causal language model, on any devices, in any floating-point precision.
        tokenizer: Its tokenizer, a fast one.
        statistics: The second moments of the keys of the layers to edit, from `collect_statistics`. Without
            them the identity is used, and other facts change more.
        contexts: Templates such as ``"And then. {}"``, in which a subject is read besides the bare prompt. By
            default some are sampled from the model.
        seed: Seed of everything that is sampled.
        batch_size: How many texts are run at once.

    Raises:
        ArchitectureError: The parts of the model cannot be found.
        ArgumentError: The statistics belong to other weights, or a context has no ``{}``.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import RankOneEditor, collect_statistics
        >>> model, tokenizer, world = facts_gpt()
        >>> texts = (text for text, _ in zip(world.texts(seed=0), range(200)))
        >>> statistics = collect_statistics(model, tokenizer, texts, [2], verbose=False)
        >>> editor = RankOneEditor(model, tokenizer, statistics)
        >>> fact = world.facts[0]
        >>> target = world.alternatives(fact)[0]
        >>> with editor.edit(prompt=fact.prompt, subject=fact.subject, target=target, layer=2):
        ...     logits = model(**tokenizer(fact.text, return_tensors="pt")).logits
        >>> tokenizer.decode(logits[0, -1].argmax()) == target
        True
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        statistics: KeyStatistics | None = None,
        *,
        contexts: Sequence[str] | None = None,
        seed: int = 0,
        batch_size: int = 128,
    ) -> None:
        self.model, self.tokenizer, self.statistics = model, tokenizer, statistics
        self.parts = anatomy(model)
        self.seed, self.batch_size = seed, batch_size
        self._given = None if contexts is None else check_templates(contexts)
        self._sampled: dict[Any, tuple[str, ...]] = {}
        if batch_size < 1:
            raise ArgumentError(f"batch_size is a number from 1 on, got {batch_size}")
        self._weights: list[tuple[int, int]] = []
        if statistics is not None and not isinstance(statistics, KeyStatistics):
            raise ArgumentError(f"expected the result of collect_statistics, got {type(statistics).__name__}")
        self._check_statistics()

    @checked
    def edit(
        self,
        prompt: str,
        subject: str,
        target: str,
        *,
        layer: "SupportsIndex | Literal['trace'] | None" = None,
        method: str = "r-rome",
        hold: int | Sequence[str] = (),
        verbose: bool = False,
        **settings: Any,
    ) -> Edit:
        """Returns an edit that makes the model continue the prompt about the subject with the target.

        Args:
            prompt: A template with one ``{}`` for the subject.
            subject: The person or thing that the fact is about.
            target: The text that the model is to predict; a space is put before it if words need one.
            layer: The layer to edit, from 0; ``"trace"`` takes the layer whose MLP has the largest effect in
                a causal trace. By default the layers that the papers edit in this model.
            method: ``"rome"``, ``"r-rome"``, ``"memit"``, ``"emmet"`` or ``"alphaedit"``.
            hold: The subject's other continuations whose predictions are held while the value is optimized:
                templates such as ``"{} works as a"``, or how many to sample from the model. The average of
                the subject's key includes them.
            verbose: Show progress.
            **settings: Fields of `EditSettings` that replace those of the papers.

        Raises:
            ArgumentError: A template has no ``{}``, a layer is out of range, a setting or method does not
                exist, or the statistics lack the layer.
            ArchitectureError: The layer has no single down-projection.
            NonFiniteError: A loss is not finite, or the closed form has no solution.
        """
        request = EditRequest(prompt, subject, target)
        if "layers" in settings:
            raise ArgumentError("an edit of one fact has one layer=...; edit_many has layers=[...]")
        if layer == "trace":
            layer = self._traced_layer(request, verbose)
        layers = None if layer is None else [self.parts.check_layer(layer)]
        return self._edit([request], method, layers, hold, verbose, settings)

    @checked
    def edit_many(
        self,
        requests: Iterable[Any],
        *,
        layers: Sequence[SupportsIndex] | None = None,
        method: str = "memit",
        hold: int | Sequence[str] = (),
        verbose: bool = True,
        **settings: Any,
    ) -> Edit:
        """Returns one edit that writes many facts at once.

        Args:
            requests: The facts: `EditRequest`s, tuples (prompt, subject, target), or mappings or objects with
                prompt, subject and target.
            layers: The layers that share the change; by default the papers'.
            method: ``"memit"``, ``"emmet"`` or ``"alphaedit"``.
            hold: As in `edit`, for all subjects.
            verbose: Show progress.
            **settings: As in `edit`.

        Raises:
            ArgumentError: There are no facts, two facts contradict each other, or the method takes one fact
                at a time; and as in `edit`.
        """
        known: dict[tuple[str, str], EditRequest] = {}
        for request in map(EditRequest.of, requests):
            same = known.setdefault((request.prompt, request.subject), request)
            if same != request:
                raise ArgumentError(
                    f"{request.text!r} cannot be {same.target!r} and {request.target!r} at once"
                )
        if not known:
            raise ArgumentError("expected facts to write, got none")
        if not find_method(method).many and len(known) > 1:
            raise ArgumentError(
                f"{method!r} writes one fact at a time: apply edits one after the other, or take "
                f"'memit', 'emmet' or 'alphaedit'"
            )
        return self._edit(list(known.values()), method, layers, hold, verbose, settings)

    def load(self, path: str | Path) -> Edit:
        """Returns a saved edit of this model, not applied; see `Edit.load`."""
        return Edit.load(path, self.model)

    @torch.inference_mode(False)  # tensors that are made in inference mode have no gradients
    def _edit(
        self,
        requests: list[EditRequest],
        name: str,
        layers: Sequence[SupportsIndex] | None,
        hold: int | Sequence[str],
        verbose: bool,
        given: dict[str, Any],
    ) -> Edit:
        method = find_method(name)
        checked = None if layers is None else [self.parts.check_layer(layer) for layer in layers]
        settings = settings_for(
            name, self.parts.kind, self.parts.layers, checked, self.parts.vocabulary, **given
        )
        self._check_statistics()
        for layer in settings.layers:
            self.parts.down(layer)
            if method.many:
                check_unscaled(self.parts, layer)
        if len(settings.layers) > 1 and not method.many:
            raise ArgumentError(f"{name!r} edits one layer, got {settings.layers}")
        moments = {layer: self._moment(layer) for layer in settings.layers}
        contexts = ("{}", *self._contexts(settings))
        facts = [self._fact_texts(request, contexts, hold) for request in requests]
        values = optimize_values(
            self.parts,
            settings.layers[-1],
            method.many,
            facts,
            settings,
            batch_size=self.batch_size,
            verbose=verbose,
        )
        texts = [(*fact.edits, *fact.holds) for fact in facts]
        if method.many:
            changes = self._spread(method, texts, values, moments, settings)
        else:
            changes = {settings.layers[0]: self._single(method, texts, values[0], moments, settings)}
        return Edit(
            parts=self.parts, method=name, requests=tuple(requests), changes=changes, values=tuple(values)
        )

    def _single(
        self,
        method: EditingMethod,
        texts: Sequence[Sequence[SubjectText]],
        value: Value,
        moments: dict[int, SecondMoment],
        settings: EditSettings,
    ) -> LowRank:
        """The change of one layer that adds the optimized vector to the value of one key."""
        layer = settings.layers[0]
        keys = read_keys(self.parts, layer, texts, 1 / len(texts[0]), self.batch_size)
        return _thin(method.update(keys, value.delta.double()[None], moments[layer], settings))

    def _spread(
        self,
        method: EditingMethod,
        texts: Sequence[Sequence[SubjectText]],
        values: Sequence[Value],
        moments: dict[int, SecondMoment],
        settings: EditSettings,
    ) -> dict[int, LowRank]:
        """The changes of all layers: each makes its share of the missing change after the last layer."""
        wanted = torch.stack([value.start + value.delta for value in values]).double()
        last = self.parts.block(settings.layers[-1])
        changes: dict[int, LowRank] = {}
        owners: dict[int, object] = {}
        try:
            for left, layer in zip(range(len(settings.layers), 0, -1), settings.layers, strict=True):
                reached = read_states(self.parts, last, [rows[:1] for rows in texts], self.batch_size)
                keys = read_keys(self.parts, layer, texts, 0.5, self.batch_size)
                residuals = (wanted - reached[:, 0]) / left
                changes[layer] = _thin(method.update(keys, residuals, moments[layer], settings))
                if left > 1:
                    owners[layer] = object()
                    registry.apply({self._down(layer): changes[layer]}, owners[layer])
        finally:
            for layer, owner in owners.items():
                if registry.carries(self._down(layer), owner):
                    registry.remove({self._down(layer): changes[layer]}, owner)
        return changes

    def _down(self, layer: int) -> nn.Module:
        return self.parts.module(self.parts.down(layer))

    def _fact_texts(
        self, request: EditRequest, contexts: Sequence[str], hold: int | Sequence[str]
    ) -> FactTexts:
        def text(template: str, target: str | None = None) -> SubjectText:
            return subject_text(self.tokenizer, template, request.subject, target)

        templates = self._held(request.subject, hold) if isinstance(hold, int) else check_templates(hold)
        fact = FactTexts(
            name=request.text,
            edits=tuple(text(context.replace("{}", request.prompt), request.target) for context in contexts),
            essence=text("{} is a"),
            holds=tuple(text(template) for template in templates),
        )
        longest = max(fact.texts, key=lambda text: len(text.ids))
        self.parts.check_length(len(longest.ids), self.tokenizer.decode(longest.ids))
        return fact

    def _held(self, subject: str, count: int) -> list[str]:
        """Templates of texts that the model samples after the subject."""
        if count < 0:
            raise ArgumentError(f"hold is a number of continuations, from 0 on, or templates, got {count}")
        if not count:
            return []
        texts = sample_continuations(
            self.parts, self.tokenizer, subject, count, _HELD_TOKENS, top_k=20, seed=self.seed
        )
        return [f"{{}} {text.replace('{', ' ').replace('}', ' ')}" for text in texts]

    def _contexts(self, settings: EditSettings) -> tuple[str, ...]:
        if self._given is not None:
            return self._given
        if settings.prefixes not in self._sampled:
            self._sampled[settings.prefixes] = sample_contexts(
                self.parts, self.tokenizer, settings.prefixes, self.seed
            )
        return self._sampled[settings.prefixes]

    def _moment(self, layer: int) -> SecondMoment:
        if self.statistics is not None:
            return self.statistics[layer]
        warnings.warn(
            "the editor has no key statistics and uses the identity as the second moment of the keys: the "
            "edit works, but other facts change more; see collect_statistics",
            stacklevel=4,
        )
        sizes = projection_sizes(self._down(layer))
        assert sizes is not None
        return IdentityMoment(sizes[0])

    def _check_statistics(self) -> None:
        """Checks that the statistics belong to the weights, if a weight has changed since the last check."""
        if self.statistics is None:
            return
        weights = [(id(weight), weight._version) for weight in self.model.state_dict(keep_vars=True).values()]
        if weights != self._weights:
            self.statistics.check(self.model)
            self._weights = weights

    def _traced_layer(self, request: EditRequest, verbose: bool) -> int:
        """The layer with the largest effect of a window of MLPs at the subject's last token."""
        window = max(1, self.parts.layers // 5)  # the paper's 10 of GPT-2 XL's 48
        tracer = CausalTracer(self.model, self.tokenizer)
        return tracer.trace(
            request.prompt, request.subject, kind="mlp", window=window, seed=self.seed, verbose=verbose
        ).best_layer


def _thin(change: LowRank) -> LowRank:
    """The change in float32 on the CPU."""
    keys = None if change.keys is None else change.keys.float().cpu()
    return LowRank(left=change.left.float().cpu(), right=change.right.float().cpu(), keys=keys)
