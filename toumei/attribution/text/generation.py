"""The contribution of each token of a prompt to each token of what a language model goes on with."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ..base.baselines import Baseline
from ..base.method import Method
from ..base.result import Attribution
from ..gradient.integrated_gradients import IntegratedGradients
from .attribution import contributions, questions
from .encoding import OneText, checked_index
from .goals import Goal, Question, log_probability, tokens_of, words_of
from .tasks import Task, task_of


@checked
def generation_attribution(
    model: nn.Module,
    tokenizer: Any,
    text: OneText,
    target: str | Sequence[int] | Tensor | None = None,
    *,
    max_new_tokens: int = 20,
    method: Method | None = None,
    baseline: str | int | Baseline | None = None,
    task: Task | None = None,
) -> Attribution:
    """Returns the contribution of each token of a prompt to each token of a generation, and to all of it.

    The score of a token is its log-probability after the prompt and the tokens before it, which stay as they
    are. All of them take one pass, as several targets do.

    Args:
        model: A causal language model of Hugging Face.
        tokenizer: Its tokenizer; None where `text` and `target` are numbers.
        text: The prompt, as for `token_attribution`.
        target: What the model said, K tokens: a string or their numbers. By default what it says with the
            likeliest token at each step.
        max_new_tokens: Most tokens of that.
        method: As for `token_attribution`.
        baseline: As for `token_attribution`.
        task: As for `token_attribution`.

    Returns:
        K + 1 targets: ``result[i]`` for token i, and ``result[-1]`` for the sum of the log-probabilities.
        Values are (K + 1, 1, tokens of the prompt).

    Raises:
        ArgumentError: No causal language model, or no tokens.
        UnitError: A token that does not exist, or a word that the vocabulary does not have.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> result = generation_attribution(model, tokenizer, "Yara Castell", "lives in Rendal")
        >>> result.names, tuple(result.values.shape)
        (('lives', 'in', 'Rendal', 'lives in Rendal'), (4, 1, 2))
    """
    given = task_of(model, task)
    if given != "text-generation":
        raise ArgumentError(f"only causal language models generate, {type(model).__name__} is for {given}")
    check_counts(1, max_new_tokens=max_new_tokens)
    asked = questions(model, tokenizer, text, given)
    if len(asked) != 1:
        raise ArgumentError(f"expected one prompt, got {len(asked)}")
    question = asked[0]
    tokens = _generated(question, max_new_tokens) if target is None else _given(question, target)
    network = question.network((tokens[:-1],))
    places = range(len(tokens)) if network.continues else [-1]
    each = [
        Goal(words_of(question, [token]), log_probability([token], [place]))
        for token, place in zip(tokens, places, strict=True)
    ]
    whole = Goal(words_of(question, tokens), log_probability(tokens, places))
    method = IntegratedGradients(model) if method is None else method
    return contributions(question, [*each, whole], network, method, baseline)


def _given(question: Question, target: Any) -> tuple[int, ...]:
    count = question.network().vocabulary
    if isinstance(target, str):
        return tokens_of(question, target, count)
    numbers = target.flatten().tolist() if isinstance(target, Tensor) else list(target)
    if not numbers:
        raise ArgumentError("a generation has at least one token, got none")
    return tuple(checked_index(number, count, "token") for number in numbers)


def _generated(question: Question, most: int) -> tuple[int, ...]:
    """The likeliest token after the prompt, then after both, and so on until the text ends."""
    tokens = question.encoded.tokens
    end = getattr(question.tokenizer, "eos_token_id", None)
    found: list[int] = []
    with evaluating(question.model), torch.no_grad():
        while len(found) < most and (not found or found[-1] != end):
            network = question.network((tuple(found),))
            found.append(int(network(tokens)[0, -1].argmax()))
    return tuple(found)
