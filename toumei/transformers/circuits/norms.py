"""What stands between the residual stream and a node: at most one norm, forwards and backwards."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import ArchitectureError
from ..heads.norm_factors import NormFactor
from ..model.hook_points import DerivedPoint
from ..model.hook_search import HookPoints


@dataclass(frozen=True, eq=False)
class StreamNorm:
    """The norm of a node's input, ``norm(x) = n(x) * gain + bias``, in float32.

    Attributes:
        factor: Gain, bias and kind.
        scale: Returns the divisors (..., 1) of vectors; not called where there is no norm.
    """

    factor: NormFactor
    scale: Callable[[Tensor], Tensor]

    def __call__(self, vectors: Tensor) -> Tensor:
        """Returns the norm of vectors (..., width)."""
        normalized = self._normalized(vectors)
        return normalized * self.factor.gain.to(normalized) + self.factor.bias.to(normalized)

    def pull(self, vectors: Tensor, gradient: Tensor) -> Tensor:
        """Returns the gradient before the norm for one after it.

        Args:
            vectors: What the norm is given, (..., width).
            gradient: (readers, ..., width).
        """
        gradient = gradient * self.factor.gain.to(gradient)
        if self.factor.kind == "none":
            return gradient
        normalized = self._normalized(vectors)
        along = (gradient * normalized).mean(-1, keepdim=True)
        if self.factor.kind == "layer_norm":
            gradient = gradient - gradient.mean(-1, keepdim=True)
        return (gradient - normalized * along) / self.scale(vectors)

    def _normalized(self, vectors: Tensor) -> Tensor:
        if self.factor.kind == "none":
            return vectors
        scale = self.scale(vectors)
        centred = self.factor.kind == "layer_norm"
        return (vectors - vectors.mean(-1, keepdim=True) if centred else vectors) / scale


def stream_norm(points: HookPoints, name: str, factor: NormFactor) -> StreamNorm:
    """Returns the norm of a name, such as ``"blocks.0.ln1"``.

    Raises:
        ArchitectureError: There is a norm, and its divisor is not known.
    """
    found = points.points.get(f"{name}.hook_scale")
    if factor.kind != "none" and not isinstance(found, DerivedPoint):
        raise ArchitectureError(f"the norm {name!r} is not known: {points.missing.get(f'{name}.hook_scale')}")
    return StreamNorm(factor, found.compute if isinstance(found, DerivedPoint) else torch.ones_like)
