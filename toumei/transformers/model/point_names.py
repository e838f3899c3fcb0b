"""The names of activations: short forms, patterns, and what is said about unknown ones."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from torch import Tensor, nn

from ...core.errors import ArgumentError, LayerError, ToumeiError
from ...core.kinds import shown
from ...core.modules import without_wrapper
from ...core.summaries import counted
from ...core.targets import resolve
from .hook_search import HookPoints

Key = str | tuple[str, int] | tuple[str, int, str]
Names = str | Key | Iterable[str | Key] | Callable[[str], bool] | None

_ATTENTION = {
    name: name for name in ("q", "k", "v", "z", "pattern", "attn_scores", "result", "rot_q", "rot_k")
}
_ATTENTION |= {"attn": "pattern", "scores": "attn_scores"}
_MLP = {"pre": "pre", "post": "post", "pre_linear": "pre_linear", "mlp_pre": "pre", "mlp_post": "post"}
_NORMS = ("scale", "normalized")
_WHOLE = {"embed": "hook_embed", "pos_embed": "hook_pos_embed"}


def full_name(key: Key, layers: int = 0) -> str:
    """Returns the name of a hook point for a short form, ``("pattern", 5)`` or ``("resid_pre", 0)``.

    Args:
        key: The short form, or a name, which is returned.
        layers: How many layers there are, for those that are counted from the last one, -1.

    Raises:
        ArgumentError: It is no name.

    Example:
        >>> full_name(("q", 3)), full_name(("post", 0, "mlp")), full_name(("scale", 2, "ln1"))
        ('blocks.3.attn.hook_q', 'blocks.0.mlp.hook_post', 'blocks.2.ln1.hook_scale')
        >>> full_name(("resid_post", -1), layers=12)
        'blocks.11.hook_resid_post'
        >>> full_name("embed")
        'hook_embed'
    """
    if isinstance(key, str):
        return _WHOLE.get(key, key)
    kinds = tuple(map(type, key)) if isinstance(key, tuple) else ()
    if kinds not in ((str, int), (str, int, str)):
        raise ArgumentError(
            f"expected the name of an activation, or a short name and a layer such as ('pattern', 5), got "
            f"{shown(key)}"
        )
    name, layer = key[0].removeprefix("hook_"), key[1] + layers * (-layers <= key[1] < 0)
    inside = key[2] if len(key) > 2 else None
    if name in _NORMS:
        return f"blocks.{layer}.{inside or 'ln1'}.hook_{name}"
    if name in _ATTENTION and inside in (None, "attn"):
        return f"blocks.{layer}.attn.hook_{_ATTENTION[name]}"
    if name in _MLP or inside == "mlp":
        return f"blocks.{layer}.mlp.hook_{_MLP.get(name, name)}"
    return f"blocks.{layer}.hook_{name}"


def wanted_names(model: nn.Module, names: Any, points: HookPoints, *, edited: bool = False) -> list[str]:
    """Returns the full names of what is asked for.

    Args:
        model: The model.
        names: A name or several, short or full, patterns with ``*``, native names; a function of the name;
            None for all.
        points: The hook points of the model.
        edited: Whether they are edited: one name, pattern or function, and no results of single heads.

    Raises:
        LayerError: A name that the model does not have; the message says why, or what is near.
        ArgumentError: Something else than names.
    """
    known = list(points.points if edited else points.names)
    if names is None and not edited:
        return known
    if callable(names):
        found = [name for name in known if names(name)]
        if edited and not found:
            raise LayerError(
                f"the function accepts none of {counted(len(known), 'name')}, such as {known[0]!r}"
            )
        return found
    single = isinstance(names, str) or (isinstance(names, tuple) and any(isinstance(n, int) for n in names))
    listed = isinstance(names, Iterable) and not isinstance(names, Tensor | np.ndarray)
    if not single and (edited or not listed):
        raise ArgumentError(
            f"expected names of activations, such as 'blocks.0.attn.hook_z', ('z', 0) or 'z', or a function "
            f"of the name, got {shown(names)}"
        )
    found_names: dict[str, None] = {}
    for key in [names] if single else names:
        found_names |= dict.fromkeys(_matching(model, key, known, points))
    return list(found_names)


def _matching(model: nn.Module, key: Any, known: list[str], points: HookPoints) -> list[str]:
    """The full names that a name, short name or pattern means."""
    name = full_name(key, points.layers)
    if name in points.points or name in known:
        return [name]
    if "*" in name or "?" in name:
        matching = [one for one in known if fnmatchcase(one, name)]
    else:  # a short name means all layers
        layered = {full_name((name, layer)) for layer in range(points.layers)}
        matching = [one for one in known if one in layered]
    if matching:
        return matching
    short = full_name((name, 0)) if "." not in name else name
    if name in points.names or short in points.names:
        raise LayerError(f"{name!r} is computed from the outputs of the heads: edit 'blocks.0.attn.hook_z'")
    try:
        resolve(without_wrapper(model), [name])
    except ToumeiError:
        raise LayerError(unknown_point(short if short in points.missing else name, points)) from None
    return [name]


def unknown_point(name: str, points: HookPoints | None, others: Iterable[str] = ()) -> str:
    """Returns why there is no point of a name, and what there is."""
    known = list(dict.fromkeys([*([] if points is None else points.names), *others]))
    if points is not None and name in points.missing:
        return f"this model has no {name!r}: {points.missing[name]}"
    short = {} if "." in str(name) else {one.rpartition(".")[2].removeprefix("hook_"): None for one in known}
    near = get_close_matches(str(name), [*known, *short], n=6, cutoff=0.6)
    hint = f"did you mean {', '.join(near)}?" if near else f"there is {', '.join(known[:6])}, ..."
    if points is not None and name.startswith("blocks."):
        hint = f"{hint} The model has blocks 0 to {points.layers - 1}"
    return f"there is no activation {name!r}: {hint}"
