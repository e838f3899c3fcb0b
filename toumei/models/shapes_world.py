"""A small world of images in which everything is known: the shape, its position, and its pixels.

Each image has one shape of a random colour, size, angle and position on a random texture. Texture, colour and
position do not depend on the class, so only the outline (or, for the two patches, the pattern inside of it)
distinguishes the classes, and the mask holds all the evidence.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..core.checks import check_memory, checked
from ..core.errors import ArgumentError, ItemError, ShapeError
from ..core.summaries import counted

SIDE = 64
CLASSES = ("disc", "ring", "square", "triangle", "cross", "star", "stripes", "checker")

_MIN_RADIUS, _MAX_RADIUS = 10.0, 26.0
_MIN_CONTRAST = 0.5
_COLOR_WEIGHTS = torch.tensor([0.9, 1.2, 0.6])  # people distinguish greens better than blues
_CANDIDATES = 6
_SCALARS = 80
# Each row is a background texture: weight of the noise, of the ramp and of the wave; how fast the noise falls
# with frequency (amplitude ~ 1/f**falloff); how hard its edges are.
_TEXTURES = torch.tensor(
    [
        [1.0, 0.2, 0.0, 1.2, 0.6],  # clouds
        [1.0, 0.0, 0.0, 2.2, 3.0],  # blobs
        [0.2, 1.0, 0.0, 1.0, 0.5],  # soft gradient
        [1.0, 0.5, 0.0, 0.4, 0.4],  # grain
        [0.4, 0.3, 0.7, 1.2, 0.6],  # weak grating
    ]
)


class Placement(NamedTuple):
    """The shapes of a batch, without their classes and colours.

    Attributes:
        center: (N, 2) x and y in pixels; the middle of the upper left pixel is (0.5, 0.5).
        radius: (N,) radius of the circle around the shape, in pixels.
        angle: (N,) angle in radians.
        thickness: (N,) thickness of the ring and of the arms of the cross and the star, in [0, 1].
        squared: (N,) whether the outline of a patch of stripes or checks is a square; otherwise a disc.
        period: (N,) period of the stripes and checks, in pixels.
        phase: (N, 2) phase of the stripes and checks, in periods.
    """

    center: Tensor
    radius: Tensor
    angle: Tensor
    thickness: Tensor
    squared: Tensor
    period: Tensor
    phase: Tensor


class _Draws:
    """The random numbers of a batch, in a fixed order: row i depends only on (seed, i)."""

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        count = 2 * SIDE * SIDE + _SCALARS
        rows = np.empty((len(indices), count), np.float32)
        for row, index in zip(rows, indices, strict=True):
            np.random.Generator(np.random.Philox(key=[seed, index])).random(out=row, dtype=np.float32)
        numbers = torch.from_numpy(rows)
        self.noise = numbers[:, : 2 * SIDE * SIDE].view(-1, 2, SIDE, SIDE)
        self._scalars = numbers[:, 2 * SIDE * SIDE :]
        self._used = 0

    def take(self, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """The next (N, count) numbers, uniform in [low, high)."""
        self._used += count
        return low + (high - low) * self._scalars[:, self._used - count : self._used]

    def one(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """The next (N,) numbers, uniform in [low, high)."""
        return self.take(1, low, high)[:, 0]


@checked
class ShapesDataset(Dataset[tuple[Tensor, int, Tensor]]):
    """64x64 RGB images of one shape each, with the label and the exact mask of the shape.

    Image i depends on (seed, i) only: not on `size`, nor on the other images of its batch.

    Args:
        seed: Seed of the images, not negative.
        size: How many images there are.

    Raises:
        ArgumentError: `size` is below 1 or `seed` below 0.

    Example:
        >>> dataset = ShapesDataset(seed=3, size=100)
        >>> image, label, mask = dataset[0]
        >>> image.shape, mask.shape, dataset.classes[label]
        (torch.Size([3, 64, 64]), torch.Size([64, 64]), 'stripes')
        >>> images, labels, masks = dataset.batch(range(16))
        >>> images.shape, labels.shape, masks.shape
        (torch.Size([16, 3, 64, 64]), torch.Size([16]), torch.Size([16, 64, 64]))
    """

    classes = CLASSES

    def __init__(self, seed: int = 0, size: int = 10_000) -> None:
        if size < 1:
            raise ArgumentError(f"size is {size}, but a dataset needs at least 1 image")
        if seed < 0:
            raise ArgumentError(f"seed is {seed}, but seeds are not negative")
        self.seed, self.size = seed, size

    def __repr__(self) -> str:
        return f"ShapesDataset(seed={self.seed}, size={self.size})"

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        """Returns image (3, 64, 64) in [0, 1], label, and mask (64, 64) of the pixels of the shape."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int, Tensor]]:
        """Returns many items, rendered at once, for a `DataLoader`."""
        images, labels, masks = self.batch(indices)
        return list(zip(images, labels.tolist(), masks, strict=True))

    @checked
    def batch(
        self, indices: Sequence[int], labels: Sequence[int] | Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns images (N, 3, 64, 64) in [0, 1], labels (N,) and boolean masks (N, 64, 64).

        Args:
            indices: Indices of the images; negative ones count from the end.
            labels: Classes to draw instead of those of the dataset: the same background, position and
                colours with another shape.

        Raises:
            IndexError: An index outside of the dataset.
            ShapeError: Not one label for each index.
            ArgumentError: A label that is no class.
        """
        draws = self._draws(indices)
        background = _background(draws)
        placement = _placement(draws)
        drawn = (draws.one() * len(CLASSES)).long()
        labels = drawn if labels is None else _checked_labels(labels, len(drawn))
        inside, u, v = _near(background, placement)
        first = _contrasting(draws, [inside])
        second = _contrasting(draws, [inside, first])
        cover = _cover(labels, placement, u, v)[:, None]
        mix = _pattern(labels, placement, u, v)[:, None]
        shape = first[:, :, None, None] * (1 - mix) + second[:, :, None, None] * mix
        images = background * (1 - cover) + shape * cover
        return images.clamp(0, 1), labels, cover[:, 0] >= 0.5

    @checked
    def backgrounds(self, indices: Sequence[int]) -> Tensor:
        """Returns the same images (N, 3, 64, 64) without their shapes, without any evidence of a class.

        Raises:
            IndexError: An index outside of the dataset.
        """
        return _background(self._draws(indices)).clamp(0, 1)

    @checked
    def placement(self, indices: Sequence[int]) -> Placement:
        """Returns position, size and the other properties of the shapes.

        Raises:
            IndexError: An index outside of the dataset.

        Example:
            >>> bool((ShapesDataset(size=50).placement(range(50)).radius >= 10).all())
            True
        """
        draws = self._draws(indices)
        _background(draws)
        return _placement(draws)

    def _draws(self, indices: Sequence[int]) -> _Draws:
        check_memory(
            f"{counted(len(indices), 'image', form=',')}",
            len(indices) * 3 * 64 * 64,
            "give fewer indices at a time",
        )
        positions = [int(i) for i in indices]
        outside = [i for i in positions if not -self.size <= i < self.size]
        if outside:
            raise ItemError(
                f"index {outside[0]} is outside of a ShapesDataset of {counted(self.size, 'image')}"
            )
        return _Draws(self.seed, [i % self.size for i in positions])


def _checked_labels(labels: Sequence[int] | Tensor, count: int) -> Tensor:
    labels = torch.as_tensor(labels).long()
    if labels.shape != (count,):
        raise ShapeError(
            f"labels have shape {tuple(labels.shape)}, but there are {counted(count, 'index', 'indices')}"
        )
    if bool((labels < 0).any() or (labels >= len(CLASSES)).any()):
        raise ArgumentError(
            f"labels go from {labels.min()} to {labels.max()}: not within 0..{len(CLASSES) - 1}"
        )
    return labels


def _grid() -> tuple[Tensor, Tensor]:
    axis = torch.arange(SIDE) + 0.5
    return axis[None, None, :], axis[None, :, None]


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None]


def _coloured_noise(noise: Tensor, falloff: Tensor) -> Tensor:
    """Two independent fields (N, 2, H, W) of mean 0 and deviation 1 whose amplitude is 1/f**falloff."""
    if not len(noise):  # some FFT libraries do not take empty batches
        return noise[:, :2]
    frequency = torch.fft.fftfreq(SIDE)
    distance = torch.hypot(frequency[:, None], frequency[None, :])
    distance[0, 0] = torch.inf
    # A real and even filter keeps the real and the imaginary part separate: two fields for one transform.
    spectrum = torch.fft.fft2(torch.complex(noise[:, 0] - 0.5, noise[:, 1] - 0.5))
    fields = torch.view_as_real(torch.fft.ifft2(spectrum * distance ** -_wide(falloff))).permute(0, 3, 1, 2)
    return fields / fields.square().mean((2, 3), keepdim=True).sqrt()


def _background(draws: _Draws) -> Tensor:
    """Textures (N, 3, H, W) around [0, 1]; made before all random numbers of the shape."""
    x, y = _grid()
    noise_weight, ramp_weight, wave_weight, falloff, edge = _TEXTURES[(draws.one() * len(_TEXTURES)).long()].T
    fields = _coloured_noise(draws.noise, falloff)
    ramp_angle, wave_angle = draws.take(2, 0, 2 * math.pi).T
    ramp = ((x - SIDE / 2) * _wide(ramp_angle.cos()) + (y - SIDE / 2) * _wide(ramp_angle.sin())) / (SIDE / 3)
    turns = (x * _wide(wave_angle.cos()) + y * _wide(wave_angle.sin())) / _wide(draws.one(6, 20))
    wave = (2 * math.pi * (turns + _wide(draws.one()))).sin()
    field = _wide(noise_weight) * fields[:, 0] + _wide(ramp_weight) * ramp + _wide(wave_weight) * wave
    field = (_wide(edge) * field).tanh() / _wide(edge.tanh())
    base, tone, tint = draws.take(3, 0.15, 0.85), draws.take(3, -0.18, 0.18), draws.take(3, -0.08, 0.08)
    parts = tone[..., None, None] * field[:, None] + tint[..., None, None] * fields[:, 1:]
    fine = _wide(draws.one(0, 0.05))[:, None] * (draws.noise.mean(1, keepdim=True) - 0.5)
    return base[..., None, None] + parts + fine


def _placement(draws: _Draws) -> Placement:
    radius = draws.one(_MIN_RADIUS, _MAX_RADIUS)
    center = radius[:, None] + draws.take(2) * (SIDE - 2 * radius[:, None])
    angle, thickness, squared = draws.one(0, 2 * math.pi), draws.one(), draws.one() < 0.5
    period = 5 + draws.one() * (0.5 * radius - 5).clamp(0, 3)
    return Placement(
        center=center,
        radius=radius,
        angle=angle,
        thickness=thickness,
        squared=squared,
        period=period,
        phase=draws.take(2),
    )


def _near(background: Tensor, placement: Placement) -> tuple[Tensor, Tensor, Tensor]:
    """Mean colour (N, 3) at the position of the shape, and coordinates along its axes (N, H, W) in pixels."""
    x, y = _grid()
    x, y = x - _wide(placement.center[:, 0]), y - _wide(placement.center[:, 1])
    cos, sin = _wide(placement.angle.cos()), _wide(placement.angle.sin())
    window = (x * x + y * y < _wide(1.2 * placement.radius) ** 2).float()
    color = (background * window[:, None]).sum((2, 3)) / window.sum((1, 2))[:, None]
    return color, x * cos + y * sin, y * cos - x * sin


def _contrasting(draws: _Draws, others: list[Tensor]) -> Tensor:
    """The first of several random colours (N, 3) that is far enough from the others."""
    random = draws.take(3 * _CANDIDATES).view(-1, _CANDIDATES, 3)
    # The corners of the colour cube come last, in random order: one of the eight is always far enough.
    bits = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)])
    corners = (random[:, :1].round() - bits).abs()
    candidates = torch.cat([random, corners], 1)
    distances = torch.stack(
        [((candidates - other[:, None]) * _COLOR_WEIGHTS).norm(dim=2) for other in others]
    )
    choice = (distances.amin(0) >= _MIN_CONTRAST).float().argmax(1)
    return candidates[torch.arange(len(choice)), choice]


def _cover(labels: Tensor, placement: Placement, u: Tensor, v: Tensor) -> Tensor:
    """How much of each pixel (N, H, W) the shape covers: its signed distance, blended over one pixel."""
    radius, thickness = _wide(placement.radius), _wide(placement.thickness)
    length = torch.hypot(u, v)
    disc = length - radius
    square = torch.maximum(u.abs(), v.abs()) - radius * math.sqrt(0.5)
    distances = [
        disc,
        (length - radius * _ring_middle(thickness)).abs() - radius * (1 - _ring_middle(thickness)),
        square,
        _triangle(radius, u, v),
        _cross(radius, 0.2 + 0.12 * thickness, u, v),
        _star(radius, 0.38 + 0.12 * thickness, length, torch.atan2(v, u)),
        torch.where(_wide(placement.squared), square, disc),
    ]
    choice = labels.clamp(max=len(distances) - 1)  # both patches have the last outline
    distance = torch.stack(distances, 1)[torch.arange(len(labels)), choice]
    return (0.5 - distance).clamp(0, 1)


def _ring_middle(thickness: Tensor) -> Tensor:
    return 0.85 - 0.1 * thickness


def _triangle(radius: Tensor, u: Tensor, v: Tensor) -> Tensor:
    slanted = 0.5 * u.neg() + math.sqrt(0.75) * v.abs()
    return torch.maximum(u, slanted) - 0.5 * radius


def _cross(radius: Tensor, half_width: Tensor, u: Tensor, v: Tensor) -> Tensor:
    along, across = torch.maximum(u.abs(), v.abs()), torch.minimum(u.abs(), v.abs())
    return torch.maximum(along - radius * (1 - half_width**2).sqrt(), across - radius * half_width)


def _star(radius: Tensor, notch: Tensor, length: Tensor, direction: Tensor) -> Tensor:
    """Distance to a star of five tips on the circle and five notches at a part of its radius."""
    folded = (torch.remainder(direction, 0.4 * math.pi) - 0.2 * math.pi).abs()
    x, y = length * folded.cos(), length * folded.sin()
    # From the notch (at angle 0 after folding) to the tip (at angle pi/5).
    tip_x, tip_y = radius * math.cos(0.2 * math.pi), radius * math.sin(0.2 * math.pi)
    edge_x, edge_y = tip_x - radius * notch, tip_y
    return ((x - radius * notch) * edge_y - y * edge_x) / torch.hypot(edge_x, edge_y)


def _pattern(labels: Tensor, placement: Placement, u: Tensor, v: Tensor) -> Tensor:
    """Share (N, H, W) of the second colour: 0 in plain shapes, stripes and checks in the patches."""
    period = _wide(placement.period) * torch.where(_wide(labels) == CLASSES.index("checker"), 1.4, 1.0)
    first = _square_wave(u, period, _wide(placement.phase[:, 0]))
    second = _square_wave(v, period, _wide(placement.phase[:, 1]))
    checks = first + second - 2 * first * second
    plain = torch.zeros_like(first)
    return torch.where(
        _wide(labels) == CLASSES.index("checker"),
        checks,
        torch.where(_wide(labels) == CLASSES.index("stripes"), first, plain),
    )


def _square_wave(position: Tensor, period: Tensor, phase: Tensor) -> Tensor:
    to_middle = (torch.remainder(position / period + phase, 1.0) - 0.5).abs() - 0.25
    return (to_middle * period + 0.5).clamp(0, 1)
