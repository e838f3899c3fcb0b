"""The scale of a norm and its result before gain and bias, computed from what goes into the norm."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ...instrument import Normalization
from ...instrument.search.sources import arguments
from .hook_points import DerivedPoint, HookPoint

_PLACES = {"layer_norm": 4, "rms_norm": 3}  # of eps among the arguments


def points_of_norm(prefix: str, norm: Normalization, given: HookPoint) -> Iterator[DerivedPoint]:
    """Yields ``hook_scale`` (batch, position, 1) and ``hook_normalized`` (batch, position, width) of a norm.

    The scale is the root of the variance and eps, of the mean square and eps for an RMS norm; what is
    normalized is the centred input, or the input, divided by it, before gain and bias. They are in float32
    for models in lower precision, in which norms compute.

    Args:
        prefix: The name of the norm, such as ``"ln_final"``.
        norm: The norm.
        given: The hook point of what goes into it.
    """

    def scale(tensor: Tensor) -> Tensor:
        return centred_and_scale(norm, tensor)[1]

    def normalized(tensor: Tensor) -> Tensor:
        centred, scale = centred_and_scale(norm, tensor)
        return centred / scale

    yield DerivedPoint(name=f"{prefix}.hook_scale", of=given, compute=scale)
    yield DerivedPoint(name=f"{prefix}.hook_normalized", of=given, compute=normalized)


def centred_and_scale(norm: Normalization, tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a tensor (..., width), centred where a norm centres, and what the norm divides it by (..., 1).

    Args:
        norm: The norm.
        tensor: The tensor; in lower precision than float32 it is converted.
    """
    tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    if norm.kind == "layer_norm":
        tensor = tensor - tensor.mean(-1, keepdim=True)
    return tensor, (tensor.pow(2).mean(-1, keepdim=True) + epsilon(norm)).sqrt()


def epsilon(norm: Normalization) -> float:
    """Returns the number that a norm adds to the variance."""
    operation = norm.operations[0]
    if operation.function in _PLACES:
        place = _PLACES[operation.function]
        given = operation.args[place] if len(operation.args) > place else operation.kwargs.get("eps")
        if given is None:
            return 1e-5 if operation.function == "layer_norm" else torch.finfo(norm.input.dtype).eps
        return float(given)
    for operation in norm.operations:
        numbers = [one for one in arguments(operation) if isinstance(one, float)]
        if operation.function == "add" and numbers and operation.outputs[0].shape[-1] == 1:
            return numbers[0]
    return 0.0
