"""Causal tracing: which hidden states carry a fact from a subject to the answer (Meng et al., 2022).

The subject's embeddings are corrupted with noise, so that the model loses the fact; then single states of the
undisturbed run are put back, and the answer's probability says how much of the fact they bring along.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, SupportsIndex

import torch
from torch import Tensor, nn

from ....core.errors import ArgumentError
from ....core.fingerprint import fingerprint_of
from ....core.modules import evaluating
from ....core.parallel import sweep
from ...model.families import anatomy
from ...model.tokens import continuation, filled, subject_range, tokenize
from .averages import AverageEffects
from .facts import Fact, FactTask, Item, read_facts
from .noise import Noise, draw, embedding_std
from .result import CausalTrace
from .runs import Kind, Measure, Plan, last_logits, record
from .strategies import METHODS, Method, Task, fastest_method, leaks, plain_scores, swept_scores

__all__ = ["AverageEffects", "CausalTrace", "CausalTracer", "Kind", "Noise"]


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
        self._method: Method | None = None
        self._known_leaks: dict[str, bool] = {}

    def trace(
        self,
        prompt: str,
        subject: str,
        samples: int = 10,
        noise: float | Noise = 3.0,
        kind: Kind = "hidden",
        window: int = 10,
        seed: int = 1,
        batch_size: int | None = None,
        verbose: bool = False,
        *,
        answer: str | int | None = None,
        foil: str | int | None = None,
        sever: Literal["mlp", "attn"] | None = None,
        method: Method | None = None,
    ) -> CausalTrace:
        """Returns the effect of restoring the states of each token and layer.

        Args:
            prompt: A text whose next token is the answer. A ``{}`` in it stands for the subject.
            subject: The words in it to corrupt.
            samples: How many draws of noise to average over.
            noise: The strength of Gaussian noise in multiples of the standard deviation of the subject's
                embeddings, or any `Noise`. There is one draw for all cells.
            kind: What to restore: the output of one block (``"hidden"``), or what the MLPs (``"mlp"``) or
                attentions (``"attn"``) of a window of blocks add to the residual stream.
            window: How many blocks, for MLPs and attentions.
            seed: Of the noise.
            batch_size: How many rows (a sample of a cell each) are computed at once, which bounds the memory;
                by default as many as have about 8000 tokens.
            verbose: Show a progress bar.
            answer: The answer, a text or the id of its first token; by default what the model predicts.
            foil: Another answer. The score is then the difference of the two logits.
            sever: Keep the outputs of the MLPs or attentions of the restored token at their corrupted values
                in the blocks behind it, for kind ``"hidden"``: what the state does without them.
            method: How to compute it, see `CausalTrace.method`; by default the fastest that works.

        Raises:
            ArgumentError: The subject is not in the prompt, or another argument makes no sense.
            ArchitectureError: The model has no MLPs or attentions to restore, and why.
        """
        plan = self._plan(kind, window, sever)
        counts = {"samples": samples, "window": window, "batch_size": 1 if batch_size is None else batch_size}
        _check(counts, seed, method)
        prompt, start = filled(prompt, subject)
        tokens = tokenize(self.tokenizer, prompt)
        first, end = subject_range(tokens, prompt, subject, start)
        self.parts.check_length(len(tokens), prompt)
        ids = torch.tensor([tokens.ids], device=self.parts.device)
        noise = noise if isinstance(noise, Noise) else Noise(noise)
        with self._quiet():
            logits = last_logits(self.parts, ids)
            answer_id = int(logits.argmax()) if answer is None else self._token(prompt, answer)
            foil_id = None if foil is None else self._token(prompt, foil)
            if foil_id == answer_id:
                raise ArgumentError(f"the foil {foil!r} and the answer begin with the same token")
            modules = plan.modules(self.parts) if kind != "hidden" else []
            task = Task(
                self.parts,
                ids,
                (first, end),
                draw(self.parts, ids, (first, end), noise, samples, seed),
                plan,
                record(self.parts, ids, modules),
                logits,
                _measure(answer_id, foil_id),
                batch_size,
                verbose,
            )
            task = replace(task, leaks=self._leaks(task))
            used = method or self._fastest(task)
            scores, low = plain_scores(task) if used == "plain" else swept_scores(task, used == "suffix")
        return CausalTrace(
            scores.float(),
            low,
            float(task.measure(logits)),
            tokens.texts,
            tokens.ids,
            (first, end),
            self.tokenizer.decode([answer_id]),
            answer_id,
            float(_measure(answer_id, None)(logits)),
            kind,
            plan.width,
            prompt,
            subject,
            None if foil_id is None else self.tokenizer.decode([foil_id]),
            sever,
            samples,
            used,
        )

    def trace_many(
        self,
        facts: Iterable[Any],
        noise: float | Noise = 3.0,
        kind: Kind = "hidden",
        window: int = 10,
        *,
        sever: Literal["mlp", "attn"] | None = None,
        samples: int = 10,
        seed: int = 1,
        batch_size: int | None = None,
        jobs: int = 1,
        folder: str | Path | None = None,
        verbose: bool = False,
    ) -> AverageEffects:
        """Returns the average indirect effects over many facts, by the role of the token.

        As in the paper, facts whose answer the model does not predict are left out, and the noise is scaled
        by one standard deviation, of the embeddings of all subjects.

        Args:
            facts: Tuples (prompt, subject) or (prompt, subject, answer), or mappings as in known_1000.json.
                A ``{}`` in a prompt stands for the subject.
            noise: As for `trace`.
            kind: As for `trace`.
            window: As for `trace`.
            sever: As for `trace`.
            samples: As for `trace`.
            seed: As for `trace`; the same noise for each fact, as far as its subject is long.
            batch_size: As for `trace`.
            jobs: How many facts are traced at once, in processes of their own; -1 for one a core.
            folder: Where each finished fact is kept, so that a killed run goes on where it was.
            verbose: Show a progress bar.

        Raises:
            ArgumentError: There are no facts, one cannot be understood (which is said before the first is
                traced), or the model knows none of them; or as for `trace`.

        Example:
            >>> from toumei.transformers.rome.tracing.facts import read_facts
            >>> read_facts([{"prompt": "{} lives in", "subject": "Ann", "attribute": "Rome"}])
            [Fact(prompt='{} lives in', subject='Ann', answer='Rome')]
        """
        known = read_facts(facts)
        self._check_facts(known)
        plan = self._plan(kind, window, sever)
        noise = noise if isinstance(noise, Noise) else Noise(noise)
        if noise.level is None and noise.shape != "multivariate":
            pairs = [(fact.prompt, fact.subject) for fact in known]
            noise = replace(noise, level=noise.scale * embedding_std(self.parts, self.tokenizer, pairs))
        options = {"noise": noise, "kind": kind, "window": window, "sever": sever}
        options |= {"samples": samples, "seed": seed, "batch_size": batch_size}
        settings = f"{options} {fingerprint_of(self.model)}" if folder is not None else ""
        items = [Item(fact, settings) for fact in known]
        task = FactTask(self, options)
        results = [
            result
            for result in sweep(task, items, jobs=jobs, folder=folder, verbose=verbose)
            if result is not None
        ]
        if not results:
            raise ArgumentError(f"the model predicts the answer of none of the {len(known)} facts")
        return AverageEffects(
            torch.stack([result["effects"] for result in results]),
            torch.tensor([result["low"] for result in results]),
            torch.tensor([result["high"] for result in results]),
            kind,
            plan.width,
            sever,
            len(known) - len(results),
        )

    def _check_facts(self, facts: Iterable[Fact]) -> None:
        for number, fact in enumerate(facts):
            try:
                text, start = filled(fact.prompt, fact.subject)
                tokens = tokenize(self.tokenizer, text)
                subject_range(tokens, text, fact.subject, start)
                self.parts.check_length(len(tokens), text)
                if fact.answer is not None:
                    self._token(text, fact.answer)
            except ArgumentError as error:
                raise ArgumentError(f"fact {number}: {error}") from None

    def knows(self, prompt: str, answer: str) -> bool:
        """Returns whether the model predicts the first token of an answer to a prompt without ``{}``."""
        ids = torch.tensor([tokenize(self.tokenizer, prompt).ids], device=self.parts.device)
        with self._quiet():
            return int(last_logits(self.parts, ids).argmax()) == self._token(prompt, answer)

    def _plan(self, kind: Kind, window: int, sever: Literal["mlp", "attn"] | None) -> Plan:
        if kind not in ("hidden", "mlp", "attn"):
            raise ArgumentError(f"no kind {kind!r} of states: there are hidden, mlp and attn")
        if sever not in (None, "mlp", "attn"):
            raise ArgumentError(f"cannot sever {sever!r}: there are mlp and attn")
        if sever is not None and kind != "hidden":
            raise ArgumentError(
                f"severed tracing restores hidden states: kind must be 'hidden', not {kind!r}"
            )
        plan = Plan(kind, window, sever, self.parts.layers)
        plan.modules(self.parts)
        return plan

    def _fastest(self, task: Task) -> Method:
        """The method for this model, tried once."""
        if self._method is None:
            self._method = fastest_method(task)
        return self._method

    def _leaks(self, task: Task) -> bool:
        """Whether tokens meet behind the restored modules of the last block, tried once for each kind."""
        names = task.plan.modules(self.parts)
        if not names or task.ids.shape[1] == 1:
            return False
        if names[-1] not in self._known_leaks:
            self._known_leaks[names[-1]] = leaks(task)
        return self._known_leaks[names[-1]]

    def _token(self, prompt: str, answer: str | int) -> int:
        if isinstance(answer, str):
            return continuation(self.tokenizer, prompt, answer)[0]
        if not isinstance(answer, SupportsIndex) or not 0 <= answer.__index__() < self.parts.vocabulary:
            raise ArgumentError(
                f"an answer is a text or one of the {self.parts.vocabulary} tokens, got {answer!r}"
            )
        return answer.__index__()

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        with torch.no_grad(), evaluating(self.model):
            yield


def _measure(answer: int, foil: int | None) -> Measure:
    """What is measured at the logits: the answer's probability, or how far its logit is above the foil's."""

    def probability(logits: Tensor) -> Tensor:
        return logits.float().softmax(-1)[:, answer]

    def difference(logits: Tensor) -> Tensor:
        return logits[:, answer].float() - logits[:, foil].float()

    return probability if foil is None else difference


def _check(counts: Mapping[str, int], seed: int, method: str | None) -> None:
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ArgumentError(f"{name} must be a whole number from 1 on, not {count!r}")
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ArgumentError(f"seed must be a whole number from 0 to 2^32 - 1, got {seed!r}")
    if method not in (None, *METHODS):
        raise ArgumentError(f"no method {method!r}: there are {', '.join(METHODS)}")
