"""Which layers hold the hidden states of a transformer, and whether a token sees those that follow it."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import ArgumentError, ShapeError
from ...core.hooks import hooked, run_past_errors
from ...core.kinds import shown
from ...core.modules import without_wrapper
from ...core.targets import resolve
from ..model.hook_points import HookPoint
from ..model.hooked_model import HookedModel
from ..model.point_names import wanted_names

_VECTORS = (("batch",), ("position",), ("width",))


def hidden_state_layers(model: nn.Module) -> tuple[str, ...]:
    """Returns the names of the embedding and of the blocks of a transformer.

    What they return are the ``hidden_states`` of Hugging Face, without the final norm that many models apply
    to the last one.

    Args:
        model: A model of Hugging Face.

    Raises:
        ArchitectureError: No attention or no residual stream was found in it.

    Example:
        >>> from toumei.models import facts_gpt
        >>> hidden_state_layers(facts_gpt()[0])[:3]
        ('transformer.drop#0', 'transformer.h.0', 'transformer.h.1')
    """
    hooks = HookedModel(model).points
    embedding = hooks.points["blocks.0.hook_resid_pre"].layer
    after = [hooks.points[f"blocks.{layer}.hook_resid_post"].layer for layer in range(hooks.layers)]
    for name, blocks in without_wrapper(model).named_modules():
        names = [f"{name}.{index}" for index in range(hooks.layers)]
        if isinstance(blocks, nn.ModuleList) and len(blocks) == hooks.layers:
            inside = zip(after, names, strict=True)
            if all(re.match(rf"{re.escape(block)}[./#]", layer) for layer, block in inside):
                return embedding, *names
    return embedding, *after


def named_layers(model: nn.Module, names: Any) -> tuple[str, ...]:
    """Returns the native names of layers.

    Args:
        model: A model.
        names: Native names, or names of activations as `HookedModel` has them: ``"blocks.3.hook_mlp_out"``,
            ``("mlp_out", 3)``, ``"resid_post"``.

    Raises:
        ArgumentError: There are no names, or one comes twice.
        LayerError: The model has no such layer.
        ShapeError: The activation has no vector for each token.

    Example:
        >>> from toumei.models import facts_gpt
        >>> named_layers(facts_gpt()[0], ["transformer.h.2", ("mlp_out", 2)])
        ('transformer.h.2', 'transformer.h.2.mlp.dropout#0')
    """
    if isinstance(names, str) or (isinstance(names, tuple) and any(isinstance(one, int) for one in names)):
        names = [names]
    if not isinstance(names, Sequence) or not names:
        raise ArgumentError(f"expected the names of different layers, got {shown(names)}")
    module, found = without_wrapper(model), list[str]()
    modules = dict(module.named_modules())
    for name in names:
        is_native = isinstance(name, str) and "hook_" not in name and (name in modules or "." in name)
        found += resolve(module, [name]) if is_native else _of_activations(model, name)
    if len(set(found)) < len(found):
        raise ArgumentError(f"expected the names of different layers, got {shown(list(names))}")
    return tuple(found)


def _of_activations(model: nn.Module, name: Any) -> list[str]:
    """The layers that hold activations with a vector for each token."""
    points = HookedModel(model).points
    wanted = {one: points.points.get(one) for one in wanted_names(model, name, points)}
    for one, point in wanted.items():
        if not isinstance(point, HookPoint) or point.columns is not None or point.axes != _VECTORS:
            raise ShapeError(
                f"{one!r} is no layer with a vector for each token: name a residual stream, or the output or "
                f"the neurons of a layer"
            )
    return [point.layer for point in wanted.values() if isinstance(point, HookPoint)]


def sees_later_tokens(model: nn.Module, layer: str, forward: Callable[[Tensor], Any], ids: Tensor) -> bool:
    """Returns whether the state of the first token depends on the last one, as in encoders.

    Args:
        model: The model.
        layer: The name of a layer with states (texts, tokens, width), with the number of its run.
        forward: Runs the model on ids.
        ids: (1, tokens), two tokens or more.
    """
    last = ids[:, -1:]
    other = torch.cat([ids[:, :-1], torch.where(last > 0, last - 1, last + 1)], 1)
    states = []
    for given in (ids, other):
        with hooked(model, {"state": layer}, stop=True, detach=True) as found:
            run_past_errors(lambda given=given: forward(given), found.complete, model, (given,))  # type: ignore[misc]
        states.append(found["state"].reshape(-1, found["state"].shape[-1])[0])
    size = float(states[0].abs().max())
    return bool((states[0] - states[1]).abs().max() > 1e-5 * size)
