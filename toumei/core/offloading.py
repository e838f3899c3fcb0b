"""Weights that accelerate keeps in memory or on a disk until the module that uses them runs."""

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


def stored_weight(model: nn.Module, name: str) -> Tensor | None:
    """Returns the numbers of a weight on the meta device, where accelerate keeps them; None if it has none.

    Args:
        model: The model.
        name: Name of a parameter or buffer.
    """
    parts = name.split(".")
    for cut in range(len(parts) - 1, -1, -1):  # the hook may be that of a module around it
        for hook in _hooks(model.get_submodule(".".join(parts[:cut]))):
            try:
                found: Tensor = hook.weights_map[".".join(parts[cut:])]
            except (AttributeError, TypeError, KeyError):  # no hook that offloads, or not this weight
                continue
            return found
    return None


def loaded_weight(model: nn.Module, name: str) -> Tensor:
    """Returns a parameter or buffer as it is when its module runs: an offloaded one is loaded.

    Args:
        model: The model.
        name: Its name.

    Raises:
        AttributeError: The model has none of this name.

    Example:
        >>> loaded_weight(nn.Sequential(nn.BatchNorm1d(2)), "0.running_mean")
        tensor([0., 0.])
    """
    module, _, last = name.rpartition(".")
    weight: Tensor = getattr(model.get_submodule(module), last)
    if not weight.is_meta:
        return weight
    stored = stored_weight(model, name)
    return weight if stored is None else stored.to(execution_device(model) or stored.device)


def execution_device(model: nn.Module) -> torch.device | None:
    """Returns the device on which the first offloaded module of a model runs; None if none is offloaded."""
    for module in model.modules():
        for hook in _hooks(module):
            if getattr(hook, "offload", False) and hook.execution_device is not None:
                return torch.device(hook.execution_device)
    return None


def has_offloaded(model: nn.Module) -> bool:
    """Returns whether weights of a model are on the meta device until they are needed."""
    if not any(one.is_meta for one in chain(model.parameters(), model.buffers())):
        return False
    return execution_device(model) is not None


def _hooks(module: nn.Module) -> list[Any]:
    """The hooks of accelerate on a module."""
    hook = getattr(module, "_hf_hook", None)
    return [] if hook is None else list(getattr(hook, "hooks", [hook]))
