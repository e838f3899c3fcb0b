"""What the parameters of a public function take, read from its annotations."""

from collections.abc import Callable
from functools import cache
from inspect import Parameter, signature
from typing import Any

from torch import nn

from .conversions import MISFIT
from .kinds import Kind, kind_of

LAYERS = ("layer", "layers")  # which may be given as modules
# Which have checks of their own. Arrays of pictures have channels last as a rule: nothing is converted there.
_ELSEWHERE = frozenset(
    ("methods", "objective", "thing", "reference", "layer_sizes", "image", "content_image", "style_image")
)
_SIZES = frozenset(("images", "channels", "height", "width"))  # of pictures, for which there is `check_size`


def _tokenizer(value: Any) -> Any:
    reads = callable(value) or hasattr(value, "mask_token_id")
    return value if reads and not isinstance(value, type) else MISFIT


def _axes(value: Any) -> Any:
    return value if hasattr(value, "plot") and hasattr(value, "spines") else MISFIT


_AXES = Kind("axes of matplotlib", _axes)
_AXES_OR_NONE = Kind("axes of matplotlib or None", lambda value: value if value is None else _axes(value))
MODEL = Kind("a torch.nn.Module", lambda value: value)
_TOKENIZER = Kind("a tokenizer of Hugging Face", _tokenizer)
_TOKENIZER_OR_NONE = Kind(
    "a tokenizer of Hugging Face or None", lambda value: value if value is None else _tokenizer(value)
)


@cache
def kinds_of_parameters(
    door: Callable[..., Any],
) -> tuple[dict[str, tuple[Kind | None, bool]], Callable[..., Any]]:
    """Returns the kinds of parameters, and what binds arguments to them.

    Args:
        door: A public function.

    Returns:
        By name the kind of each parameter that is looked at and whether it takes many values, as ``*names``
        does; and `Signature.bind` of the function.

    Example:
        >>> def sample(count: int, *names: str, unknown=None): ...
        >>> kinds, bind = kinds_of_parameters(sample)
        >>> {name: (kind.words, many) for name, (kind, many) in kinds.items()}
        {'count': ('a whole number', False), 'names': ('a string', True)}
    """
    found = {}
    form = signature(door)
    drawn = door.__module__.startswith("toumei.plots")
    sized = form.parameters.keys() >= _SIZES
    for name, parameter in form.parameters.items():
        if parameter.annotation is Parameter.empty or parameter.kind is Parameter.VAR_KEYWORD:
            continue
        if (name in _ELSEWHERE and not drawn) or (sized and name in _SIZES):
            continue
        kind = _named_kind(door, parameter) or _kind(door, parameter)
        words = "" if kind is None else kind.words
        if (name in ("target", "targets") and "a function" in words) or (
            name == "method" and "None" in words
        ):
            continue  # a target of attribution, a method with a message of its own
        if kind is not None or name in LAYERS:
            found[name] = kind, parameter.kind is Parameter.VAR_POSITIONAL
    return found, form.bind


def _named_kind(door: Callable[..., Any], parameter: Parameter) -> Kind | None:
    """The kinds of models and of tokenizers, which may be missing for tokens that are numbers."""
    if parameter.name == "model" and parameter.annotation is nn.Module:
        return MODEL
    if parameter.name == "ax":
        return _AXES if parameter.default is Parameter.empty else _AXES_OR_NONE
    if parameter.name == "tokenizer":
        optional = parameter.default is None or door.__name__ == "token_attribution"
        return _TOKENIZER_OR_NONE if optional else _TOKENIZER
    return None


def _kind(door: Callable[..., Any], parameter: Parameter) -> Kind | None:
    annotation = parameter.annotation
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, getattr(door, "__globals__", {}))
        except (NameError, AttributeError, TypeError):  # a name that only type checkers import
            return None
    kind = kind_of(annotation)
    if kind is not None and parameter.default is None:
        kind = kind_of(annotation | None) if isinstance(annotation, type) else kind
    return kind
