"""What a model of Hugging Face says: words that come next, words in gaps, classes, labels or answers."""

import re
import sys
from inspect import signature
from typing import Any, Literal, get_args

from ...core.checks import check_choice
from ...core.errors import ArchitectureError, ArgumentError

Task = Literal[
    "text-generation", "fill-mask", "text-classification", "token-classification", "question-answering"
]

# The names that classes of transformers and of peft end with.
_HEADS: dict[str, Task] = {
    r"(ForCausalLM|LMHeadModel|ForConditionalGeneration)$": "text-generation",
    r"ForMaskedLM$": "fill-mask",
    r"ForSequenceClassification$": "text-classification",
    r"ForTokenClassification$": "token-classification",
    r"ForQuestionAnswering(Simple)?$": "question-answering",
}


def task_of(model: Any, given: Task | None = None) -> Task:
    """Returns the task of a model: what was given, or what the name of its class says.

    Args:
        model: A model of Hugging Face.
        given: What the user says it is, for classes with other names.

    Raises:
        ArgumentError: An unknown task, or a model that is not from Hugging Face.
        ArchitectureError: An encoder-decoder, a model without a head such as a bare encoder, or one with a
            head for another task.
    """
    if not hasattr(model, "get_input_embeddings"):
        raise ArgumentError(
            f"expected a model of Hugging Face with get_input_embeddings, got {type(model).__name__}"
        )
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise ArchitectureError(
            f"{type(model).__name__} is an encoder-decoder: token attribution is for causal and masked "
            f"language models, and for classifiers without a decoder"
        )
    if given is not None:
        check_choice("task", given, get_args(Task))
        return given
    for kind in type(without_adapters(model)).__mro__:
        for pattern, task in _HEADS.items():
            if re.search(pattern, kind.__name__):
                _check_causal(kind, config, task)
                return task
    raise ArchitectureError(
        f"{type(model).__name__} has no head that is known: a bare encoder returns hidden states, which are "
        f"no words and no classes. Known are ...ForCausalLM, ...LMHeadModel, ...ForMaskedLM, "
        f"...ForSequenceClassification, ...ForTokenClassification and ...ForQuestionAnswering; for a class "
        f"with another name give task=, one of {', '.join(get_args(Task))}"
    )


def without_adapters(model: Any) -> Any:
    """Returns the model inside of a model of peft; any other model as it is."""
    base = getattr(model, "get_base_model", None)
    return base() if callable(base) else model


def arguments_of(model: Any) -> frozenset[str]:
    """Returns the names of the arguments that the forward pass of a model takes."""
    return frozenset(signature(without_adapters(model).forward).parameters)


def reads_last_token(model: Any, task: Task) -> bool:
    """Returns whether a classifier reads the last token that is no padding, as causal models do."""
    return task == "text-classification" and not _has_masked_head(type(without_adapters(model)))


def _has_masked_head(kind: type) -> bool:
    return any(name.endswith("ForMaskedLM") for name in vars(sys.modules[kind.__module__]))


def _check_causal(kind: type, config: Any, task: Task) -> None:
    """Raises an error for an encoder with the head of a language model, whose tokens see those after them."""
    if task != "text-generation" or getattr(config, "is_decoder", True):
        return
    if _has_masked_head(kind):
        raise ArchitectureError(
            f"{kind.__name__} is an encoder, whose tokens see those that come after them: make it causal "
            f"with is_decoder=True in its config, or load it as ...ForMaskedLM"
        )
