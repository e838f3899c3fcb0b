"""The strongest images of every unit of a layer, kept up to date batch by batch in little memory."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor, nn

from ...core.errors import NonFiniteError, ShapeError
from ...core.hooks import run
from ...core.tensor_specs import Spec, specs
from ...core.units import Unit, channels_first, position_index


@dataclass(frozen=True, eq=False)
class Ranking:
    """The k strongest images of every unit of a layer, strongest first; of equal ones the earlier image.

    Attributes:
        values: What the unit made of the image, (units, k); -inf where there is no image yet.
        indices: Numbers of the images, (units, k); -1 where there is no image yet.
        places: Where in the image the unit was strongest, (units, k, 2): y and x from 0 to 1.
    """

    values: Tensor
    indices: Tensor
    places: Tensor

    _specs = specs(
        values="units k",
        indices=Spec("units k", "integer"),
        places=Spec("units k 2", finite=True),
    )

    @classmethod
    def empty(cls, units: int, k: int, dtype: torch.dtype) -> "Ranking":
        """Returns a ranking without images."""
        values = torch.full((units, k), -torch.inf, dtype=torch.promote_types(dtype, torch.float32))
        return cls(values, torch.full((units, k), -1), torch.full((units, k, 2), 0.5))

    def merged(self, responses: "Responses", start: int) -> "Ranking":
        """Returns the ranking with a batch taken in.

        Args:
            responses: The batch's.
            start: The number of its first image; all images so far have lower ones.
        """
        # Of equal ones the earlier stays, so an image of a later batch has to be stronger than the last.
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
        places = self.places[rows].gather(1, order.clamp(max=k - 1)[..., None].expand(-1, -1, 2))
        places[new] = responses.places(image, row)
        return Ranking(
            self.values.index_copy(0, rows, both.gather(1, order)),
            self.indices.index_copy(0, rows, indices),
            self.places.index_copy(0, rows, places),
        )


class Responses:
    """What the units of a layer made of the images of a batch: one number each, and where it came from.

    Args:
        activation: The layer's, (N, C), (N, C, H, W), (N, T, C) or any other shape with the batch first.
        reduction: ``"max"`` over the positions of an image, or their ``"mean"``.
        channel_axis: The axis of the channels, where the rule of `toumei.core.units` is wrong.
        lowest: Turn the sign, so that the strongest response is the lowest activation.

    Raises:
        ShapeError: The activation has no channels.
        NonFiniteError: It holds NaN or infinite numbers.
    """

    def __init__(
        self, activation: Tensor, reduction: str, channel_axis: int | None = None, lowest: bool = False
    ) -> None:
        self._maps, self._lowest = channels_first(activation, channel_axis), lowest
        self._sizes = _sizes(activation, channel_axis)
        if not self._maps.shape[2]:
            raise ShapeError(f"expected an activation with positions, got {tuple(activation.shape)}")
        reduce = torch.mean if reduction == "mean" else torch.amin if lowest else torch.amax
        values = reduce(self._maps, 2)
        values = values.to("cpu", torch.promote_types(values.dtype, torch.float32))
        if not values.isfinite().all():
            raise NonFiniteError("the activations hold NaN or infinite numbers, which cannot be ranked")
        self.values = -values if lowest else values

    def places(self, images: Tensor, units: Tensor) -> Tensor:
        """Returns where these units are strongest on these images, (n, 2): y and x from 0 to 1."""
        maps = self._maps[images.to(self._maps.device), units.to(self._maps.device)]
        index = (maps.argmin(1) if self._lowest else maps.argmax(1)).cpu()
        height, width = self._sizes
        index = index - (self._maps.shape[2] - height * width)
        places = torch.stack([(index // width + 0.5) / height, (index % width + 0.5) / width], 1)
        return torch.where(index[:, None] < 0, 0.5, places)  # a class token stands for the whole image


def _sizes(activation: Tensor, channel_axis: int | None) -> tuple[int, int]:
    """Height and width of the positions; tokens are the largest square grid behind the class tokens."""
    if activation.dim() == 4:
        _, _, height, width = activation.movedim(1 if channel_axis is None else channel_axis, 1).shape
        return height, width
    side = isqrt(channels_first(activation, channel_axis).shape[2])
    return side, side


def receptive_fields(
    model: nn.Module, layers: Iterable[str], images: Tensor, channel_axis: int | None = None
) -> dict[str, tuple[float, float]]:
    """Returns height and width of what the middle position of each layer sees, as parts of the image's.

    It is the box around the pixels that a gradient from there reaches, on these images and on noise.

    Args:
        model: Any vision network, in evaluation mode.
        layers: Names of the layers.
        images: Some images as the network is given them, (N, C, H, W), for their size and range.
        channel_axis: The axis of the channels, where the rule of `toumei.core.units` is wrong.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 5))
        >>> receptive_fields(model, ["0", "2"], torch.rand(1, 3, 20, 40))
        {'0': (0.15, 0.075), '2': (0.35, 0.175)}
    """
    layers = list(layers)
    if images.dim() != 4:
        return dict.fromkeys(layers, (1.0, 1.0))
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(images.shape, generator=generator).to(images) * (images.max() - images.min())
    with torch.enable_grad():
        seen = torch.cat([images, noise + images.min()]).requires_grad_()
        activations = run(model, seen.clone(), record=layers)
        return {layer: _field(activations[layer], layer, seen, channel_axis) for layer in layers}


def _field(activation: Tensor, layer: str, seen: Tensor, channel_axis: int | None) -> tuple[float, float]:
    middle = channels_first(activation, channel_axis)[
        :, :, position_index(activation, Unit(layer), channel_axis)
    ]
    # Random weights, since the plain sum over the channels of a normalized layer is a constant.
    weights = torch.rand(middle.shape, generator=torch.Generator().manual_seed(1)).to(middle)
    (gradient,) = torch.autograd.grad((middle * weights).sum(), seen, retain_graph=True)
    reached = gradient.abs().amax((0, 1))
    reached = reached > 1e-6 * reached.amax()
    return _extent(reached.any(1)), _extent(reached.any(0))


def _extent(reached: Tensor) -> float:
    """The part of a line from the first to the last place that is reached; all of it if none is."""
    places = reached.nonzero()
    return (places.max() - places.min() + 1).item() / len(reached) if len(places) else 1.0
