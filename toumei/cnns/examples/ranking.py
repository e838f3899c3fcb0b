"""The strongest images of every unit of a layer, updated batch by batch in little memory."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from ...core.checks import check_memory
from ...core.errors import NonFiniteError, ShapeError
from ...core.hooks import run
from ...core.layout import Channels, channels_of, with_layouts_of
from ...core.summaries import counted
from ...core.surveys import Survey
from ...core.tensor_specs import Spec, specs


@dataclass(frozen=True, eq=False)
class Ranking:
    """The k strongest images of every unit of a layer, strongest first; among equal ones the earlier first.

    Attributes:
        values: Activation of the unit on the image, (units, k); -inf where there is no image yet.
        indices: Numbers of the images, (units, k); -1 where there is no image yet.
        positions: Where in the image the unit was strongest, (units, k, 2): y and x from 0 to 1.
    """

    values: Tensor
    indices: Tensor
    positions: Tensor

    _specs = specs(
        values="units k",
        indices=Spec("units k", "integer"),
        positions=Spec("units k 2", finite=True),
    )

    @classmethod
    def empty(cls, units: int, k: int, dtype: torch.dtype) -> "Ranking":
        """Returns a ranking without images."""
        check_memory(
            f"the {counted(k, 'strongest image', form=',')} of {counted(units, 'unit', form=',')}",
            units * k,
            "give a smaller k",
            itemsize=64,
        )
        values = torch.full((units, k), -torch.inf, dtype=torch.promote_types(dtype, torch.float32))
        return cls(values, torch.full((units, k), -1), torch.full((units, k, 2), 0.5))

    def merged(self, responses: "Responses", start: int) -> "Ranking":
        """Returns the ranking after a batch.

        Args:
            responses: Those of the batch.
            start: The number of its first image; all earlier images have lower numbers.
        """
        # Among equal images the earlier one stays: an image of a later batch must be stronger than the last.
        rows = (responses.values > self.values[:, -1]).any(0).nonzero()[:, 0]
        if not len(rows):
            return self
        k = self.values.shape[1]
        both = torch.cat([self.values[rows], responses.values[:, rows].T], 1)
        order = both.sort(dim=1, descending=True, stable=True).indices[:, :k]
        new = order >= k
        row, image = rows[new.nonzero()[:, 0]], order[new] - k
        indices = self.indices[rows].gather(1, order.clamp(max=k - 1))
        indices[new] = start + image
        positions = self.positions[rows].gather(1, order.clamp(max=k - 1)[..., None].expand(-1, -1, 2))
        positions[new] = responses.positions(image, row)
        return Ranking(
            self.values.index_copy(0, rows, both.gather(1, order)),
            self.indices.index_copy(0, rows, indices),
            self.positions.index_copy(0, rows, positions),
        )


class Responses:
    """The response of each unit of a layer to each image of a batch, and the position of that response.

    Args:
        channels: The layer's activation.
        reduction: ``"max"`` over the positions of an image, or their ``"mean"``.
        lowest: Turn the sign, so that the strongest response is the lowest activation.

    Raises:
        ShapeError: The activation has no channels.
        NonFiniteError: It holds NaN or infinite numbers.
    """

    def __init__(self, channels: Channels, reduction: str, lowest: bool = False) -> None:
        self._channels, self._maps, self._lowest = channels, channels.values, lowest
        if not self._maps.shape[2]:
            raise ShapeError(f"expected an activation with positions, got {tuple(self._maps.shape)}")
        reduce = torch.mean if reduction == "mean" else torch.amin if lowest else torch.amax
        values = reduce(self._maps, 2)
        values = values.to("cpu", torch.promote_types(values.dtype, torch.float32))
        if not values.isfinite().all():
            raise NonFiniteError("activations with NaN or infinite numbers cannot be ranked")
        self.values = -values if lowest else values

    def positions(self, images: Tensor, units: Tensor) -> Tensor:
        """Returns where these units are strongest on these images, (n, 2): y and x from 0 to 1."""
        maps = self._maps[images.to(self._maps.device), units.to(self._maps.device)]
        index = (maps.argmin(1) if self._lowest else maps.argmax(1)).cpu()
        height, width = self._sizes()
        index = index - self._channels.offset
        positions = torch.stack([(index // width + 0.5) / height, (index % width + 0.5) / width], 1)
        outside = (index < 0) | (index >= height * width)
        return torch.where(outside[:, None], 0.5, positions)  # a class token stands for the whole image

    def _sizes(self) -> tuple[int, int]:
        """Height and width of the positions; without a grid one for the whole image."""
        grid = self._channels.grid
        if grid is None:
            if self._channels.pictured:
                self._channels.index(None)
            return 0, 1
        return (prod(grid[:-1]), grid[-1]) if grid else (1, 1)


def receptive_fields(
    model: nn.Module, found: Survey, images: Tensor, laid_out: Callable[..., Channels] = channels_of
) -> dict[str, tuple[float, float]]:
    """Returns the receptive field of the middle position of each layer, as shares of height and width.

    It is the box around the pixels that the gradient of that position reaches, on these images and on noise;
    the whole image where the network computes without gradients.

    Args:
        model: Any vision network, in evaluation mode.
        found: What a survey found out about the layers.
        images: Some images as the network is given them, (N, C, H, W), for their size and range.
        laid_out: Gives the channels of a layer among activations.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 5))
        >>> from toumei.core import survey
        >>> images = torch.rand(1, 3, 20, 40)
        >>> receptive_fields(model, survey(model, ["0", "2"], lambda: model(images)), images)
        {'0': (0.15, 0.075), '2': (0.35, 0.175)}
    """
    if images.dim() != 4:
        return dict.fromkeys(found.names, (1.0, 1.0))
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(images.shape, generator=generator).to(images) * (images.max() - images.min())
    with torch.enable_grad():
        seen = torch.cat([images, noise + images.min()]).requires_grad_()
        recorded = run(model, seen.clone(), record=found.names)
        activations = with_layouts_of(found.activations, recorded)
        return {layer: _field(laid_out(activations, layer), seen) for layer in found.names}


def _field(channels: Channels, seen: Tensor) -> tuple[float, float]:
    middle = channels.values[:, :, channels.index(None)]
    if not middle.requires_grad:
        return 1.0, 1.0
    # Random weights, since the plain sum over the channels of a normalized layer is a constant.
    weights = torch.rand(middle.shape, generator=torch.Generator().manual_seed(1)).to(middle)
    with warnings.catch_warnings():  # quantized layers have no gradients, and torch only warns
        warnings.filterwarnings("ignore", ".*an autograd kernel was not registered", UserWarning)
        total = (middle * weights).sum()
        found: Sequence[Tensor | None] = torch.autograd.grad(
            total, seen, retain_graph=True, allow_unused=True
        )
    gradient = found[0]
    if gradient is None:
        return 1.0, 1.0
    reached = gradient.abs().amax((0, 1))
    reached = reached > 1e-6 * reached.amax()
    return _extent(reached.any(1)), _extent(reached.any(0))


def _extent(reached: Tensor) -> float:
    """The share of a line from the first to the last reached pixel; 1 if none is reached."""
    pixels = reached.nonzero()
    return (pixels.max() - pixels.min() + 1).item() / len(reached) if len(pixels) else 1.0
