"""The contribution of each token of a text to the output of a language model or a classifier."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ..core.checks import checked
from ..core.errors import ArchitectureError, ArgumentError, ShapeError, UnitError
from ..core.modules import device_and_dtype, evaluating
from ..core.outputs import main_tensor
from .base.baselines import AtLayer, Baseline, Constant
from .base.inputs import parts_of
from .base.method import Method
from .base.result import Attribution
from .gradient.integrated_gradients import IntegratedGradients


@checked
@dataclass(frozen=True)
class LogProbability:
    """The log-probability of a token, or its difference from that of another token, as a target.

    Args:
        token: Index of the token.
        against: Index of another token whose log-probability is subtracted.
        position: Position in the text at which the token is predicted; the last by default.

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
            UnitError: A token or a position that does not exist.
        """
        if logits.dim() != 3:
            raise ShapeError(f"expected logits (N, T, V) of a language model, got {tuple(logits.shape)}")
        length, count = logits.shape[1:]
        for token in (self.token, *(() if self.against is None else (self.against,))):
            _check_token(token, count)
        if not -length <= self.position < length:
            raise UnitError(f"no position {self.position} in a text of {length} tokens")
        predicted = logits[:, self.position]
        if self.against is not None:  # the normalizers of both cancel
            return predicted[:, self.token] - predicted[:, self.against]
        return predicted.log_softmax(-1)[:, self.token]


TokenTarget = str | int | None


@checked
def token_attribution(
    model: nn.Module,
    tokenizer: Any,
    text: str | Tensor,
    target: TokenTarget | Sequence[TokenTarget] = None,
    against: str | int | None = None,
    *,
    method: Method | None = None,
    baseline: str | int | Baseline | None = None,
) -> Attribution:
    """Returns the contribution of each token of a text, (1, tokens), to an output of a language model.

    Methods that need gradients attribute to the embeddings, and their contributions are summed over channels;
    other methods hide tokens.

    Args:
        model: A causal or masked language model or a classifier of Hugging Face, but no encoder-decoder.
        tokenizer: Its tokenizer; None where `text` and targets are numbers.
        text: The text, or its tokens (1, tokens). A masked language model predicts its mask token.
        target: For a language model the token that comes next: its string, of one token, or its index; the
            score is its log-probability. For a classifier the index of the class. By default the likeliest.
            A list for several targets at once.
        against: Another token (or class): the score is the difference of both.
        method: A configured method of the model, such as ``SmoothGrad(model, samples=20)``, without a layer;
            `IntegratedGradients` by default.
        baseline: What stands for absence: a token's string or index, or a baseline of `toumei.attribution`
            for what is attributed to. By default embeddings of zero, and where tokens are hidden the
            tokenizer's mask, unknown or padding token.

    Raises:
        ArchitectureError: An encoder-decoder.
        ArgumentError: A target of several tokens, a text without tokens, a method of another model or one
            that does not attribute to tokens, or a model that is not from Hugging Face.
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
    method = _on_tokens(IntegratedGradients(model) if method is None else method, network)
    with evaluating(model), torch.no_grad():
        logits = network(tokens)
    generates = logits.dim() == 3
    given: Sequence[Any] = target if isinstance(target, list | tuple) else [target]
    scores = logits[0, position] if generates else logits[0]
    chosen = [int(scores.argmax()) if one is None else _index(tokenizer, one, len(scores)) for one in given]
    other = None if against is None else _index(tokenizer, against, len(scores))
    targets = [_target(index, other, position if generates else None) for index in chosen]
    result = method(
        tokens,
        targets if isinstance(target, list | tuple) else targets[0],
        _baseline(tokenizer, tokens, baseline, method.layer, network.vocabulary),
    )
    return replace(
        result,
        values=_of_tokens(result, tokens, method.layer),
        # the error of a sum does not follow from the errors of its terms
        standard_error=result.standard_error if method.layer is None else None,
        tokens=(tuple(_decoded(tokenizer, index) for index in tokens[0].tolist()),),
        names=_names(model, tokenizer, chosen, other, generates),
    )


class _Network(nn.Module):
    """A model that computes no more than is needed: logits of the last token alone, and no cache."""

    def __init__(self, model: Any, position: int) -> None:
        super().__init__()
        if not hasattr(model, "get_input_embeddings"):
            raise ArgumentError(
                f"expected a model of Hugging Face with get_input_embeddings, got {type(model).__name__}"
            )
        if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
            raise ArchitectureError(
                f"{type(model).__name__} is an encoder-decoder: token attribution is for causal and masked "
                f"language models, and for classifiers without a decoder"
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
        # every token counts, also a hidden one that is replaced by the padding token
        mask = {"attention_mask": torch.ones_like(tokens)} if self.masked else {}
        return main_tensor(self.model(tokens, **mask, **self.options))


def _on_tokens(method: Method, network: _Network) -> Method:
    """The method for the embeddings if it needs gradients, else for the tokens.

    Raises:
        ArgumentError: No configured method, one of another model, or one of another layer.
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
    return method.with_model(network, network.embeddings if method.differentiates else None)


def _of_tokens(result: Attribution, tokens: Tensor, layer: str | None) -> Tensor:
    """The contribution of each token, (1, tokens) for each target, from those of its embedding."""
    (values,) = parts_of(result.values)
    shape = values.shape[1:] if result.several else values.shape
    if shape != (tokens.shape if layer is None else (*tokens.shape, *shape[-1:])):
        raise ArgumentError(
            f"{result.method} does not attribute to tokens: its values are {tuple(shape)} for "
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
    """The position that is predicted: that of the mask token, or the last."""
    mask = getattr(tokenizer, "mask_token_id", None)
    positions = [] if mask is None else (tokens[0] == mask).nonzero()[:, 0].tolist()
    return positions[0] if positions else -1


def _index(tokenizer: Any, target: str | int, count: int) -> int:
    if isinstance(target, str):
        tokens = _encoded(tokenizer, target, add_special_tokens=False)
        if len(tokens) != 1:
            shown = [_decoded(tokenizer, index) for index in tokens]
            raise ArgumentError(f"a target is one token, {target!r} is {len(tokens)}: {shown}")
        return int(tokens[0])
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


def _names(
    model: Any, tokenizer: Any, chosen: Sequence[int], other: int | None, generates: bool
) -> tuple[str, ...]:
    """The names of the targets, tokens or classes."""
    names = [_name(model, tokenizer, index, generates) for index in chosen]
    if other is None:
        return tuple(names)
    against = _name(model, tokenizer, other, generates)
    return tuple(f"{name} - {against}" for name in names)


def _name(model: Any, tokenizer: Any, index: int, generates: bool) -> str:
    if generates:
        return _decoded(tokenizer, index).strip()
    return str(getattr(model.config, "id2label", {}).get(index, index))
