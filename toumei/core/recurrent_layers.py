"""Recurrent layers whose gradients are wanted in evaluation mode, where cuDNN computes none."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def differentiable_recurrent(model: nn.Module) -> Iterator[None]:
    """Lets recurrent layers on CUDA that are in evaluation mode run without cuDNN while the block lasts.

    The backward pass of cuDNN's recurrent layers is an error unless they are in training mode. PyTorch's own
    layers compute the same, more slowly. Other models run as they are.

    Args:
        model: The model that runs in the block.

    Example:
        >>> with differentiable_recurrent(nn.LSTM(2, 2).eval()):
        ...     torch.backends.cudnn.enabled
        True
    """
    if not (torch.is_grad_enabled() and _lacks_gradients(model)):
        yield
        return
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False  # cudnn.flags() reads what torch 2.9 warns of
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


def _lacks_gradients(model: nn.Module) -> bool:
    """Whether cuDNN would compute a recurrent layer of a model without a backward pass."""
    if not torch.cuda.is_available():
        return False
    layers = (one for one in model.modules() if isinstance(one, nn.RNNBase) and not one.training)
    return any(weight.is_cuda for layer in layers for weight in layer.parameters())
