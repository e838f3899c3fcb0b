"""Compositional pattern-producing networks: small networks from the coordinates of an image to its pixels."""

import math

import torch
from torch import Tensor, nn

from ..core.checks import checked
from ..core.errors import ArgumentError, ShapeError
from ..core.summaries import counted

Selection = slice | list[int] | Tensor


@checked
class CPPN(nn.Module):
    """Images as functions of position: maps coordinates (N, 2, H, W) to (N, channels, H, W), unbounded.

    These are the networks of lucid's ``xy2rgb`` notebook: pointwise linear layers, each followed by
    `ArctanBasis`. Weights start as N(0, 1/fan_in), biases as N(0, 0.1); the last layer starts at 0, so that
    all pixels of a new network have one colour. There is no activation at the end: a sigmoid gives colours in
    [0, 1]. The same weights make images of any resolution.

    One object holds ``images`` independent networks, which run as one batched product. The modules are
    ``linear0, act0, linear1, act1, ..., output``.

    Args:
        hidden: Units of a hidden layer; `ArctanBasis` doubles them for the next layer.
        layers: Number of hidden layers.
        channels: Channels of the images.
        images: Number of independent networks.
        generator: Random generator of the initial weights; by default torch's global one.

    Raises:
        ArgumentError: A size that is not positive.

    Source: Mordvintsev et al., "Differentiable Image Parameterizations", Distill 2018.

    Example:
        >>> cppn = CPPN(images=3, generator=torch.Generator().manual_seed(0))
        >>> grid = CPPN.coordinates(48, 64)
        >>> cppn(grid).shape
        torch.Size([3, 3, 48, 64])
        >>> cppn(grid, images=[1]).shape
        torch.Size([1, 3, 48, 64])
    """

    def __init__(
        self,
        hidden: int = 24,
        layers: int = 8,
        channels: int = 3,
        images: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        sizes = {"hidden": hidden, "layers": layers, "channels": channels, "images": images}
        for name, size in sizes.items():
            if size < 1:
                raise ArgumentError(f"CPPN needs {name} of at least 1, got {size}")
        self.images, self.layers = images, layers
        fan_in = 2
        for index in range(layers):
            linear = PointwiseLinear(fan_in, hidden, images)
            nn.init.normal_(linear.weight, std=fan_in**-0.5, generator=generator)
            nn.init.normal_(linear.bias, std=0.1, generator=generator)
            self.add_module(f"linear{index}", linear)
            self.add_module(f"act{index}", ArctanBasis())
            fan_in = 2 * hidden
        self.output = PointwiseLinear(fan_in, channels, images)

    def forward(self, coordinates: Tensor, images: Selection | None = None) -> Tensor:
        """Returns the images at these coordinates.

        Args:
            coordinates: x and y, (N, 2, H, W). N is the number of images, or 1 for a grid that all share;
                a single network also takes N grids.
            images: The networks to run, all by default. The others are not computed.

        Returns:
            (N, channels, H, W), with N the larger of the number of grids and of selected images.

        Raises:
            ShapeError: Coordinates of another shape, or a number of grids that does not fit.
        """
        painted = self.images if images is None else len(self.output.bias[images])
        if coordinates.dim() != 4 or coordinates.shape[1] != 2:
            raise ShapeError(f"CPPN needs coordinates of shape (N, 2, H, W), got {tuple(coordinates.shape)}")
        if len(coordinates) != painted and 1 not in (len(coordinates), painted):
            raise ShapeError(
                f"CPPN got {counted(len(coordinates), 'grid')} for {counted(painted, 'image')}: expected 1 "
                f"or {painted}"
            )
        values = coordinates.flatten(2)
        for index in range(self.layers):
            values = getattr(self, f"linear{index}")(values, images)
            values = getattr(self, f"act{index}")(values)
        result: Tensor = self.output(values, images).unflatten(2, coordinates.shape[2:])
        return result

    @staticmethod
    @checked
    def coordinates(height: int, width: int) -> Tensor:
        """Returns the grid (1, 2, height, width) of x and y positions, centred at 0, with square pixels.

        A square grid is lucid's: both axes go from -sqrt(3) to sqrt(3), the range of a uniform variable of
        variance 1. Other shapes keep the length of the diagonal, and therefore the sum of the two variances.

        Raises:
            ArgumentError: A height or width below 1.

        Example:
            >>> CPPN.coordinates(3, 3)[0, 0, 0]
            tensor([-1.7321,  0.0000,  1.7321])
        """
        if height < 1 or width < 1:
            raise ArgumentError(f"a grid needs a height and width of at least 1, got {height} x {width}")
        # A single pixel has no diagonal: its position is 0 at any scale.
        pixel = math.sqrt(6) / max(math.hypot(height - 1, width - 1), 1)
        x = torch.linspace(-pixel * (width - 1), pixel * (width - 1), width)
        y = torch.linspace(-pixel * (height - 1), pixel * (height - 1), height)
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        return torch.stack([columns, rows])[None]


class PointwiseLinear(nn.Module):
    """A linear map of the channels at every position, with other weights for each image.

    Maps (N, inputs, positions) to (N, outputs, positions). Weight (images, outputs, inputs) and bias
    (images, outputs, 1) start at 0.

    Example:
        >>> PointwiseLinear(2, 5, images=3)(torch.zeros(1, 2, 7)).shape
        torch.Size([3, 5, 7])
    """

    def __init__(self, inputs: int, outputs: int, images: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(images, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(images, outputs, 1))

    def forward(self, values: Tensor, images: Selection | None = None) -> Tensor:
        """Maps (N, inputs, positions) to (N, outputs, positions) with the weights of the selected images."""
        if images is None:
            return self.weight @ values + self.bias
        return self.weight[images] @ values + self.bias[images]


class ArctanBasis(nn.Module):
    """Returns atan(x) / 0.67 and atan(x)^2 / 0.6, concatenated: (N, C, ...) to (N, 2C, ...).

    The two constants are the root mean squares of atan(x) and of its square for x from N(0, 1), so that
    activations of variance 1 keep about that scale from layer to layer.

    Example:
        >>> ArctanBasis()(torch.tensor([[1.0]]))
        tensor([[1.1722, 1.0281]])
    """

    def forward(self, values: Tensor) -> Tensor:
        """Maps (N, C, ...) to (N, 2C, ...)."""
        angle = values.atan()
        return torch.cat([angle / 0.67, angle.square() / 0.6], dim=1)
