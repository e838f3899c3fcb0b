"""What is between the heads of a layer and the residual stream: scales, and a norm whose scale is kept."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...core.errors import ArchitectureError
from ...core.modules import find_module
from ...core.tensors import whole
from ...instrument import Normalization, Operation, TensorNode, find_normalizations
from ...instrument.search.sources import source
from .frozen_norms import freeze_norm
from .hook_search import HookPoints
from .norm_points import centred_and_scale


@dataclass(frozen=True, eq=False)
class AfterHeads:
    """What happens to the output of an attention layer before it is added to the stream.

    Attributes:
        factor: By what it is multiplied at the end, a number or a vector (width,).
        norm: The norm before that; None if there is none.
        gain: The gain of the norm, (width,).
        bias: What is added after the norm, times the factor; None if nothing is.
    """

    factor: Tensor
    norm: Normalization | None = None
    gain: Tensor | None = None
    bias: Tensor | None = None

    def __call__(self, parts: Tensor, written: Tensor) -> Tensor:
        """Returns what parts of an output add to the stream, without the bias.

        Args:
            parts: The parts, (parts, batch, position, width).
            written: The output, (batch, position, width), which gives the norm its scale.
        """
        if self.norm is not None and self.gain is not None:
            scale = centred_and_scale(self.norm, written)[1]
            parts = centred_and_scale(self.norm, parts)[0] / scale * self.gain.to(parts)
        return (parts * self.factor.to(parts)).to(written.dtype)


def after_heads(points: HookPoints, layer: int) -> AfterHeads:
    """Returns what is between the heads of a layer and the stream.

    Args:
        points: The hook points of a model.
        layer: A layer whose attention writes into the stream.

    Raises:
        ArchitectureError: It is more than scales and a norm.
    """
    graph, written = points.graph, source(points.graph, points.outputs[layer].output)
    added = next(
        (one.parts["attn", layer] for one in points.segments if ("attn", layer) in one.parts), written
    )
    norms = {norm.output: norm for norm in find_normalizations(graph)}
    found, node = AfterHeads(torch.tensor(1.0)), source(graph, added)
    while node is not written:
        operation = graph.producer(node)
        scaled = None if operation is None or found.norm is not None else _scaled(points, operation)
        if found.norm is None and node in norms:
            found, node = _normed(points, found, norms[node]), norms[node].input
        elif scaled is not None:
            found, node = replace(found, factor=found.factor * scaled[0]), scaled[1]
        else:
            raise ArchitectureError(
                f"between the heads of layer {layer} and the stream there is more than a linear map, a norm "
                f"and scales: {added.name!r} is added, not {written.name!r}"
            )
        node = source(graph, node)
    return found


def _scaled(points: HookPoints, operation: Operation) -> tuple[Tensor, TensorNode] | None:
    """The number or weight that an operation multiplies a tensor by, and the tensor; None for others."""
    if operation.function not in ("mul", "div") or len(operation.args) != 2:
        return None
    first, second = operation.args
    if operation.function == "mul" and _factor(points, second) is None:
        first, second = second, first
    factor = _factor(points, second)
    if factor is None or not isinstance(first, TensorNode):
        return None
    return (factor if operation.function == "mul" else 1 / factor), first


def _factor(points: HookPoints, value: object) -> Tensor | None:
    """A number, or a weight with one number or one for each entry of a vector."""
    if isinstance(value, int | float):
        return torch.tensor(float(value))
    node = source(points.graph, value) if isinstance(value, TensorNode) else None
    if node is None or node.kind not in ("parameter", "buffer") or len(node.shape) > 1:
        return None
    return whole(points.graph.memory.weight(node)).detach()


def _normed(points: HookPoints, found: AfterHeads, norm: Normalization) -> AfterHeads:
    """What was found after a norm, with the norm: its gain and bias are measured."""
    width, kept = norm.input.shape[-1], norm.input
    vector = torch.linspace(-1, 2, width, dtype=kept.dtype, device=kept.device)
    frozen = freeze_norm(find_module(points.graph.memory.model, norm.module), vector)
    scale = centred_and_scale(norm, vector)[1].double().cpu()
    bias = frozen.bias if bool(frozen.bias.any()) else None
    return replace(found, norm=norm, gain=frozen.gain * scale, bias=bias)
