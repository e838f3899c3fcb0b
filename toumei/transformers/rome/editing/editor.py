"""Writes facts into a language model by low-rank changes of the down-projections of its MLPs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, SupportsIndex

import torch
from torch import nn

from ....core.activations import version_of
from ....core.checks import checked
from ....core.errors import ArgumentError, EditError
from ....core.linear_layers import projection_sizes
from ....core.threads import alone
from ....core.user_warnings import warn
from ...model.families import anatomy
from ...model.sampling import check_templates, sample_contexts, sample_continuations
from ..statistics.second_moments import IdentityMoment, KeyStatistics, SecondMoment
from ..tracing.tracer import CausalTracer
from .changes import layer_changes
from .edit import Edit
from .effect import EditEffect, measure_effects, warn_of_weak_effects
from .keys import check_unscaled
from .methods import find_method
from .requests import EditRequest, SubjectText, distinct, subject_text
from .settings import EditSettings, settings_for
from .value import FactTexts, check_complete, optimize_values

_HELD_TOKENS = 12


@dataclass(frozen=True)
class _Plan:
    """How facts are to be written.

    Attributes:
        method: Name of the method.
        layers: The layers to edit, None for those of the papers.
        hold: The subjects' other continuations whose predictions are held, or how many are sampled.
        settings: Fields of `EditSettings` that replace those of the papers.
        verbose: Whether progress is shown.
        warns: Whether a weak effect is warned of.
        partly: Whether an optimization that Ctrl-C ended is good enough.
    """

    method: str
    layers: Sequence[SupportsIndex] | None
    hold: int | Sequence[str]
    settings: dict[str, Any]
    verbose: bool
    warns: bool
    partly: bool = False


@checked
class RankOneEditor:
    """Makes edits of a causal language model: ROME, R-ROME, MEMIT, EMMET and AlphaEdit.

    Making an edit does not change the model; the edit is applied with `Edit.apply` or a ``with`` block. It is
    applied for one forward pass of the texts that it was made on, to measure `Edit.effects`.

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

        A warning says so if the model does not do that with the edit. In a layer that cannot reach the answer
        no step is taken, and the edit changes nothing. Ctrl-C ends the optimization, and the edit is made of
        what there is.

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
        return self._one(request, True, layer=layer, method=method, hold=hold, verbose=verbose, **settings)

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

        A warning says how many facts did not take. Ctrl-C ends it without an edit.

        Args:
            requests: The facts: `EditRequest`s, tuples (prompt, subject, target), or mappings or objects with
                prompt, subject and target.
            layers: The layers that share the change; by default the papers'.
            method: ``"memit"``, ``"emmet"`` or ``"alphaedit"``.
            hold: As in `edit`, for all subjects.
            verbose: Show progress.
            **settings: As in `edit`.

        Raises:
            ArgumentError: There are no facts, two facts contradict each other, the method takes one fact at a
                time, or the layers cannot reach the answer of a fact; and as in `edit`.
        """
        return self._many(
            requests, True, layers=layers, method=method, hold=hold, verbose=verbose, **settings
        )

    @checked
    def load(self, path: str | Path) -> Edit:
        """Returns a saved edit of this model, not applied; see `Edit.load`."""
        return Edit.load(path, self.model)

    def _one(
        self,
        request: EditRequest,
        warns: bool,
        *,
        layer: "SupportsIndex | Literal['trace'] | None" = None,
        method: str = "r-rome",
        hold: int | Sequence[str] = (),
        verbose: bool = False,
        **settings: Any,
    ) -> Edit:
        """Does what `edit` does, and warns of a weak effect only if it is told to."""
        if "layers" in settings:
            raise ArgumentError("an edit of one fact has one layer=...; edit_many has layers=[...]")
        if isinstance(layer, str) and layer == "trace":
            layer = self._traced_layer(request, verbose)
        layers = None if layer is None else [self.parts.check_layer(layer)]
        return self._edit([request], _Plan(method, layers, hold, settings, verbose, warns, partly=True))

    def _many(
        self,
        requests: Iterable[Any],
        warns: bool,
        *,
        layers: Sequence[SupportsIndex] | None = None,
        method: str = "memit",
        hold: int | Sequence[str] = (),
        verbose: bool = True,
        **settings: Any,
    ) -> Edit:
        """Does what `edit_many` does, and warns of weak effects only if it is told to."""
        wanted = distinct(requests)
        if not find_method(method).many and len(wanted) > 1:
            raise ArgumentError(
                f"{method!r} writes one fact at a time: apply edits one after the other, or take "
                f"'memit', 'emmet' or 'alphaedit'"
            )
        return self._edit(wanted, _Plan(method, layers, hold, settings, verbose, warns))

    @torch.inference_mode(False)  # tensors that are made in inference mode have no gradients
    def _edit(self, requests: list[EditRequest], plan: _Plan) -> Edit:
        method, settings = find_method(plan.method), self._settings(plan)
        moments = dict(zip(settings.layers, map(self._moment, settings.layers), strict=True))
        contexts = ("{}", *self._contexts(settings))
        facts = [self._fact_texts(request, contexts, plan.hold) for request in requests]
        with alone(self.parts.model):
            values = optimize_values(
                self.parts,
                settings.layers[-1],
                method.many,
                facts,
                settings,
                batch_size=self.batch_size,
                verbose=plan.verbose,
            )
            if not plan.partly:
                check_complete(facts, values, settings)
            texts = [(*fact.edits, *fact.holds) for fact in facts]
            changes = layer_changes(self.parts, method, texts, values, moments, settings, self.batch_size)
            edit = Edit(self.parts, plan.method, tuple(requests), changes, tuple(values))
            effects = self._effects(edit, facts)
        if plan.warns:
            warn_of_weak_effects(requests, effects, settings)
        return replace(edit, effects=effects)

    def _settings(self, plan: _Plan) -> EditSettings:
        """The settings of an edit, after checks of the layers and of the statistics."""
        method, parts = find_method(plan.method), self.parts
        layers = None if plan.layers is None else [parts.check_layer(layer) for layer in plan.layers]
        settings = settings_for(
            plan.method, parts.kind, parts.layers, layers, parts.vocabulary, **plan.settings
        )
        self._check_statistics()
        for layer in settings.layers:
            parts.down(layer)
            if method.many:
                check_unscaled(parts, layer)
        if len(settings.layers) > 1 and not method.many:
            raise ArgumentError(f"{plan.method!r} edits one layer, got {settings.layers}")
        return settings

    def _effects(self, edit: Edit, facts: Sequence[FactTexts]) -> tuple[EditEffect, ...]:
        """How far an edit came; nothing where the weights cannot be edited."""
        checked = self._weights == self._versions()
        try:
            with edit:
                return measure_effects(self.parts, self.tokenizer, facts, edit.values, self.batch_size)
        except EditError:
            return ()
        finally:
            if checked:  # the weights are as before, bit for bit
                self._weights = self._versions()

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
        warn(
            "the editor has no key statistics and uses the identity as the second moment of the keys: the "
            "edit works, but other facts change more; see collect_statistics"
        )
        sizes = projection_sizes(self.parts.module(self.parts.down(layer)))
        assert sizes is not None
        return IdentityMoment(sizes[0])

    def _check_statistics(self) -> None:
        """Checks that the statistics belong to the weights, if a weight has changed since the last check."""
        if self.statistics is None:
            return
        weights = self._versions()
        if weights != self._weights:
            self.statistics.check(self.parts.model)
            self._weights = weights

    def _versions(self) -> list[tuple[int, int]]:
        """Which tensors hold the weights, and how often each was written to."""
        tensors = self.parts.model.state_dict(keep_vars=True).values()
        return [(id(tensor), version_of(tensor)) for tensor in tensors]

    def _traced_layer(self, request: EditRequest, verbose: bool) -> int:
        """The layer with the largest effect of a window of MLPs at the subject's last token.

        Raises:
            ArgumentError: There are no statistics of this layer.
        """
        window = max(1, self.parts.layers // 5)  # the paper's 10 of GPT-2 XL's 48
        tracer = CausalTracer(self.model, self.tokenizer)
        layer = tracer.trace(
            request.prompt, request.subject, kind="mlp", window=window, seed=self.seed, verbose=verbose
        ).best_layer
        if self.statistics is not None and layer not in self.statistics.moments:
            raise ArgumentError(
                f"the trace finds layer {layer}, which has no statistics; there are those of layers "
                f"{list(self.statistics.moments)}: collect those of all layers, or give layer="
            )
        return layer
