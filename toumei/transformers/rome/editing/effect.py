"""How far an edit came: the probabilities of the target and of the old answer, before and after."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....core.modules import evaluating
from ....core.user_warnings import warn
from ...model.families import Anatomy
from ...model.scoring import logits_from
from ...model.tokens import padded
from .requests import EditRequest, SubjectText
from .settings import EditSettings
from .value import FactTexts, Value

Pair = tuple[float, float]
_CAUSES = {
    "interrupted": ", the optimization was interrupted",
    "unreachable": ", for what layer {} adds at the subject's last token cannot reach the answer",
}
_WEAK = 0.5  # the probability below which the model gives something else more often than the target


@dataclass(frozen=True, repr=False)
class EditEffect:
    """How far an edit came with one fact. Pairs are probabilities (before, after).

    The probability of a target of several tokens is the product over its tokens. Contexts are the prompt
    alone and all texts in which the subject was read.

    Attributes:
        old_answer: The token that the model gave before.
        target: The target after the prompt.
        old: The old answer after the prompt.
        target_in_contexts: The target, the mean over the contexts.
        old_in_contexts: The old answer, the mean over the contexts.
        likeliest: Whether each token of the target is now the most probable one after the prompt.
        likeliest_in_contexts: In which share of the contexts it is.
        ended: How the optimization ended: ``"finished"``, ``"stopped"``, ``"interrupted"``, or
            ``"unreachable"`` where the layer cannot reach the answer.

    Example:
        >>> EditEffect("Paris", (0.1, 0.9), (0.8, 0.1), (0.1, 0.8), (0.7, 0.1), True, 1.0, "finished")
        EditEffect(target 0.1 to 0.9, 'Paris' 0.8 to 0.1: took, finished)
    """

    old_answer: str
    target: Pair
    old: Pair
    target_in_contexts: Pair
    old_in_contexts: Pair
    likeliest: bool
    likeliest_in_contexts: float
    ended: str

    @property
    def took(self) -> bool:
        """Whether the target is now the most probable continuation of the prompt."""
        return self.likeliest

    def __repr__(self) -> str:
        old, target = (" to ".join(f"{part:.2g}" for part in pair) for pair in (self.old, self.target))
        took = "took" if self.took else "did not take"
        return f"EditEffect(target {target}, {self.old_answer!r} {old}: {took}, {self.ended})"

    @property
    def weak(self) -> bool:
        """Whether the edit did not take, or everything else together is still more probable."""
        return not self.took or self.target[1] < _WEAK


def measure_effects(
    parts: Anatomy, tokenizer: Any, facts: Sequence[FactTexts], values: Sequence[Value], batch_size: int
) -> tuple[EditEffect, ...]:
    """Returns how far an edit came that is applied now, after one forward pass of the texts it was made on.

    Args:
        parts: The edited model.
        tokenizer: Its tokenizer.
        facts: The texts of each fact.
        values: The result of the optimization of each fact, which has the probabilities before.
        batch_size: How many texts are run at once.
    """
    texts = [(text, value.old) for fact, value in zip(facts, values, strict=True) for text in fact.edits]
    found: list[tuple[float, float, float]] = []
    with torch.no_grad(), evaluating(parts.model):
        for start in range(0, len(texts), batch_size):
            found += _scores(parts, texts[start : start + batch_size])
    effects, rows = [], iter(found)
    for fact, value in zip(facts, values, strict=True):
        after = torch.tensor([next(rows) for _ in fact.edits])
        effects.append(_effect(tokenizer.decode([value.old]), value, after))
    return tuple(effects)


def warn_of_weak_effects(
    requests: Sequence[EditRequest], effects: Sequence[EditEffect], settings: EditSettings
) -> None:
    """Warns if the model does not give the target of a fact after the edit, and says what to try."""
    weak = [pair for pair in zip(requests, effects, strict=True) if pair[1].weak]
    missed = [pair for pair in weak if not pair[1].took]
    if not weak:
        return
    request, effect = min(missed or weak, key=lambda pair: pair[1].target[1])
    which = "the edit" if len(effects) == 1 else f"{len(missed or weak)} of {len(effects)} facts"
    layers = ", ".join(map(str, settings.layers))
    warn(
        f"{which} {'did not take' if missed else 'took only weakly'}"
        f"{_CAUSES.get(effect.ended, '').format(layers)}: after "
        f"{request.text!r} the probability of {request.target!r} went from {effect.target[0]:.2g} to "
        f"{effect.target[1]:.2g}, that of the old answer {effect.old_answer!r} from {effect.old[0]:.2g} to "
        f"{effect.old[1]:.2g}; {request.target!r} is {'' if effect.took else 'not '}the most probable "
        f"continuation. Try the layer that a causal trace finds (layer='trace', now {layers}), more steps "
        f"(now {settings.steps}), or a larger clamp (now {settings.clamp:g})"
    )


def _scores(parts: Anatomy, texts: Sequence[tuple[SubjectText, int]]) -> list[tuple[float, float, float]]:
    """The probabilities of target and old answer after each text, and whether the target is likeliest."""
    first = min(len(text.ids) - text.target - 1 for text, _ in texts)
    logits = logits_from(parts.model, padded([text.ids for text, _ in texts], parts.device)[0], first)
    found = []
    for row, (text, old) in zip(logits, texts, strict=True):
        end = len(text.ids) - 1 - first
        odds = row[end - text.target : end].float().log_softmax(1)
        target = torch.tensor(text.ids[-text.target :], device=odds.device)
        likeliest = bool((odds.argmax(1) == target).all())
        probability = float(odds.gather(1, target[:, None]).sum().exp())
        found.append((probability, float(odds[0, old].exp()), float(likeliest)))
    return found


def _effect(old_answer: str, value: Value, after: Tensor) -> EditEffect:
    """The effect on one fact, whose first text is the prompt alone."""
    pairs = torch.stack([value.before.exp(), after[:, :2]], 2)  # (texts, target and old, before and after)
    alone, mean = pairs[0].tolist(), pairs.mean(0).tolist()
    return EditEffect(
        old_answer=old_answer,
        target=(alone[0][0], alone[0][1]),
        old=(alone[1][0], alone[1][1]),
        target_in_contexts=(mean[0][0], mean[0][1]),
        old_in_contexts=(mean[1][0], mean[1][1]),
        likeliest=bool(after[0, 2]),
        likeliest_in_contexts=float(after[:, 2].mean()),
        ended=value.ended,
    )
