"""Numbers that say how near a run is to the clean one, read from the logits at the last position."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.kinds import shown
from ...core.summaries import counted
from ..model.hooked_model import HookedModel
from ..model.tokens import continuation

Read = Callable[[Tensor], Tensor]
"""From logits (..., texts, tokens) to values (..., texts)."""
Answers = str | int | Sequence[str | int] | Tensor


@checked
@dataclass(frozen=True, eq=False)
class Metric:
    """A number for each text, from the logits at its last position.

    Attributes:
        name: What it is called in results and pictures.
        prepare: Makes the function of logits (..., texts, tokens) for a model, the clean prompts and their
            logits (texts, tokens).

    Example:
        >>> from toumei.transformers import logit_difference
        >>> metric = logit_difference(4, 5)
        >>> metric.name
        'logit difference'
    """

    name: str
    prepare: Callable[[HookedModel, Tensor | None, Tensor], Read]

    @checked
    def reading(self, model: HookedModel, ids: Tensor | None, clean: Tensor) -> Read:
        """Returns the function of logits for a model and clean prompts.

        Raises:
            ArgumentError: `prepare` made no function; the function raises it for logits that it makes no
                number of for each text.
        """
        found: Any = self.prepare(model, ids, clean)
        if not callable(found):
            raise ArgumentError(f"prepare of {self.name!r} makes a function of logits, got {shown(found)}")

        def read(logits: Tensor) -> Tensor:
            values: Any = found(logits)
            if not isinstance(values, Tensor) or values.shape != logits.shape[:-1]:
                raise ArgumentError(
                    f"{self.name!r} makes of logits {tuple(logits.shape)} a number for each text, "
                    f"{tuple(logits.shape[:-1])}; it made {shown(values)}"
                )
            return values

        return read

    def __repr__(self) -> str:
        return f"Metric({self.name!r})"


@checked
def logit_difference(answers: Answers, wrong: Answers) -> Metric:
    """Returns the metric logit(answer) - logit(wrong answer). It is linear in the residual stream's end.

    Args:
        answers: The right continuation of each clean prompt, as text or as the number of a token; of several
            tokens the first counts. One for all prompts, or one for each.
        wrong: The wrong ones.

    Example:
        >>> logit_difference(" Mary", " John")
        Metric('logit difference')
    """

    def prepare(model: HookedModel, ids: Tensor | None, clean: Tensor) -> Read:
        right, other = answer_tokens(model, ids, clean, answers), answer_tokens(model, ids, clean, wrong)
        same = (right == other).nonzero().flatten().tolist()
        if same:
            raise ArgumentError(
                f"the answers of text {same[0]} begin with the same token {int(right[same[0]])}"
            )
        return lambda logits: _picked(logits, right) - _picked(logits, other)

    return Metric("logit difference", prepare)


@checked
def probability(answers: Answers) -> Metric:
    """Returns the metric p(answer).

    Args:
        answers: As for `logit_difference`.

    Example:
        >>> probability(3)
        Metric('probability')
    """

    def prepare(model: HookedModel, ids: Tensor | None, clean: Tensor) -> Read:
        right = answer_tokens(model, ids, clean, answers)
        return lambda logits: _picked(logits.float().log_softmax(-1), right).exp()

    return Metric("probability", prepare)


def kl_to_clean() -> Metric:
    """Returns the metric KL(clean prediction, prediction) in nats: 0 for the clean run.

    Example:
        >>> kl_to_clean()
        Metric('KL to clean')
    """

    def prepare(model: HookedModel, ids: Tensor | None, clean: Tensor) -> Read:
        logs = clean.float().log_softmax(-1)

        def read(logits: Tensor) -> Tensor:
            new = logits.float().log_softmax(-1)
            return (logs.exp() * (logs - new)).sum(-1)

        return read

    return Metric("KL to clean", prepare)


def as_metric(metric: Any) -> Metric:
    """Returns a metric, and one made of a function of logits.

    Args:
        metric: A `Metric`, or a function from logits (texts, tokens) at the last position to a number for
            each text, (texts,).

    Raises:
        ArgumentError: It is neither; the metric raises it for a function that returns something else.

    Example:
        >>> as_metric(lambda logits: logits[:, 3] - logits[:, 4])
        Metric('metric')
    """
    if isinstance(metric, Metric):
        return metric
    if not callable(metric) or isinstance(metric, type):
        raise ArgumentError(
            f"metric is a Metric such as logit_difference(answers, wrong), or a function from logits "
            f"(texts, tokens) at the last position to a number for each text, got {shown(metric)}"
        )

    def read(logits: Tensor) -> Tensor:
        tables = logits.reshape(-1, *logits.shape[-2:])
        return torch.stack([_of_rows(metric, table) for table in tables]).reshape(logits.shape[:-1])

    name = getattr(metric, "__name__", "metric")
    return Metric("metric" if name == "<lambda>" else name, lambda *_: read)


def _of_rows(function: Read, logits: Tensor) -> Tensor:
    """What a user's function makes of logits (texts, tokens), checked."""
    given = f"logits {tuple(logits.shape)} at the last position of each text"
    try:
        values: Any = function(logits)
    except (IndexError, TypeError) as error:
        raise ArgumentError(f"the function that is the metric takes {given}: {error}") from error
    if not isinstance(values, Tensor) or values.shape != logits.shape[:1]:
        raise ArgumentError(
            f"the function that is the metric returns a number for each text, ({len(logits)},), of {given}; "
            f"it returned {shown(values)}"
        )
    return values


def answer_tokens(model: HookedModel, ids: Tensor | None, logits: Tensor, answers: Any) -> Tensor:
    """Returns the token of each answer, (texts,).

    Args:
        model: The model.
        ids: The prompts (texts, T), or None.
        logits: (texts, tokens).
        answers: See `logit_difference`.

    Raises:
        ArgumentError: There are more or fewer answers than prompts, or there is no such token.
    """
    texts, known = logits.shape
    several = answers.tolist() if isinstance(answers, Tensor) else answers
    listed = (
        list(several) if isinstance(several, Sequence) and not isinstance(several, str) else [several] * texts
    )
    if len(listed) != texts:
        raise ArgumentError(f"expected an answer for each of {counted(texts, 'prompt')}, got {len(listed)}")
    found = []
    for place, answer in enumerate(listed):
        if isinstance(answer, str):
            if model.tokenizer is None or ids is None:
                raise ArgumentError(f"there is no tokenizer to read {answer!r} with: give numbers of tokens")
            answer = continuation(model.tokenizer, ids[place].tolist(), answer)[0]
        if not isinstance(answer, SupportsIndex) or isinstance(answer, bool | Tensor):
            raise ArgumentError(f"an answer is a text or the number of a token, got {shown(answer)}")
        if not 0 <= (token := answer.__index__()) < known:
            raise ArgumentError(f"tokens are from 0 to {known - 1}, got {token}")
        found.append(token)
    return torch.tensor(found, device=logits.device)


def _picked(logits: Tensor, tokens: Tensor) -> Tensor:
    index = tokens.to(logits.device).expand(logits.shape[:-1])
    return logits.gather(-1, index[..., None])[..., 0]
