"""The probabilities that a model gives to answers to prompts, many at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import nn

from ...core.checks import checked
from ...core.modules import evaluating
from ...core.outputs import main_tensor
from .families import Anatomy
from .tokens import continuation, padded, tokenize


@dataclass(frozen=True)
class AnswerScore:
    """How likely one answer to one prompt is for a model.

    Attributes:
        log_probability: The mean of the log probabilities of the answer's tokens.
        likeliest: Whether each token of the answer is the likeliest one.

    Example:
        >>> AnswerScore(-0.1, likeliest=True)
        AnswerScore(log_probability=-0.1, likeliest=True)
    """

    log_probability: float
    likeliest: bool

    @property
    def probability(self) -> float:
        """The geometric mean of the probabilities of the answer's tokens."""
        return float(torch.tensor(self.log_probability).exp())


@checked
def score_answers(
    parts: Anatomy, tokenizer: Any, questions: Sequence[tuple[Any, str]], batch_size: int = 64
) -> list[AnswerScore]:
    """Returns the score of each (prompt, answer).

    Args:
        parts: The model.
        tokenizer: Its tokenizer.
        questions: Prompts and their answers. Equal texts run through the model once.
        batch_size: How many texts run through the model at once.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import anatomy
        >>> model, tokenizer, world = facts_gpt()
        >>> fact = world.facts[0]
        >>> score_answers(anatomy(model), tokenizer, [(fact.text, fact.target)])[0].likeliest
        True
    """
    rows, targets = [], []
    for prompt, answer in questions:
        target = continuation(tokenizer, prompt, answer)
        rows.append((*tokenize(tokenizer, prompt).ids, *target[:-1]))
        parts.check_length(len(rows[-1]), str(prompt))
        targets.append(target)
    unique = sorted(set(rows), key=len)
    numbers: dict[tuple[int, ...], list[int]] = {ids: [] for ids in unique}  # of the questions with this text
    for number, ids in enumerate(rows):
        numbers[ids].append(number)
    answers: list[AnswerScore | None] = [None] * len(rows)
    with torch.no_grad(), evaluating(parts.model):
        for start in range(0, len(unique), batch_size):
            batch = unique[start : start + batch_size]
            # the first position whose logits are needed; the rows of a batch have similar lengths
            first = min(len(ids) - len(targets[number]) for ids in batch for number in numbers[ids])
            logits = logits_from(parts.model, padded(batch, parts.device)[0], first)
            for ids, row in zip(batch, logits, strict=True):
                for number in numbers[ids]:
                    end = len(ids) - first
                    answers[number] = _answer(row[end - len(targets[number]) : end], targets[number])
    return [answer for answer in answers if answer is not None]


def logits_from(model: nn.Module, tokens: torch.Tensor, first: int) -> torch.Tensor:
    """Returns the logits from a position on; a model that takes `logits_to_keep` computes only these."""
    if "logits_to_keep" in signature(model.forward).parameters:
        keep = tokens.shape[1] - first
        return main_tensor(model(tokens, use_cache=False, logits_to_keep=keep))
    return main_tensor(model(tokens, use_cache=False))[:, first:]


def _answer(logits: torch.Tensor, target: Sequence[int]) -> AnswerScore:
    found = logits.float().log_softmax(1)
    ids = torch.tensor(target, device=found.device)
    return AnswerScore(
        log_probability=float(found.gather(1, ids[:, None]).mean()),
        likeliest=bool((found.argmax(1) == ids).all()),
    )
