"""The settings of an edit, and the settings of the papers for the models that they edit."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ....core.checks import check_counts
from ....core.errors import ArgumentError
from ....core.summaries import counted, line_of


@dataclass(frozen=True)
class EditSettings:
    """The settings of an edit.

    Attributes:
        layers: The layers whose down-projections are changed, ascending.
        steps: The largest number of optimizer steps for a value.
        lr: The learning rate of Adam.
        stop: The loss at which the optimization stops.
        clamp: The largest norm of the vector that is added to a value, in multiples of the value's norm.
        weight_decay: The weight of the norm of that vector, over the squared norm of the value.
        kl: The weight of the divergence of the predictions after "{subject} is a" from those of the model.
        prefixes: The sampled contexts in which a subject is read, besides the prompt alone: pairs (how many,
            tokens in each).
        hold_weight: The weight of the divergence of the predictions in the subject's held continuations, if
            there are some, from those of the model.
        ridge: Lambda of MEMIT, and the weight of the second moment in EMMET.
        emmet_ridge: The ridge of EMMET for several facts.
        null_threshold: The largest second moment of a direction that AlphaEdit treats as unused.
        null_ridge: The ridge of AlphaEdit.

    Raises:
        ArgumentError: There are no layers, or a number is out of its range.

    Example:
        >>> EditSettings(layers=(17,)).clamp
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

    __repr__ = line_of

    def __post_init__(self) -> None:
        listed = self.layers if isinstance(self.layers, list | tuple) else ()
        whole = all(type(layer) is int for layer in listed)
        if not listed or not whole or list(listed) != sorted(set(listed)):
            raise ArgumentError(f"expected one or more layers in ascending order, got {self.layers}")
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ArgumentError(f"steps must be a whole number above 0, got {self.steps!r}")
        check_counts(1, steps=self.steps)
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
_FEW = ((5, 10),)  # the five sampled contexts of MEMIT
_LLAMA = {"steps": 25, "weight_decay": 1e-3}
_Preset = dict[str, Any]  # fields of `EditSettings`
_Model = tuple[Any, ...]  # (config.model_type, layers) or (type, layers, vocabulary)
# The network of `toumei.models.facts_model`. Its values have small norms, so large steps overshoot.
_FACTS = ("gpt2", 6, 443)
_LLAMA3 = ("llama", 32, 128256)
_ROME: dict[_Model, _Preset] = {
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
_FACTS_AT_ONCE: _Preset = {"layers": (2,), "stop": 0.2, "clamp": 1.5, "ridge": 300.0}
_MEMIT: dict[_Model, _Preset] = {
    _FACTS: _FACTS_AT_ONCE,
    _LLAMA3: {"layers": (4, 5, 6, 7, 8), "steps": 25, "lr": 0.1, "clamp": 0.75},
    ("gpt2", 48): {"layers": (13, 14, 15, 16, 17), "clamp": 0.75, "ridge": 20000.0},
    ("gptj", 28): {"layers": (3, 4, 5, 6, 7, 8), "steps": 25, "clamp": 0.75},
    ("llama", 32): {"layers": (4, 5, 6, 7, 8), **_LLAMA},
    ("llama", 28): {"layers": (4, 5, 6, 7, 8), **_LLAMA},
    ("mistral", 32): {"layers": (4, 5, 6, 7, 8), **_LLAMA},
    ("qwen2", 28): {"layers": (4, 5, 6, 7, 8), **_LLAMA},
}
_EMMET: dict[_Model, _Preset] = {
    _FACTS: _FACTS_AT_ONCE,
    ("gpt2", 48): {"layers": (17,), "ridge": 1000.0},
    ("gptj", 28): {"layers": (5,), "ridge": 1.0},
    ("llama", 32): {"layers": (5,), **_LLAMA, "ridge": 1.0},
}
_ALPHAEDIT = {**_MEMIT, _FACTS: {**_FACTS_AT_ONCE, "null_threshold": 0.01, "null_ridge": 0.1}}
HYPERPARAMETERS: dict[str, dict[_Model, _Preset]] = {
    "rome": _ROME,
    "r-rome": _ROME,
    "memit": {key: {**preset, "prefixes": _FEW} for key, preset in _MEMIT.items()},
    "emmet": {key: {**preset, "prefixes": _FEW} for key, preset in _EMMET.items()},
    "alphaedit": {key: {**preset, "prefixes": _FEW} for key, preset in _ALPHAEDIT.items()},
}
"""For each method the papers' settings by (`config.model_type`, layers) or (type, layers, vocabulary).

Fields that are not listed have the defaults of `EditSettings`. The settings of Llama, Mistral and Qwen are
those of EasyEdit, which edits them without statistics; those of Llama 3 for MEMIT and AlphaEdit are those of
AlphaEdit. The settings of the network that ships with toumei were found for it.
"""


def settings_for(
    method: str,
    kind: str,
    layers: int,
    given_layers: Sequence[int] | None = None,
    vocabulary: int | None = None,
    **given: Any,
) -> EditSettings:
    """Returns the papers' settings for a model, with some of them replaced.

    Args:
        method: The name of the editing method.
        kind: The model's `config.model_type`.
        layers: The number of layers of the model.
        given_layers: The layers to edit; by default the papers'.
        vocabulary: The number of tokens, which distinguishes models of one type and depth.
        **given: Other fields of `EditSettings` that replace the papers'.

    Raises:
        ArgumentError: No paper says which layers to edit in such a model, or there is no such setting.

    Example:
        >>> settings_for("rome", "gpt2", 48).layers
        (17,)
    """
    known = [field.name for field in fields(EditSettings)]
    if unknown := [name for name in given if name not in known]:
        raise ArgumentError(f"no setting {unknown[0]!r}: there are {', '.join(known[1:])}")
    presets = HYPERPARAMETERS.get(method, {})
    preset = presets.get((kind, layers, vocabulary)) or presets.get((kind, layers), {})
    if given_layers is not None:
        preset = {**preset, "layers": tuple(given_layers)}
    if "layers" not in preset:
        raise ArgumentError(
            f"no paper edits a {kind} of {counted(layers, 'layer')} with {method!r}: give the layer, or "
            "layer='trace' to take the layer that a causal trace finds"
        )
    return replace(EditSettings(**preset), **given)
