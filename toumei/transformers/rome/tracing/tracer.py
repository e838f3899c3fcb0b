"""Causal tracing: which hidden states carry a fact from a subject to the answer (Meng et al., 2022).

Noise corrupts the embeddings of the subject, so the model loses the fact. Then single states of the clean run
are restored. The probability of the answer shows how much of the fact each state carries.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from ....core.checks import checked
from ....core.content import content_of_model
from ....core.errors import ArgumentError
from ....core.modules import evaluating
from ....core.parallel import sweep
from ....core.summaries import counted
from ...model.families import anatomy
from ...model.tokens import Tokens, as_prompt, continuation, fill_subject, subject_range, tokenize
from .averages import AverageEffects, by_role
from .facts import FactPrompt, read_facts
from .noise import EmbeddingNoise, draw_noise, embedding_std
from .result import CausalTrace
from .runs import LogitMetric, Plan, last_logits, record
from .settings import Kind, Severed, Strategy, TraceSettings
from .strategies import TraceInputs, fastest_strategy, leaks, plain_scores, swept_scores


@checked
class CausalTracer:
    """Traces facts through a causal language model (Meng et al., 2022, https://arxiv.org/abs/2202.05262).

    Args:
        model: A Hugging Face causal language model, in any precision and on any devices. It is left bit for
            bit as it is.
        tokenizer: Its tokenizer.

    Raises:
        ArchitectureError: The parts of the model cannot be found.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
        >>> words = Tokenizer(models.WordLevel({"?": 0, "Ann": 1, "lives": 2, "in": 3, "Rome": 4}, "?"))
        >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=5, n_embd=8, n_layer=3, n_head=2))
        >>> trace = CausalTracer(model, tokenizer).trace("Ann lives in", "Ann", answer="Rome")
        >>> trace.scores.shape, trace.tokens
        (torch.Size([3, 3]), ('Ann', 'lives', 'in'))
    """

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.parts = anatomy(model)
        self._strategy: Strategy | None = None
        self._known_leaks: dict[str, bool] = {}

    @checked
    def trace(
        self,
        prompt: str | Sequence[int] | Tensor | Mapping[str, Any],
        subject: str,
        samples: int = 10,
        noise: float | EmbeddingNoise = 3.0,
        kind: Kind = "hidden",
        window: int = 10,
        seed: int = 1,
        batch_size: int | None = None,
        verbose: bool = False,
        *,
        answer: str | int | None = None,
        foil: str | int | None = None,
        sever: Severed | None = None,
        method: Strategy | None = None,
    ) -> CausalTrace:
        """Returns the effect of restoring the states of each token and layer.

        Args:
            prompt: A text whose next token is the answer, or the ids of its tokens. A ``{}`` in it stands for
                the subject.
            subject: The words in it to corrupt.
            samples: How many draws of noise to average over.
            noise: The strength of Gaussian noise in multiples of the standard deviation of the subject's
                embeddings, or any `EmbeddingNoise`. All cells have the same draws.
            kind: What to restore: the output of one block (``"hidden"``), or what the MLPs (``"mlp"``) or
                attentions (``"attn"``) of a window of blocks add to the residual stream.
            window: How many blocks, for MLPs and attentions.
            seed: Seed of the noise.
            batch_size: How many rows (a sample of a cell each) are computed at once, which bounds the memory;
                by default as many as have about 8000 tokens.
            verbose: Show a progress bar.
            answer: The answer, a text or the id of its first token; by default the prediction of the model.
            foil: Another answer. The score is then the difference of the two logits.
            sever: Keep the outputs of the MLPs or attentions of later blocks at their corrupted values, at
                the restored token, for kind ``"hidden"``. This shows what the state does without them.
            method: How to compute it, see `CausalTrace.method`; by default the fastest that works.

        Raises:
            ArgumentError: The subject is not in the prompt, or another argument makes no sense.
            ArchitectureError: The model has no MLPs or attentions to restore, and why.
        """
        settings = TraceSettings(
            kind=kind,
            window=window,
            sever=sever,
            samples=samples,
            noise=_as_noise(noise),
            seed=seed,
            batch_size=batch_size,
            method=method,
            verbose=verbose,
        )
        return self.trace_with(settings, prompt, subject, answer=answer, foil=foil)

    @checked
    def trace_with(
        self,
        settings: TraceSettings,
        prompt: str | Sequence[int] | Tensor | Mapping[str, Any],
        subject: str,
        *,
        answer: str | int | None = None,
        foil: str | int | None = None,
    ) -> CausalTrace:
        """Returns the same as `trace`, with settings that were made before.

        Args:
            settings: All arguments of `trace` that do not depend on the prompt.
            prompt: As for `trace`.
            subject: As for `trace`.
            answer: As for `trace`.
            foil: As for `trace`.

        Raises:
            ArgumentError: The subject is not in the prompt, or the foil begins like the answer.
            ArchitectureError: The model has no MLPs or attentions to restore, and why.
        """
        plan = self._plan(settings)
        text, tokens, subject_tokens = self._read(prompt, subject)
        ids = torch.tensor([tokens.ids], device=self.parts.device)
        with self._inference():
            logits = last_logits(self.parts, ids)
            answer_id = int(logits.argmax()) if answer is None else self._token(text, answer)
            foil_id = None if foil is None else self._token(text, foil)
            if foil_id == answer_id:
                raise ArgumentError(f"the foil {foil!r} and the answer begin with the same token")
            inputs = TraceInputs(
                parts=self.parts,
                ids=ids,
                subject=subject_tokens,
                corruption=draw_noise(
                    self.parts, ids, subject_tokens, settings.noise, settings.samples, settings.seed
                ),
                plan=plan,
                clean=record(self.parts, ids, plan.modules(self.parts) if settings.kind != "hidden" else []),
                clean_logits=logits,
                metric=_logit_metric(answer_id, foil_id),
                settings=settings,
            )
            inputs = replace(inputs, leaks=self._leaks(inputs))
            used = settings.method or self._fastest(inputs)
            plain = used == "plain"
            scores, low = plain_scores(inputs) if plain else swept_scores(inputs, used == "suffix")
        return CausalTrace(
            scores=scores.float(),
            low=low,
            high=float(inputs.metric(logits)),
            tokens=tokens.texts,
            ids=tokens.ids,
            subject_range=subject_tokens,
            answer=self.tokenizer.decode([answer_id]),
            answer_id=answer_id,
            probability=float(_logit_metric(answer_id, None)(logits)),
            kind=settings.kind,
            window=plan.width,
            prompt=str(text),
            subject=subject,
            foil=None if foil_id is None else self.tokenizer.decode([foil_id]),
            sever=settings.sever,
            samples=settings.samples,
            method=used,
        )

    @checked
    def trace_many(
        self,
        facts: Iterable[Any],
        noise: float | EmbeddingNoise = 3.0,
        kind: Kind = "hidden",
        window: int = 10,
        *,
        sever: Severed | None = None,
        samples: int = 10,
        seed: int = 1,
        batch_size: int | None = None,
        jobs: int = 1,
        folder: str | Path | None = None,
        verbose: bool = False,
    ) -> AverageEffects:
        """Returns the average indirect effects over many facts, by the role of the token.

        As in the paper, facts whose answer the model does not predict are left out. One standard deviation
        scales the noise of all facts: that of the embeddings of all subjects.

        Args:
            facts: Tuples (prompt, subject) or (prompt, subject, answer), or mappings as in known_1000.json.
                A ``{}`` in a prompt stands for the subject.
            noise: As for `trace`.
            kind: As for `trace`.
            window: As for `trace`.
            sever: As for `trace`.
            samples: As for `trace`.
            seed: As for `trace`. All facts have the same noise; a shorter subject has the first part of it.
            batch_size: As for `trace`.
            jobs: How many facts are traced at once, in separate processes; -1 for one process per core.
            folder: Where each finished fact is kept, so that a killed run continues where it was.
            verbose: Show a progress bar.

        Raises:
            ArgumentError: There are no facts, one cannot be read (which is checked before the first is
                traced), or the model knows none of them; or as for `trace`.

        Example:
            >>> from toumei.transformers.rome.tracing import read_facts
            >>> read_facts([{"prompt": "{} lives in", "subject": "Ann", "attribute": "Rome"}])
            [FactPrompt(prompt='{} lives in', subject='Ann', answer='Rome')]
        """
        prompts = read_facts(facts)
        self._check_facts(prompts)
        settings = TraceSettings(
            kind=kind,
            window=window,
            sever=sever,
            samples=samples,
            noise=_as_noise(noise),
            seed=seed,
            batch_size=batch_size,
        )
        plan = self._plan(settings)
        settings = replace(settings, noise=self._common_noise(settings.noise, prompts))
        items = [FactItem(fact, settings) for fact in prompts]
        found = sweep(FactTask(self), items, jobs=jobs, folder=folder, verbose=verbose)
        results = [result for result in found if result is not None]
        if not results:
            raise ArgumentError(
                f"the model predicts the answer of none of the {counted(len(prompts), 'fact')}"
            )
        return AverageEffects(
            effects=torch.stack([result["effects"] for result in results]),
            low=torch.tensor([result["low"] for result in results]),
            high=torch.tensor([result["high"] for result in results]),
            kind=kind,
            window=plan.width,
            sever=sever,
            skipped=len(prompts) - len(results),
        )

    @checked
    def knows(self, prompt: str | Sequence[int] | Tensor | Mapping[str, Any], answer: str) -> bool:
        """Returns whether the model predicts the first token of an answer to a prompt without ``{}``."""
        tokens = tokenize(self.tokenizer, prompt).ids
        self.parts.check_length(len(tokens), str(prompt))
        ids = torch.tensor([tokens], device=self.parts.device)
        with self._inference():
            return int(last_logits(self.parts, ids).argmax()) == self._token(prompt, answer)

    def _plan(self, settings: TraceSettings) -> Plan:
        plan = Plan(settings.kind, settings.window, settings.sever, self.parts.layers)
        plan.modules(self.parts)  # raises an error if the model lacks them
        return plan

    def _read(self, prompt: Any, subject: str) -> tuple[str, Tokens, tuple[int, int]]:
        """The prompt with the subject in it, its tokens, and the range of the tokens of the subject."""
        text, start = fill_subject(as_prompt(self.tokenizer, prompt), subject)
        tokens = tokenize(self.tokenizer, text)
        found = subject_range(tokens, text, subject, start)
        self.parts.check_length(len(tokens), text)
        return text, tokens, found

    def _check_facts(self, facts: Iterable[FactPrompt]) -> None:
        for number, fact in enumerate(facts):
            try:
                text, _, _ = self._read(fact.prompt, fact.subject)
                if fact.answer is not None:
                    self._token(text, fact.answer)
            except ArgumentError as error:
                raise ArgumentError(f"fact {number}: {error}") from None

    def _common_noise(self, noise: EmbeddingNoise, facts: Iterable[FactPrompt]) -> EmbeddingNoise:
        """The noise with one strength for all facts."""
        if noise.level is not None or noise.shape == "multivariate":
            return noise
        pairs = [(fact.prompt, fact.subject) for fact in facts]
        return replace(noise, level=noise.scale * embedding_std(self.parts, self.tokenizer, pairs))

    def _fastest(self, inputs: TraceInputs) -> Strategy:
        """The fastest strategy that works for this model; found in the first trace."""
        if self._strategy is None:
            self._strategy = fastest_strategy(inputs)
        return self._strategy

    def _leaks(self, inputs: TraceInputs) -> bool:
        """Whether tokens mix after the restored modules of the last block; tried once for each kind."""
        names = inputs.plan.modules(self.parts)
        if not names or inputs.ids.shape[1] == 1:
            return False
        if names[-1] not in self._known_leaks:
            self._known_leaks[names[-1]] = leaks(inputs)
        return self._known_leaks[names[-1]]

    def _token(self, prompt: Any, answer: str | int) -> int:
        if isinstance(answer, str):
            return continuation(self.tokenizer, prompt, answer)[0]
        if not isinstance(answer, SupportsIndex) or not 0 <= answer.__index__() < self.parts.vocabulary:
            raise ArgumentError(
                f"an answer is a text or one of the {self.parts.vocabulary} tokens, got {answer!r}"
            )
        return answer.__index__()

    @contextmanager
    def _inference(self) -> Iterator[None]:
        with torch.no_grad(), evaluating(self.parts.model):
            yield


@dataclass(frozen=True)
class FactItem:
    """A fact of a sweep, and how it is traced."""

    fact: FactPrompt
    settings: TraceSettings = field(default_factory=TraceSettings)


@dataclass(frozen=True)
class FactTask:
    """The function of a sweep over facts: it traces one of them."""

    tracer: CausalTracer

    @property
    def sweep_content(self) -> list[Any]:
        """All that effects depend on beside the item."""
        return content_of_model(self.tracer.parts.model)

    def __call__(self, item: FactItem) -> dict[str, Any] | None:
        """Returns the effects by role, low and high; None if the model predicts another answer."""
        fact = item.fact
        text, _ = fill_subject(fact.prompt, fact.subject)
        if fact.answer is not None and not self.tracer.knows(text, fact.answer):
            return None
        trace = self.tracer.trace_with(item.settings, fact.prompt, fact.subject)
        return {"effects": by_role(trace), "low": trace.low, "high": trace.high}


def _as_noise(noise: float | EmbeddingNoise) -> EmbeddingNoise:
    return noise if isinstance(noise, EmbeddingNoise) else EmbeddingNoise(noise)


def _logit_metric(answer: int, foil: int | None) -> LogitMetric:
    """The probability of the answer, or the difference of its logit and that of the foil."""

    def probability(logits: Tensor) -> Tensor:
        return logits.float().softmax(-1)[:, answer]

    def difference(logits: Tensor) -> Tensor:
        return logits[:, answer].float() - logits[:, foil].float()

    return probability if foil is None else difference
