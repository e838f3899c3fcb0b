"""What a norm does to the directions of the residual stream: a gain and a bias, measured in the graph."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import ArchitectureError
from ...instrument import OperationGraph, TensorNode
from ...instrument.search.sources import source

_SCALES = (
    30.0,
    120.0,
)  # of the vectors that are tried: the epsilon of a norm is nothing beside their squares


@dataclass(frozen=True, eq=False)
class NormFactor:
    """The part of a norm that is the same for all inputs: ``norm(x) = n(x) * gain + bias``.

    n(x) is x without its mean divided by its standard deviation (``"layer_norm"``), x divided by its root
    mean square (``"rms_norm"``), or x itself (``"none"``). The divisor is one number for each vector, so that
    it changes no direction.

    Attributes:
        kind: ``"layer_norm"``, ``"rms_norm"`` or ``"none"``.
        gain: (width,), 1 + weight where the model adds one.
        bias: (width,).
    """

    kind: str
    gain: Tensor
    bias: Tensor

    def __repr__(self) -> str:
        return f"NormFactor({self.kind!r}, width {len(self.gain)})"

    def after(self, vectors: Tensor) -> Tensor:
        """Returns what vectors (..., width) become after the norm, up to the divisor, without the bias."""
        if self.kind == "layer_norm":
            vectors = vectors - vectors.mean(-1, keepdim=True)
        return vectors * self.gain.to(vectors)

    def scale(self, vectors: Tensor, normed: Tensor) -> Tensor:
        """Returns one over the divisors (..., 1) of vectors, given what the norm made of them."""
        changed = self.after(vectors)
        squares = changed.square().sum(-1, keepdim=True)
        return (changed * (normed - self.bias.to(normed))).sum(-1, keepdim=True) / squares

    def before(self, weight: Tensor) -> Tensor:
        """Returns the weights (..., width, n) that read from the input what these read from the output.

        ``x @ before(weight)`` is ``after(x) @ weight``.
        """
        weight = weight * self.gain.to(weight)[:, None]
        return weight - weight.mean(-2, keepdim=True) if self.kind == "layer_norm" else weight


def measured_factor(graph: OperationGraph, start: TensorNode, end: TensorNode) -> NormFactor:
    """Returns what happens to vectors between two tensors of a pass, at most one norm.

    The pass between them is computed again for random vectors. The gain that they show is that of a weight,
    of one plus a weight, or a number; where a parameter has it, its value is taken.

    Args:
        graph: The graph of the pass.
        start: A tensor (..., width).
        end: A tensor (..., width) that is computed from it alone.

    Raises:
        ArchitectureError: Something other than a norm, a gain or a bias is between them.
    """
    width = start.shape[-1]
    if source(graph, end) is source(graph, start):
        return NormFactor("none", torch.ones(width), torch.zeros(width))
    given = _trial_vectors(start)
    plus, minus = (_replayed(graph, start, one, end) for one in (given, -given))
    if plus.shape[-1] == width and plus.numel() == given.numel():
        wide = given.cpu().double().reshape(-1, width)
        tolerance = max(1e-4, 10 * torch.finfo(start.dtype).eps)
        odd, even = (plus - minus) / 2, (plus + minus) / 2
        for kind, normalized in _KINDS.items():
            inputs = normalized(wide)
            gain = (odd * inputs).sum(0) / inputs.square().sum(0)
            if (odd - gain * inputs).abs().max() <= tolerance * odd.abs().max():
                known = list(_parameters(graph, start, end, width))
                return NormFactor(
                    kind,
                    _exact(gain, [*known, *(1 + one for one in known)], tolerance),
                    _exact(even.mean(0), known, tolerance),
                )
    raise ArchitectureError(
        f"between {start.name!r} and {end.name!r} there is something other than a norm, a gain or a bias: "
        f"the weights cannot be folded"
    )


def between(graph: OperationGraph, start: TensorNode, end: TensorNode) -> Iterator[TensorNode]:
    """Yields the tensors that a tensor is computed from, back to another one."""
    seen, waiting = {start, end}, [end]
    while waiting:
        operation = graph.producer(waiting.pop())
        new = [] if operation is None else [one for one in operation.inputs if one not in seen]
        seen.update(new)
        waiting += new
        yield from new


def _trial_vectors(start: TensorNode) -> Tensor:
    """Vectors of two lengths, with a mean, so that norms differ from a gain and from each other."""
    vectors = 1 + torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
    flat = vectors.view(-1, start.shape[-1])
    flat[::2] *= _SCALES[0]
    flat[1::2] *= _SCALES[1]
    return vectors.to(start.device, start.dtype)


def _root_mean_square(x: Tensor) -> Tensor:
    return x / x.square().mean(-1, keepdim=True).sqrt()


_KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "rms_norm": _root_mean_square,
    "layer_norm": lambda x: _root_mean_square(x - x.mean(-1, keepdim=True)),
}


def _replayed(graph: OperationGraph, start: TensorNode, value: Tensor, end: TensorNode) -> Tensor:
    with torch.no_grad():
        found: Tensor = graph.replay({start.name: value}, record=[end])[end.name]
    return found.cpu().double().reshape(-1, found.shape[-1])


def _parameters(graph: OperationGraph, start: TensorNode, end: TensorNode, width: int) -> Iterator[Tensor]:
    for node in between(graph, start, end):
        if node.kind == "parameter" and node.shape == (width,):
            yield graph.memory.weight(node).detach().cpu().double()


def _exact(measured: Tensor, known: list[Tensor], tolerance: float) -> Tensor:
    """The value that was measured, or that of a parameter which it is close to."""
    margin = tolerance * measured.abs().max()
    return next((one for one in known if (one - measured).abs().max() <= margin), measured)
