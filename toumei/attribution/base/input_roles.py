"""Which inputs stay as they are: masks, lengths, and whole numbers beside inputs that have gradients.

A mask or the lengths of sequences say how the other inputs are read. A baseline of zeros in their place would
be another question, so they have no contributions unless they are given a baseline or features of their own.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor

from ...core.errors import ArgumentError
from ...core.modules import without_wrapper
from ...core.user_warnings import warn
from .baselines import AtLayer, BaselineLike
from .inputs import Inputs, Preprocess, parts_of

_MASK = re.compile(r"(^|_)(\w*masks?|masked|padding|pad)(_|$)")
_LENGTHS = re.compile(r"(^|_)(\w*lengths?|\w*lens?)(_|$)")
_READING = ("token_type_ids", "position_ids")  # how Hugging Face's models are told segments and positions


def fixed_inputs(
    model: Callable[..., Any],
    inputs: Inputs,
    baselines: BaselineLike = None,
    preprocess: Preprocess | None = None,
    differentiates: bool = False,
    of_layer: bool = False,
) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """Returns which inputs do not change, and which do not change on a path from baselines to inputs.

    Masks, lengths, token types and position ids are known by the names of arguments (booleans also by their
    positions, where arguments have no names). On a path for a method that needs gradients, whole numbers and
    booleans do not change either, if other inputs have gradients.

    Args:
        model: The network.
        inputs: What the user gave.
        baselines: What the user gave: an input with a baseline of its own changes.
        preprocess: What takes the inputs in place of the network.
        differentiates: Whether gradients are needed.
        of_layer: Whether a layer is attributed to, and inputs only say what its baseline is.

    Raises:
        ArgumentError: A baseline of whole numbers that would not be used.
    """
    parts = parts_of(inputs)
    if len(parts) == 1:  # alone it is what is attributed to, whatever its name
        return (False,), (False,)
    names = _names(model if preprocess is None else preprocess, inputs)
    given = with_baselines(baselines, inputs)
    masks = [is_mask(name, part, parts) for name, part in zip(names, parts, strict=True)]
    reading = [mask and not has_baseline for mask, has_baseline in zip(masks, given, strict=True)]
    fixed = tuple(one and not all(reading) for one in reading)
    if not differentiates:
        return fixed, fixed
    floating = [part.is_floating_point() or part.is_complex() for part in parts]
    movable = any(one and not stays for one, stays in zip(floating, fixed, strict=True))
    of_path = tuple(stays or (movable and not one) for one, stays in zip(floating, fixed, strict=True))
    if of_layer:
        return fixed, of_path
    _check_whole_numbers(inputs, of_path, given, masks)
    return of_path, of_path


def is_mask(name: str | None, part: Tensor, parts: Sequence[Tensor]) -> bool:
    """Returns whether an input says how others are read: a mask, lengths, token types, position ids.

    Args:
        name: Of the argument, if it has one.
        part: The input.
        parts: All inputs.

    Example:
        >>> tokens = torch.zeros(2, 5)
        >>> is_mask("src_key_padding_mask", torch.ones(2, 5), [tokens])
        True
        >>> lengths = torch.tensor([5, 3])
        >>> is_mask("lengths", lengths, [tokens, lengths]), is_mask("petal_length", lengths / 2, [tokens])
        (True, False)
    """
    others = [other for other in parts if other is not part]
    if name is None:
        return part.dtype == torch.bool and any(_has_positions_of(part, other) for other in others)
    if _MASK.search(name.lower()) or name in _READING:
        return True
    if not _LENGTHS.search(name.lower()) or part.dtype == torch.bool or part.numel() != len(part):
        return False
    longest = max((size for other in others for size in other.shape[1:]), default=0)
    if part.is_floating_point():  # shares of the longest, as in speech, of several sequences
        longest = int(longest > 1 and name.lower().endswith("s"))
    return not part.is_complex() and bool((part >= 0).all()) and bool((part <= longest).all())


def _has_positions_of(mask: Tensor, other: Tensor) -> bool:
    sizes = {size for size in mask.shape[1:] if size > 1}
    return bool(sizes) and sizes <= set(other.shape[1:])


def _names(function: Callable[..., Any], inputs: Inputs) -> list[str | None]:
    """The names of the arguments that the inputs are for, None where they have none."""
    if isinstance(inputs, dict):
        return list(inputs)
    count = len(parts_of(inputs))
    called = getattr(without_wrapper(function), "forward", function)  # type: ignore[arg-type]
    try:
        parameters = list(signature(called).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    names: list[str | None] = [one.name for one in parameters if one.kind in positional]
    return [*names[:count], *[None] * (count - len(names))]


def with_baselines(baselines: BaselineLike, inputs: Inputs) -> list[bool]:
    """Returns which inputs have a baseline of their own.

    Example:
        >>> with_baselines({"ids": 3}, {"ids": torch.zeros(1, 2), "mask": torch.ones(1, 2)})
        [True, False]
    """
    count = len(parts_of(inputs))
    if isinstance(baselines, Mapping):
        found = [baselines.get(name) for name in inputs] if isinstance(inputs, dict) else [None] * count
    elif isinstance(baselines, list | tuple) and len(baselines) == count:
        found = list(baselines)
    else:
        return [False] * count
    return [one is not None and not isinstance(one, AtLayer) for one in found]


def _check_whole_numbers(
    inputs: Inputs, fixed: Sequence[bool], given: Sequence[bool], masks: Sequence[bool]
) -> None:
    """Raises an error, or warns, where whole numbers that are no mask stay as they are."""
    names = list(inputs) if isinstance(inputs, dict) else list(range(len(fixed)))
    told = [
        f"input {name!r} ({part.dtype})"
        for name, part, stays, has_baseline, mask in zip(
            names, parts_of(inputs), fixed, given, masks, strict=True
        )
        if stays and (has_baseline or not mask)
    ]
    dropped = any(stays and has_baseline for stays, has_baseline in zip(fixed, given, strict=True))
    if not told:
        return
    cause = (
        f"{', '.join(told)} has no gradient beside the others and stays as it is: attribute to the layer "
        f"that embeds it, as Method(model, layer=...), or hide parts (ExactShapley, KernelShap)"
    )
    if dropped:
        raise ArgumentError(f"the baseline of whole numbers would not be used: {cause}")
    warn(f"{cause}; its contributions are 0")
