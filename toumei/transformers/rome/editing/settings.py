"""The settings of an edit, and those that the papers use for the models that they edit."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ....core.errors import ArgumentError


@dataclass(frozen=True)
class Settings:
    """How an edit is made.

    Attributes:
        layers: The layers whose down-projections are changed, ascending.
        steps: Largest number of optimizer steps for a value.
        lr: Adam's learning rate.
        stop: The loss at which the optimization stops.
        clamp: Largest norm of what is added to a value, in norms of the value itself.
        weight_decay: Weight of the norm of what is added over the squared norm of the value.
        kl: Weight of the divergence from what the model says after "{subject} is a".
        prefixes: The contexts a subject is read in beside the bare prompt: pairs (how many, tokens in each)
            that are sampled from the model.
        hold_weight: Weight of the divergence from what the model says in the subject's other continuations,
            where some are given.
        ridge: Lambda of MEMIT, and the weight of the second moment in EMMET.
        emmet_ridge: The ridge of EMMET where there are several facts.
        null_threshold: Largest second moment of a direction that AlphaEdit counts as unused.
        null_ridge: The ridge of AlphaEdit.

    Raises:
        ArgumentError: There are no layers, or a number is out of its range.

    Example:
        >>> Settings(layers=(17,)).clamp
        4.0
    """

    layers: tuple[int, ...]
    steps: int = 20
    lr: float = 0.5
    stop: float = 0.05
    clamp: float = 4.0
    weight_decay: float = 0.5
    kl: float = 0.0625
    prefixes: tuple[tuple[int, int], ...] = ((10, 5), (10, 10))
    hold_weight: float = 1.0
    ridge: float = 15000.0
    emmet_ridge: float = 0.1
    null_threshold: float = 2e-2
    null_ridge: float = 10.0

    def __post_init__(self) -> None:
        if not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise ArgumentError(f"expected one or more layers in ascending order, got {self.layers}")
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ArgumentError(f"steps must be a whole number above 0, got {self.steps!r}")
        for name in _NUMBERS:
            value, least = getattr(self, name), "above" if name in _POSITIVE else "at least"
            if not isinstance(value, int | float) or not (value > 0 or (value == 0 and least == "at least")):
                raise ArgumentError(f"{name} must be a number {least} 0, got {value!r}")
        try:
            pairs = tuple((int(count), int(length)) for count, length in self.prefixes)
        except (TypeError, ValueError):
            pairs = ((0, 0),)
        if any(number < 1 for pair in pairs for number in pair):
            raise ArgumentError(f"prefixes are pairs (how many, tokens in each), got {self.prefixes!r}")
        object.__setattr__(self, "prefixes", pairs)


_POSITIVE = ("lr", "clamp", "null_threshold")
_NUMBERS = (*_POSITIVE, "stop", "weight_decay", "kl", "hold_weight", "ridge", "emmet_ridge", "null_ridge")
_FEW = ((5, 10),)  # MEMIT reads a subject in five sampled contexts
_LLAMA = {"steps": 25, "weight_decay": 1e-3}
Row = dict[str, Any]
# The network of `toumei.models.facts_model`: its values are short, so that large steps overshoot.
_FACTS = ("gpt2", 6, 443)
_LLAMA3 = ("llama", 32, 128256)
_ROME: dict[tuple[Any, ...], Row] = {
    _FACTS: {"layers": (2,), "steps": 30, "lr": 0.2, "clamp": 1.5},
    ("gpt2", 24): {"layers": (8,), "clamp": 3.0},
    ("gpt2", 36): {"layers": (12,)},
    ("gpt2", 48): {"layers": (17,)},
    ("gptj", 28): {"layers": (5,)},
    ("gpt_neox", 44): {"layers": (15,)},
    ("llama", 32): {"layers": (5,), **_LLAMA},
    ("llama", 28): {"layers": (5,), **_LLAMA},
    ("mistral", 32): {"layers": (5,), **_LLAMA},
    ("qwen2", 28): {"layers": (5,), **_LLAMA},
}
_FACTS_AT_ONCE: Row = {"layers": (2,), "stop": 0.2, "clamp": 1.5, "ridge": 300.0}
_MEMIT: dict[tuple[Any, ...], Row] = {
    _FACTS: _FACTS_AT_ONCE,
    _LLAMA3: {"layers": (4, 5, 6, 7, 8), "steps": 25, "lr": 0.1, "clamp": 0.75},
    ("gpt2", 48): {"layers": (13, 14, 15, 16, 17), "clamp": 0.75, "ridge": 20000.0},
    ("gptj", 28): {"layers": (3, 4, 5, 6, 7, 8), "steps": 25, "clamp": 0.75},
    ("llama", 32): {"layers": (4, 5, 6, 7, 8), **_LLAMA},
    ("llama", 28): {"layers": (4, 5, 6, 7, 8), **_LLAMA},
    ("mistral", 32): {"layers": (4, 5, 6, 7, 8), **_LLAMA},
    ("qwen2", 28): {"layers": (4, 5, 6, 7, 8), **_LLAMA},
}
_EMMET: dict[tuple[Any, ...], Row] = {
    _FACTS: _FACTS_AT_ONCE,
    ("gpt2", 48): {"layers": (17,), "ridge": 1000.0},
    ("gptj", 28): {"layers": (5,), "ridge": 1.0},
    ("llama", 32): {"layers": (5,), **_LLAMA, "ridge": 1.0},
}
_ALPHAEDIT = {**_MEMIT, _FACTS: {**_FACTS_AT_ONCE, "null_threshold": 0.01, "null_ridge": 0.1}}
HYPERPARAMETERS: dict[str, dict[tuple[Any, ...], Row]] = {
    "rome": _ROME,
    "r-rome": _ROME,
    "memit": {key: {**row, "prefixes": _FEW} for key, row in _MEMIT.items()},
    "emmet": {key: {**row, "prefixes": _FEW} for key, row in _EMMET.items()},
    "alphaedit": {key: {**row, "prefixes": _FEW} for key, row in _ALPHAEDIT.items()},
}
"""For each method the papers' settings by (`config.model_type`, layers) or (type, layers, vocabulary).

What a row does not say is the default of `Settings`. The rows of Llama, Mistral and Qwen are EasyEdit's,
which edits them without statistics, but those of Llama 3 for MEMIT and AlphaEdit AlphaEdit's own. The rows of
the network that ships with toumei are ours.
"""


def settings_for(
    method: str,
    kind: str,
    layers: int,
    given_layers: Sequence[int] | None = None,
    vocabulary: int | None = None,
    **given: Any,
) -> Settings:
    """Returns the papers' settings for a model, with the given ones in their place.

    Args:
        method: Name of the editing method.
        kind: The model's `config.model_type`.
        layers: How many layers it has.
        given_layers: The layers to edit; by default the papers'.
        vocabulary: How many tokens it knows, which tells apart models of one type and depth.
        **given: Other fields of `Settings`.

    Raises:
        ArgumentError: No paper says which layers to edit in such a model, or there is no such setting.

    Example:
        >>> settings_for("rome", "gpt2", 48).layers
        (17,)
    """
    known = [field.name for field in fields(Settings)]
    if strangers := [name for name in given if name not in known]:
        raise ArgumentError(f"no setting {strangers[0]!r}: there are {', '.join(known[1:])}")
    rows = HYPERPARAMETERS.get(method, {})
    row = rows.get((kind, layers, vocabulary)) or rows.get((kind, layers), {})
    if given_layers is not None:
        row = {**row, "layers": tuple(given_layers)}
    if "layers" not in row:
        raise ArgumentError(
            f"no paper edits a {kind} of {layers} layers with {method!r}: give the layer, or layer='trace' "
            f"to take the one that a causal trace points at"
        )
    return replace(Settings(**row), **given)
