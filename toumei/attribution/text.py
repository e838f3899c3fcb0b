"""Which tokens of a text made a language model say something, or a classifier decide so."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import ArchitectureError, ArgumentError, ShapeError, UnitError
from ..core.modules import device_and_dtype, evaluating
from ..core.outputs import main_tensor
from .base.baselines import AtLayer, Baseline, Constant
from .base.method import Method
from .base.result import Attribution, parts_of
from .gradient.integrated_gradients import IntegratedGradients


@dataclass(frozen=True)
class LogProbability:
    """The log-probability of a token, or how much larger it is than that of another, as a target.

    Args:
        token: Index of the token.
        against: Index of another token whose log-probability is subtracted.
        position: Place in the text whose prediction is meant; the last by default.

    Example:
        >>> logits = torch.tensor([[[0.0, 0.0], [1.0, 3.0]]])
        >>> LogProbability(1, against=0)(logits)
        tensor([2.])
    """

    token: int
    against: int | None = None
    position: int = -1

    def __call__(self, logits: Tensor) -> Tensor:
        """Returns the scores (N,) of logits (N, T, V).

        Raises:
            ShapeError: Logits of another shape.
            UnitError: A token or a place that there is not.
        """
        if logits.dim() != 3:
            raise ShapeError(f"expected logits (N, T, V) of a language model, got {tuple(logits.shape)}")
        places, count = logits.shape[1:]
        for token in (self.token, *(() if self.against is None else (self.against,))):
            _check_token(token, count)
        if not -places <= self.position < places:
            raise UnitError(f"no place {self.position} in a text of {places} tokens")
        own = logits[:, self.position]
        if self.against is not None:  # the normalizers of both cancel
            return own[:, self.token] - own[:, self.against]
        return own.log_softmax(-1)[:, self.token]


TokenTarget = str | int | None
MethodOf = Callable[[nn.Module, str | None], Method]


def token_attribution(
    model: nn.Module,
    tokenizer: Any,
    text: str | Tensor,
    target: TokenTarget | Sequence[TokenTarget] = None,
    against: str | int | None = None,
    *,
    method: MethodOf = IntegratedGradients,
    baseline: str | int | Baseline | None = None,
    **options: Any,
) -> Attribution:
    """Returns the contribution of each token of a text, (1, tokens), to what a model says of it.

    Methods that need gradients attribute to the embeddings and sum over their channels; the others take
    tokens away.

    Args:
        model: A causal or masked language model or a classifier of Hugging Face, but no encoder-decoder.
        tokenizer: Its tokenizer; None where `text` and targets are numbers.
        text: The text, or its tokens (1, tokens). A masked language model is asked for its mask token.
        target: For a language model the token that comes next: its string, of one token, or its index; the
            score is its log-probability. For a classifier the index of the class. What the model says by
            default. A list for several targets at once.
        against: Another token (or class): the score is the difference of both.
        method: From a network and a layer, or None, to a method: a class or a function, such as
            ``functools.partial(SmoothGrad, of=InputXGradient)``.
        baseline: What stands for absence: a token's string or index, or an object of
            `toumei.attribution` for what is attributed to. By default embeddings of zero, and where
            tokens are taken away the tokenizer's mask, unknown or padding token.
        **options: Those of the method.

    Raises:
        ArchitectureError: An encoder-decoder.
        ArgumentError: A target of several tokens, a text without tokens, a method that does not attribute to
            tokens, or no model of Hugging Face.
        UnitError: A token or class that does not exist.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> fact = world.facts[0]
        >>> result = token_attribution(model, tokenizer, fact.text, fact.target)
        >>> result.tokens[0][3:5], tuple(result.values.shape)
        (('Yara', 'Castell'), (1, 7))
    """
    tokens = _tokens(tokenizer, text).to(device_and_dtype(model)[0])
    position = _asked(tokenizer, tokens)
    network = _Network(model, position)
    for token in tokens.unique().tolist():
        _check_token(token, network.vocabulary)
    made = _made(method, network)
    with evaluating(model), torch.no_grad():
        logits = network(tokens)
    generates = logits.dim() == 3
    given: Sequence[Any] = target if isinstance(target, list | tuple) else [target]
    scale = logits[0, position] if generates else logits[0]
    chosen = [int(scale.argmax()) if own is None else _index(tokenizer, own, len(scale)) for own in given]
    other = None if against is None else _index(tokenizer, against, len(scale))
    targets = [_target(own, other, position if generates else None) for own in chosen]
    result = made(
        tokens,
        targets if isinstance(target, list | tuple) else targets[0],
        _baseline(tokenizer, tokens, baseline, made.layer, network.vocabulary),
        **options,
    )
    called = [
        _called(model, tokenizer, index, generates)
        for index in (*chosen, *([] if other is None else [other]))
    ]
    names = [name if other is None else f"{name} - {called[-1]}" for name in called[: len(chosen)]]
    return replace(
        result,
        values=_of_tokens(result, tokens, made.layer),
        # errors of sums are not known from those of their terms
        standard_error=result.standard_error if made.layer is None else None,
        tokens=(tuple(_decoded(tokenizer, index) for index in tokens[0].tolist()),),
        names=tuple(names),
    )


class _Network(nn.Module):
    """A model that is asked for no more than is needed: logits of the last token alone, and no cache."""

    def __init__(self, model: Any, position: int) -> None:
        super().__init__()
        if not hasattr(model, "get_input_embeddings"):
            raise ArgumentError(
                f"expected a model of Hugging Face with get_input_embeddings, got {type(model).__name__}"
            )
        if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
            raise ArchitectureError(
                f"{type(model).__name__} is an encoder-decoder: tokens are attributed to for causal and "
                f"masked language models, and for classifiers without a decoder"
            )
        self.model = model
        known = signature(model.forward).parameters
        wanted = {"use_cache": False, **({"logits_to_keep": 1} if position == -1 else {})}
        self.options = {name: value for name, value in wanted.items() if name in known}
        self.masked = "attention_mask" in known
        embeddings = model.get_input_embeddings()
        self.embeddings = next(name for name, module in self.named_modules() if module is embeddings)
        self.vocabulary = int(embeddings.weight.shape[0])

    def forward(self, tokens: Tensor) -> Tensor:
        # every token counts, also one that is hidden behind the token for padding
        mask = {"attention_mask": torch.ones_like(tokens)} if self.masked else {}
        return main_tensor(self.model(tokens, **mask, **self.options))


def _made(method: MethodOf, network: _Network) -> Method:
    """The method, of the embeddings if it needs gradients, else of the tokens."""
    if isinstance(method, Method) or not _takes_two(method):
        raise ArgumentError(
            f"method is a class, or a function of a network and a layer, that gives a method: got {method!r}"
        )
    made = method(network, network.embeddings)
    if isinstance(made, Method) and not made.differentiates:
        made = method(network, None)
    if not isinstance(made, Method):
        raise ArgumentError(f"{method!r} gives no method, but {type(made).__name__}")
    wanted = network.embeddings if made.differentiates else None
    if made.layer != wanted:
        raise ArgumentError(
            f"{made!r} attributes to {_place(made.layer)}, but tokens need one that does to {_place(wanted)}"
        )
    return made


def _takes_two(method: Any) -> bool:
    """Whether it can be called with a network and a layer."""
    try:
        signature(method).bind(None, None)
    except (TypeError, ValueError):
        return False
    return True


def _place(layer: str | None) -> str:
    return "the inputs" if layer is None else f"the layer {layer!r}"


def _of_tokens(result: Attribution, tokens: Tensor, layer: str | None) -> Tensor:
    """What each token contributes, (1, tokens) for each target, of what its embedding does."""
    (values,) = parts_of(result.values)
    own = values.shape[1:] if result.several else values.shape
    if own != (tokens.shape if layer is None else (*tokens.shape, *own[-1:])):
        raise ArgumentError(
            f"{result.method} does not attribute to tokens: its values are {tuple(own)} for "
            f"{tokens.shape[1]} tokens"
        )
    return values if layer is None else values.sum(-1)


def _check_token(token: int, count: int) -> None:
    if not 0 <= token < count:
        raise UnitError(f"no token {token}: there are {count}, 0 to {count - 1}")


def _tokens(tokenizer: Any, text: str | Tensor) -> Tensor:
    tokens = text if isinstance(text, Tensor) else _encoded(tokenizer, text, return_tensors="pt")
    if tokens.dim() != 2 or len(tokens) != 1 or not tokens.shape[1]:
        raise ArgumentError(f"expected one text with at least one token, got tokens {tuple(tokens.shape)}")
    return tokens.long()


def _encoded(tokenizer: Any, text: str, **options: Any) -> Any:
    if tokenizer is None:
        raise ArgumentError(
            f"without a tokenizer, texts are tokens (1, tokens) and targets numbers: got {text!r}"
        )
    return tokenizer(text, **options)["input_ids"]


def _asked(tokenizer: Any, tokens: Tensor) -> int:
    """The place whose prediction is meant: the mask token's, or the last."""
    mask = getattr(tokenizer, "mask_token_id", None)
    places = [] if mask is None else (tokens[0] == mask).nonzero()[:, 0].tolist()
    return places[0] if places else -1


def _index(tokenizer: Any, target: str | int, count: int) -> int:
    if isinstance(target, str):
        own = _encoded(tokenizer, target, add_special_tokens=False)
        if len(own) != 1:
            shown = [_decoded(tokenizer, index) for index in own]
            raise ArgumentError(f"a target is one token, {target!r} is {len(own)}: {shown}")
        return int(own[0])
    if not 0 <= target < count:
        raise UnitError(f"no token or class {target}: there are {count}, 0 to {count - 1}")
    return target


def _target(index: int, against: int | None, position: int | None) -> Any:
    if position is not None:
        return LogProbability(index, against, position)
    return index if against is None else lambda output: output[:, index] - output[:, against]


def _baseline(
    tokenizer: Any, tokens: Tensor, given: Any, layer: str | None, vocabulary: int
) -> Baseline | Tensor:
    if isinstance(given, Baseline):
        return given if layer is None else AtLayer(given)
    if given is None and layer is not None:
        return AtLayer(Constant())
    if given is None:
        names = ("mask_token_id", "unk_token_id", "pad_token_id", "eos_token_id")
        known = [getattr(tokenizer, name, None) for name in names]
        given = next((index for index in known if index is not None), 0)
    return torch.full_like(tokens, _index(tokenizer, given, vocabulary))


def _decoded(tokenizer: Any, index: int) -> str:
    return str(index) if tokenizer is None else str(tokenizer.decode([index])).replace("\n", "\\n")


def _called(model: Any, tokenizer: Any, index: int, generates: bool) -> str:
    if generates:
        return _decoded(tokenizer, index).strip()
    return str(getattr(model.config, "id2label", {}).get(index, index))
