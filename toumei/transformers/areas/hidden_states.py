"""Which layers hold the hidden states of a transformer, and whether a token sees those that follow it."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...core.hooks import hooked, run_past_errors
from ...core.modules import without_wrapper
from ..model.hooked_model import HookedModel


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
