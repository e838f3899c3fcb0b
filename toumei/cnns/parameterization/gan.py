"""Pictures that a trained generator network makes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ...core.checks import checked
from ...core.errors import ShapeError
from ...core.forward import forward_errors
from ...core.modules import device_and_dtype, evaluating, frozen
from ...core.outputs import main_tensor
from ...core.seeding import make_generator
from ...core.summaries import counted
from .generator import Generator, check_deviation

_SLACK = 0.05  # share of the range by which the first pictures may leave it


@checked
class GAN(Generator):
    """Pictures made by a generator network from latent vectors, which are optimized (Nguyen et al. 2016).

    The network is frozen and in evaluation mode while it runs, and restored afterwards.

    Args:
        module: From latents (N, ...) to pictures (N, C, H, W).
        latent: The latents to start from, (N, ...), or the shape of a batch of them, which are then drawn
            from a normal distribution.
        output_range: The outputs of the module for black and for white; values outside are clamped. -1 and 1
            fit a network that ends in a tanh, 0 and 1 one that ends in a sigmoid.
        sd: Standard deviation of the drawn latents.
        seed: Seed of the drawn latents.

    Raises:
        ShapeError: The module makes no batch of pictures of the latents, or pictures far outside of
            `output_range`.

    Example:
        >>> painter = nn.Sequential(nn.Linear(8, 3 * 5 * 7), nn.Tanh(), nn.Unflatten(1, (3, 5, 7)))
        >>> GAN(painter, (2, 8), seed=0).get_image().shape
        torch.Size([2, 3, 5, 7])
    """

    def __init__(
        self,
        module: nn.Module,
        latent: Tensor | Sequence[int],
        *,
        output_range: tuple[float, float] = (-1.0, 1.0),
        sd: float = 1.0,
        seed: int | None = None,
    ) -> None:
        check_deviation(sd)
        if not isinstance(latent, Tensor):
            latent = sd * torch.randn(tuple(latent), generator=make_generator(seed))
        device, dtype = device_and_dtype(module)
        self.module, self.output_range = module, output_range
        self.latent = latent.detach().to(device, dtype, copy=True).requires_grad_()
        with torch.no_grad():
            self._check(self._made())

    @property
    def parameters(self) -> list[Tensor]:
        """The latents (N, ...)."""
        return [self.latent]

    def get_image(self) -> Tensor:
        """Returns the pictures (N, C, H, W) in [0, 1]."""
        black, white = self.output_range
        return ((self._made().float() - black) / (white - black)).clamp(0, 1)

    @checked
    def to(self, device: torch.device | str) -> Self:
        """Moves the latents and the network."""
        self.latent = self.latent.detach().to(device).requires_grad_()
        self.module.to(device)
        return self

    def _made(self) -> Tensor:
        with frozen(self.module), evaluating(self.module), forward_errors(self.module, (self.latent,)):
            return main_tensor(self.module(self.latent))

    def _check(self, made: Tensor) -> None:
        name, (black, white) = type(self.module).__name__, self.output_range
        if made.dim() != 4 or len(made) != len(self.latent):
            raise ShapeError(
                f"{name} must make {counted(len(self.latent), 'picture')} (N, C, H, W) of latents "
                f"{tuple(self.latent.shape)}, got {tuple(made.shape)}"
            )
        low, high, slack = made.min().item(), made.max().item(), _SLACK * (white - black)
        if not (white > black and black - slack <= low and high <= white + slack):
            raise ShapeError(
                f"{name} makes numbers from {low:.3g} to {high:.3g}, which is not output_range="
                f"({black:g}, {white:g}): give the numbers that stand for black and white"
            )
