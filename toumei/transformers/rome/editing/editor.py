"""Writing facts into a language model by small changes of its MLPs' down-projections."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, SupportsIndex

import torch
from torch import nn

from ....core.errors import ArgumentError
from ...model.discovery import projection_sizes
from ...model.families import anatomy
from ...model.sampling import check_contexts, sampled, sampled_contexts
from ..statistics.second_moments import Identity, KeyStatistics, SecondMoment
from ..weight_edits import registry as applied
from ..weight_edits.low_rank import LowRank
from .edit import Edit
from .keys import check_straight, read_keys, read_states
from .methods import Method, find_method
from .requests import Request, Row, row
from .settings import Settings, settings_for
from .value import Problem, Value, optimize_values

_HELD_TOKENS = 12


class RankOneEditor:
    """Makes edits of a causal language model: ROME, R-ROME, MEMIT, EMMET and AlphaEdit.

    Making an edit leaves the model as it is; the edit says when it is applied.

    Args:
        model: A Hugging Face causal language model, on any devices, in any floating-point precision.
        tokenizer: Its tokenizer, a fast one.
        statistics: Second moments of the keys of the layers to edit, from `collect_statistics`. Without them
            the identity is used, and other facts are disturbed more.
        contexts: Templates such as ``"And then. {}"`` that a subject is read in beside the bare prompt. By
            default some are sampled from the model.
        seed: For all that is sampled.
        batch_size: How many texts are run at once.

    Raises:
        ArchitectureError: The parts of the model cannot be found.
        ArgumentError: The statistics belong to other weights, or a context has no ``{}``.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers.rome.statistics.collect import collect_statistics
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
        self._given = None if contexts is None else check_contexts(contexts)
        self._sampled: dict[Any, tuple[str, ...]] = {}
        if batch_size < 1:
            raise ArgumentError(f"batch_size is a number from 1 on, got {batch_size}")
        self._weights: list[tuple[int, int]] = []
        if statistics is not None and not isinstance(statistics, KeyStatistics):
            raise ArgumentError(f"expected the result of collect_statistics, got {type(statistics).__name__}")
        self._check_statistics()

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
            subject: Whom or what the fact is about.
            target: What is to be said; a space in front is put where words need one.
            layer: Which layer to edit, from 0; ``"trace"`` takes the one whose MLP a causal trace finds to
                matter most. By default the layers that the papers edit in this model.
            method: ``"rome"``, ``"r-rome"``, ``"memit"``, ``"emmet"`` or ``"alphaedit"``.
            hold: The subject's other continuations that are held while the value is optimized: templates such
                as ``"{} works as a"``, or how many to sample from the model. The subject's key is averaged
                over them too.
            verbose: Show progress.
            **settings: Fields of `Settings` that are to differ from the papers'.

        Raises:
            ArgumentError: Something cannot be understood: a template without ``{}``, a layer out of range, a
                setting or method that does not exist, or statistics that lack the layer.
            ArchitectureError: The layer has no single down-projection.
            NonFiniteError: The optimization or the closed form broke down.
        """
        request = Request(prompt, subject, target)
        if "layers" in settings:
            raise ArgumentError("an edit of one fact has one layer=...; edit_many has layers=[...]")
        if layer == "trace":
            layer = self._traced_layer(request, verbose)
        layers = None if layer is None else [self.parts.check_layer(layer)]
        return self._edit([request], method, layers, hold, verbose, settings)

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
            requests: The facts: `Request`s, tuples (prompt, subject, target), or mappings or objects with
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
        known: dict[tuple[str, str], Request] = {}
        for request in map(Request.of, requests):
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

    @torch.inference_mode(False)  # what is made in inference mode has no gradients
    def _edit(
        self,
        requests: list[Request],
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
                check_straight(self.parts, layer)
        if len(settings.layers) > 1 and not method.many:
            raise ArgumentError(f"{name!r} edits one layer, got {settings.layers}")
        moments = {layer: self._moment(layer) for layer in settings.layers}
        contexts = ("{}", *self._contexts(settings))
        problems = [self._problem(request, contexts, hold) for request in requests]
        values = optimize_values(
            self.parts,
            settings.layers[-1],
            method.many,
            problems,
            settings,
            batch_size=self.batch_size,
            verbose=verbose,
        )
        texts = [(*problem.edits, *problem.holds) for problem in problems]
        if method.many:
            changes = self._spread(method, texts, values, moments, settings)
        else:
            changes = {settings.layers[0]: self._single(method, texts, values[0], moments, settings)}
        return Edit(self.parts, name, tuple(requests), changes, tuple(values))

    def _single(
        self,
        method: Method,
        texts: Sequence[Sequence[Row]],
        value: Value,
        moments: dict[int, SecondMoment],
        settings: Settings,
    ) -> LowRank:
        """The change of one layer that adds to the value of one key what was added in every context."""
        layer = settings.layers[0]
        keys = read_keys(self.parts, layer, texts, 1 / len(texts[0]), self.batch_size)
        return _thin(method.update(keys, value.delta.double()[None], moments[layer], settings))

    def _spread(
        self,
        method: Method,
        texts: Sequence[Sequence[Row]],
        values: Sequence[Value],
        moments: dict[int, SecondMoment],
        settings: Settings,
    ) -> dict[int, LowRank]:
        """The changes of all layers: each takes its share of what is still missing behind the last one."""
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
                    applied.apply({self._down(layer): changes[layer]}, owners[layer])
        finally:
            for layer, owner in owners.items():
                if applied.carries(self._down(layer), owner):
                    applied.remove({self._down(layer): changes[layer]}, owner)
        return changes

    def _down(self, layer: int) -> nn.Module:
        return self.parts.module(self.parts.down(layer))

    def _problem(self, request: Request, contexts: Sequence[str], hold: int | Sequence[str]) -> Problem:
        edits = [
            row(self.tokenizer, context.replace("{}", request.prompt), request.subject, request.target)
            for context in contexts
        ]
        templates = self._held(request.subject, hold) if isinstance(hold, int) else check_contexts(hold)
        problem = Problem(
            request.text,
            tuple(edits),
            row(self.tokenizer, "{} is a", request.subject),
            tuple(row(self.tokenizer, template, request.subject) for template in templates),
        )
        longest = max(problem.rows, key=lambda text: len(text.ids))
        self.parts.check_length(len(longest.ids), self.tokenizer.decode(longest.ids))
        return problem

    def _held(self, subject: str, count: int) -> list[str]:
        """Templates that go on as the model itself goes on after the subject."""
        if count < 0:
            raise ArgumentError(f"hold is how many continuations, from 0 on, or templates, got {count}")
        if not count:
            return []
        texts = sampled(self.parts, self.tokenizer, subject, count, _HELD_TOKENS, top_k=20, seed=self.seed)
        return [f"{{}} {text.replace('{', ' ').replace('}', ' ')}" for text in texts]

    def _contexts(self, settings: Settings) -> tuple[str, ...]:
        if self._given is not None:
            return self._given
        if settings.prefixes not in self._sampled:
            self._sampled[settings.prefixes] = sampled_contexts(
                self.parts, self.tokenizer, settings.prefixes, self.seed
            )
        return self._sampled[settings.prefixes]

    def _moment(self, layer: int) -> SecondMoment:
        if self.statistics is not None:
            return self.statistics[layer]
        warnings.warn(
            "the editor has no key statistics and takes the identity for the second moment of the keys: the "
            "edit itself works, but other facts are disturbed more; see collect_statistics",
            stacklevel=4,
        )
        sizes = projection_sizes(self._down(layer))
        assert sizes is not None
        return Identity(sizes[0])

    def _check_statistics(self) -> None:
        """Makes sure, whenever a weight was written into since the last time, that the statistics fit."""
        if self.statistics is None:
            return
        weights = [(id(own), own._version) for own in self.model.state_dict(keep_vars=True).values()]
        if weights != self._weights:
            self.statistics.check(self.model)
            self._weights = weights

    def _traced_layer(self, request: Request, verbose: bool) -> int:
        """The layer around which the MLPs matter most at the subject's last token."""
        from ..tracing.tracer import CausalTracer

        window = max(1, self.parts.layers // 5)  # the paper's 10 of GPT-2 XL's 48
        tracer = CausalTracer(self.model, self.tokenizer)
        return tracer.trace(
            request.prompt, request.subject, kind="mlp", window=window, seed=self.seed, verbose=verbose
        ).best_layer


def _thin(change: LowRank) -> LowRank:
    """The change as it is kept: in float32 on the CPU."""
    return LowRank(*(None if tensor is None else tensor.float().cpu() for tensor in vars(change).values()))  # type: ignore
