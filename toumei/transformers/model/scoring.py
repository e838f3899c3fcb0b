"""How likely a model finds answers to prompts, many at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import nn

from ...core.modules import evaluating
from ...core.outputs import main_tensor
from ..rome.editing.requests import padded
from .families import Anatomy
from .tokens import continuation, tokenize


@dataclass(frozen=True)
class Answer:
    """What a model makes of one answer to one prompt.

    Attributes:
        log_probability: The mean over the answer's tokens.
        first: Whether each of its tokens is the likeliest.
    """

    log_probability: float
    first: bool

    @property
    def probability(self) -> float:
        """The geometric mean of the probabilities of the answer's tokens."""
        return float(torch.tensor(self.log_probability).exp())


def score_answers(
    parts: Anatomy, tokenizer: Any, questions: Sequence[tuple[str, str]], batch_size: int = 64
) -> list[Answer]:
    """Returns what the model makes of each (prompt, answer).

    Args:
        parts: The model.
        tokenizer: Its tokenizer.
        questions: Prompts and their answers. Equal texts are read once.
        batch_size: How many texts are read at once.
    """
    rows, targets = [], []
    for prompt, answer in questions:
        target = continuation(tokenizer, prompt, answer)
        rows.append((*tokenize(tokenizer, prompt).ids, *target[:-1]))
        parts.check_length(len(rows[-1]), prompt)
        targets.append(target)
    unique = sorted(set(rows), key=len)
    asked: dict[tuple[int, ...], list[int]] = {ids: [] for ids in unique}
    for number, ids in enumerate(rows):
        asked[ids].append(number)
    answers: list[Answer | None] = [None] * len(rows)
    with torch.no_grad(), evaluating(parts.model):
        for start in range(0, len(unique), batch_size):
            batch = unique[start : start + batch_size]
            # from the first position that is asked for; rows of a batch are about as long as each other
            first = min(len(ids) - len(targets[number]) for ids in batch for number in asked[ids])
            logits = _logits(parts.model, padded(batch, parts.device)[0], first)
            for ids, row in zip(batch, logits, strict=True):
                for number in asked[ids]:
                    end = len(ids) - first
                    answers[number] = _answer(row[end - len(targets[number]) : end], targets[number])
    return [answer for answer in answers if answer is not None]


def _logits(model: nn.Module, tokens: torch.Tensor, first: int) -> torch.Tensor:
    """The logits from a position on: the model makes no others, where it can be told so."""
    if "logits_to_keep" in signature(model.forward).parameters:
        keep = tokens.shape[1] - first
        return main_tensor(model(tokens, use_cache=False, logits_to_keep=keep))
    return main_tensor(model(tokens, use_cache=False))[:, first:]


def _answer(logits: torch.Tensor, target: Sequence[int]) -> Answer:
    found = logits.float().log_softmax(1)
    ids = torch.tensor(target, device=found.device)
    said = found.gather(1, ids[:, None])
    return Answer(float(said.mean()), bool((found.argmax(1) == ids).all()))
