"""The contribution of each token of a text to the output of a language model, a classifier or a reader."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

import torch
from torch import Tensor, nn

from ...core.checks import checked
from ...core.errors import ArchitectureError, ArgumentError
from ...core.modules import device_and_dtype
from ...core.summaries import counted
from ...core.tokenizers import check_positions
from ..base.baselines import AtLayer, Baseline, Constant
from ..base.inputs import Layers, parts_of
from ..base.method import Method
from ..base.result import Attribution
from ..gradient.integrated_gradients import IntegratedGradients
from .encoding import OneText, are_numbers, decoded, encode_all, token_id
from .goals import Goal, Position, Question, TokenTarget
from .network import TextNetwork
from .tasks import Task, task_of


@overload
def token_attribution(
    model: nn.Module,
    tokenizer: Any,
    text: list[Any],
    target: TokenTarget | Sequence[TokenTarget] = None,
    against: TokenTarget = None,
    *,
    method: Method | None = None,
    baseline: str | int | Baseline | None = None,
    position: Position = None,
    task: Task | None = None,
) -> list[Attribution]: ...


@overload
def token_attribution(
    model: nn.Module,
    tokenizer: Any,
    text: OneText,
    target: TokenTarget | Sequence[TokenTarget] = None,
    against: TokenTarget = None,
    *,
    method: Method | None = None,
    baseline: str | int | Baseline | None = None,
    position: Position = None,
    task: Task | None = None,
) -> Attribution: ...


@checked
def token_attribution(
    model: nn.Module,
    tokenizer: Any,
    text: OneText | list[Any],
    target: TokenTarget | Sequence[TokenTarget] = None,
    against: TokenTarget = None,
    *,
    method: Method | None = None,
    baseline: str | int | Baseline | None = None,
    position: Position = None,
    task: Task | None = None,
) -> Attribution | list[Attribution]:
    """Returns the contribution of each token of a text, (1, tokens), to what a model of Hugging Face says.

    Methods that need gradients attribute to the embeddings, and their contributions are summed over channels;
    other methods hide tokens. What the model says is read by the name of its class:

    - ``...ForCausalLM``, ``...LMHeadModel``: the log-probability of the token that comes next, or of several
      that follow one another, the sum over them; they are no inputs and get no contributions. See
      `generation_attribution` for each of them.
    - ``...ForMaskedLM``: the log-probability of a token for each mask token of the text.
    - ``...ForSequenceClassification``: the logit of a class.
    - ``...ForTokenClassification``: the logit of a label of the token at ``position``.
    - ``...ForQuestionAnswering``: the log-probability of an answer, a part of the text.

    Args:
        model: A model of Hugging Face, but no encoder-decoder.
        tokenizer: Its tokenizer; None where `text` and targets are numbers.
        text: The text, a pair of texts in a tuple, its tokens (1, tokens), or what the tokenizer returns for
            it. For several texts a list, or what the tokenizer returns for them: an attribution for each.
        target: A string as it would go on (with a space in front where the tokenizer wants one) or the index
            of a token; the name or the index of a class or a label; the words of an answer, or an
            `AnswerSpan`. By default the likeliest. A list for several targets at once.
        against: Another target: the score is the difference of both.
        method: A configured method of the model, such as ``SmoothGrad(model, samples=20)``, without a layer;
            `IntegratedGradients` by default.
        baseline: What stands for absence: a token's string or index, or a baseline of `toumei.attribution`
            for what is attributed to. By default embeddings of zero, and where tokens are hidden the
            tokenizer's mask, unknown or padding token.
        position: The token whose label is asked for, or at which a language model predicts: its number, or
            a word that the text has once. By default the last one, and mask tokens.
        task: What the model says, as pipelines of Hugging Face name it, if its class has another name.

    Raises:
        ArchitectureError: An encoder-decoder, a bare encoder, or a model with a head for another task.
        ArgumentError: A text without tokens, a target that does not suit the task, a place that is missing,
            a method of another model or one that does not attribute to tokens, or a model that is not from
            Hugging Face.
        UnitError: A token, class, label or place that does not exist, or a word that the vocabulary does not
            have.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> fact = world.facts[0]
        >>> result = token_attribution(model, tokenizer, fact.text, fact.target)
        >>> result.tokens[0][3:5], tuple(result.values.shape)
        (('Yara', 'Castell'), (1, 7))
    """
    given = task_of(model, task)
    method = IntegratedGradients(model) if method is None else method
    targets: list[Any] = list(target) if isinstance(target, list | tuple) else [target]
    if not targets:
        raise ArgumentError("a list of targets must not be empty")
    results = []
    for question in questions(model, tokenizer, text, given, position):
        goals, network = question.answered(targets, against)
        found = contributions(question, goals, network, method, baseline)
        results.append(found if isinstance(target, list | tuple) else found[0])
    several = len(results) > 1 or (isinstance(text, list) and not are_numbers(text))
    return results if several else results[0]


def questions(model: Any, tokenizer: Any, text: Any, task: Task, position: Position = None) -> list[Question]:
    """Returns a question for each text that was given."""
    device = device_and_dtype(model)[0]
    encoded = encode_all(tokenizer, text, task == "text-generation")
    check_positions(model, max(len(one.ids) for one in encoded))
    return [Question(model, tokenizer, task, one.to(device), position) for one in encoded]


def contributions(
    question: Question,
    goals: Sequence[Goal],
    network: TextNetwork,
    method: Method,
    baseline: str | int | Baseline | None,
) -> Attribution:
    """Returns the contribution of each token to each goal, (goals, 1, tokens).

    Raises:
        ArgumentError: A method of another model, or one that does not attribute to tokens.
    """
    tokens, tokenizer = question.encoded.tokens, question.tokenizer
    on_tokens = _on_tokens(method, network)
    absent = _baseline(tokenizer, tokens, baseline, on_tokens.layer, network.vocabulary)
    result = on_tokens(tokens, [goal.score for goal in goals], absent)
    return replace(
        result,
        values=_of_tokens(result, tokens, on_tokens.layer),
        # the error of a sum does not follow from the errors of its terms
        standard_error=result.standard_error if on_tokens.layer is None else None,
        tokens=(tuple(decoded(tokenizer, index) for index in question.encoded.ids),),
        names=tuple(goal.name for goal in goals),
    )


def _on_tokens(method: Method, network: TextNetwork) -> Method:
    """The method for the embeddings if it needs gradients, else for the tokens.

    Raises:
        ArgumentError: No configured method, one of another model, or one of another layer.
        ArchitectureError: A model that takes no embeddings where the text goes on.
    """
    if not isinstance(method, Method):
        raise ArgumentError(f"method is configured, such as SmoothGrad(model, samples=20), got {method!r}")
    if method.model is not network.model:
        raise ArgumentError(f"{method!r} is a method of another model than the one that reads the text")
    if method.layer is not None and f"model.{method.layer}" != network.embeddings:
        raise ArgumentError(
            f"{method!r} attributes to a layer, but tokens need one for the inputs, or for the embeddings "
            f"{network.embeddings.removeprefix('model.')!r}"
        )
    config = getattr(network.model, "config", None)
    if network.last_token and method.batch_size > 1 and getattr(config, "pad_token_id", 0) is None:
        raise ArgumentError(
            f"{type(network.model).__name__} takes one text at a time unless it knows a padding token: set "
            f"model.config.pad_token_id, or give a method with batch_size=1"
        )
    if method.differentiates and network.continues and "inputs_embeds" not in network.known:
        raise ArchitectureError(
            f"{type(network.model).__name__} takes no inputs_embeds, which targets of several tokens need: "
            f"give one token, or a method that hides tokens, such as Occlusion"
        )
    return method.with_model(network, network.layer if method.differentiates else None)


def _of_tokens(result: Attribution, tokens: Tensor, layer: Layers) -> Tensor:
    """The contribution of each token, (1, tokens) for each target, from those of its embedding."""
    (values,) = parts_of(result.values)
    shape = values.shape[1:]
    if shape != (tokens.shape if layer is None else (*tokens.shape, *shape[-1:])):
        raise ArgumentError(
            f"{result.method} does not attribute to tokens: its values are {tuple(shape)} for "
            f"{counted(tokens.shape[1], 'token')}"
        )
    return values if layer is None else values.sum(-1)


def _baseline(
    tokenizer: Any, tokens: Tensor, given: Any, layer: Layers, vocabulary: int
) -> Baseline | Tensor:
    if isinstance(given, Baseline):
        return given if layer is None else AtLayer(given)
    if given is None and layer is not None:
        return AtLayer(Constant())
    if given is None:
        names = ("mask_token_id", "unk_token_id", "pad_token_id", "eos_token_id")
        known = [getattr(tokenizer, name, None) for name in names]
        given = next((index for index in known if index is not None), 0)
    return torch.full_like(tokens, token_id(tokenizer, given, vocabulary))
