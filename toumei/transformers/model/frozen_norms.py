"""Norms as linear maps: the scale that a vector has is kept constant.

y = s * gain * (x - mean(x)) + bias, without the mean for RMS norms, where s is one number. What a module does
is measured, not read from its type: Gemma's gain is one plus its weight, other norms have no weight at all.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...core.checks import checked
from ...core.errors import ArchitectureError


@dataclass(frozen=True, eq=False)
class FrozenNorm:
    """A norm as a linear map.

    Attributes:
        gain: By what each entry is multiplied, the scale included, (width,), float64 on the CPU.
        centered: Whether the mean is subtracted before.
        bias: What is added, (width,), float64 on the CPU.
    """

    gain: Tensor
    centered: bool
    bias: Tensor

    def __call__(self, vectors: Tensor) -> Tensor:
        """Returns the norm of vectors (..., width), without the bias."""
        return self.gain * (vectors - vectors.mean(-1, keepdim=True) if self.centered else vectors)

    def pull(self, direction: Tensor) -> Tensor:
        """Returns the direction (width,) before the norm that has the product of `direction` after it.

        Example:
            >>> x, direction = torch.randn(8).double(), torch.randn(8).double()
            >>> norm = freeze_norm(nn.LayerNorm(8).double(), x)
            >>> torch.allclose(norm.pull(direction) @ x, direction @ norm(x))
            True
        """
        scaled = self.gain * direction
        return scaled - scaled.mean() if self.centered else scaled


@checked
def freeze_norm(norm: nn.Module, vector: Tensor) -> FrozenNorm:
    """Returns the linear map that a norm is at a vector, if the scale of the vector is kept constant.

    Args:
        norm: The norm; it is run on a few vectors.
        vector: The vector (width,) whose scale it takes.

    Raises:
        ArchitectureError: The module is no norm of this form.

    Example:
        >>> x = torch.randn(8)
        >>> norm = freeze_norm(module := nn.RMSNorm(8), x)
        >>> torch.allclose(norm(x.double()).float(), module(x)), norm.centered
        (True, False)
    """

    def after(given: Tensor) -> Tensor:
        with torch.no_grad():
            result: Tensor = norm(given.to(vector)[None, None])[0, 0].double().cpu()
            return result

    width = len(vector)
    signs = torch.ones(width, device=vector.device)
    signs[1::2] = -1
    if width % 2:
        signs[-1] = 0  # so that the mean is zero; a second vector of signs shows the last gain
    bias = after(torch.zeros_like(vector))
    gain = (after(signs) - bias) * signs.double().cpu()
    if width % 2:
        gain[-1] = (after(signs.roll(1)) - bias)[-1] * float(signs.roll(1)[-1])
    tolerance = rounding(vector.dtype)
    moved, still = after(signs + 0.5), after(signs)
    centered = torch.allclose(moved, still, rtol=0, atol=tolerance * float(still.abs().max()))
    unscaled = FrozenNorm(gain, centered, bias)(vector.double().cpu())
    wanted = after(vector) - bias
    scale = float(wanted @ unscaled / (unscaled @ unscaled))
    if not torch.allclose(scale * unscaled, wanted, rtol=0, atol=tolerance * float(wanted.abs().max())):
        raise ArchitectureError(
            f"{type(norm).__name__} is no LayerNorm or RMSNorm, whose scale can be kept constant"
        )
    return FrozenNorm(gain * scale, centered, bias)


def rounding(dtype: torch.dtype) -> float:
    """Returns the largest relative difference of two computations of a number that count as equal.

    It is the square root of the precision. Many models compute norms in float32, whatever their precision is.

    Example:
        >>> rounding(torch.bfloat16), rounding(torch.float64) == rounding(torch.float32)
        (0.08838834764831845, True)
    """
    result: float = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps) ** 0.5
    return result
