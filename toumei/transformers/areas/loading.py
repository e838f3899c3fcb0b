"""The model and the tokenizer that a user gives, or names."""

from typing import Any

import torch
from torch import nn

from ...core.devices import as_device
from ...core.errors import ArgumentError
from ...core.kinds import shown
from ...core.modules import check_model, device_and_dtype
from ..model.hooked_model import HookedModel


def model_and_tokenizer(
    model: Any, tokenizer: Any, device: str | torch.device | None
) -> tuple[nn.Module, Any]:
    """Returns the module and the tokenizer, which are loaded in float32 where a name is given.

    Args:
        model: A module, a `HookedModel`, or the name of a model or its folder.
        tokenizer: A tokenizer; None for that of the model.
        device: Where a model that is named is loaded; None is the CPU.

    Raises:
        ArgumentError: There is no such model, no tokenizer, or the model is on another device.
    """
    where = None if device is None else as_device(device)
    if isinstance(model, str):
        hooked = HookedModel.from_pretrained(model, dtype=torch.float32)
        hooked.model.to(where or "cpu")
        model, tokenizer = hooked.model, tokenizer or hooked.tokenizer
    elif isinstance(model, HookedModel):
        model, tokenizer = model.model, tokenizer or model.tokenizer
    check_model(model)
    there = device_and_dtype(model)[0]
    if where is not None and there.type != where.type:
        raise ArgumentError(f"the model is on {there}, and device is {device}: move it with model.to")
    if tokenizer is None or not (callable(tokenizer) and hasattr(tokenizer, "decode")):
        raise ArgumentError(f"expected the tokenizer of the model, got {shown(tokenizer)}")
    return model, tokenizer
