"""Where the channels and the positions of an activation are.

Which axis has the channels is told by what made the tensor, followed through the forward pass by
`toumei.core.surveys`; without a survey by the rank: axis 1 of (N, C), of maps (N, C, H, W) and volumes
(N, C, D, H, W), the last of tokens (N, T, C). Which grid the tokens of a vision transformer stand on is told
by the picture that went in. What cannot be told is named: ``channel_axis=``, ``grid=``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from torch import Tensor

from .checks import checked
from .errors import ShapeError, UnitError
from .names import Unit
from .summaries import counted, listed


@dataclass(frozen=True)
class Layout:
    """What is known of the axes of an activation.

    Attributes:
        channel_axis: The axis of the channels; None if it could not be told.
        shape: The shape of the activation in the survey.
        grid: Sizes of the grid that tokens stand on, None where they stand on none or it could not be told.
        offset: How many tokens stand before the grid, such as class and register tokens.
        pictured: Whether the tokens are parts of a picture, so that y:x and the centre mean places in it.
        placed: Whether each axis but batch and channels is one of a map, not one of windows of it.
    """

    channel_axis: int | None = None
    grid: tuple[int, ...] | None = None
    offset: int = 0
    pictured: bool = False
    shape: tuple[int, ...] = ()
    placed: bool = True


@dataclass(frozen=True, eq=False)
class Channels:
    """An activation with the channels first.

    Attributes:
        values: (N, C, positions), a view of the activation wherever possible.
        grid: Sizes of the grid of positions, (H, W) of maps, (D, H, W) of volumes, (L,) of signals; None for
            tokens whose grid is not known.
        offset: How many positions stand before the grid.
        layer: The layer, for messages.
        pictured: Whether tokens without a grid are parts of a picture.
        tokens: Whether the positions are tokens, so that one number names one of them.
    """

    values: Tensor
    grid: tuple[int, ...] | None
    offset: int = 0
    layer: str = ""
    pictured: bool = False
    tokens: bool = False

    def __repr__(self) -> str:
        return f"Channels({tuple(self.values.shape)} of {self.layer!r} on the grid {self.grid})"

    def check(self, channels: Sequence[int | None]) -> None:
        """Checks that channels exist.

        Raises:
            UnitError: One does not; the message says how many there are.
        """
        count = self.values.shape[1]
        for channel in channels:
            if channel is not None and channel >= count:
                layer = self.layer or "output"
                raise UnitError(
                    f"no channel {channel} in layer {layer!r}: it has {counted(count, 'channel')}, 0 to "
                    f"{count - 1}"
                )

    def maps(self) -> Tensor:
        """Returns the channels on their grid: (N, C, H, W), (N, C, 1, L) of signals, (N, C, D, H, W).

        Tokens before and after the grid are left out.

        Raises:
            ShapeError: The grid of tokens is not known, or the layer has no positions.
        """
        if self.grid is None:
            raise ShapeError(self._no_grid())
        if not self.grid:
            raise ShapeError(
                f"expected maps (N, C, H, W) or tokens (N, T, C) from layer {self.layer!r}, got "
                f"{tuple(self.values.shape[:2])}: name a layer before the positions are pooled"
            )
        grid = (1, *self.grid) if len(self.grid) == 1 else self.grid
        result: Tensor = self.values[:, :, self.offset : self.offset + prod(self.grid)].unflatten(2, grid)
        return result

    def index(self, position: Sequence[int] | None) -> int:
        """Returns the index of a position among the positions.

        Args:
            position: (y, x), (token,) or (z, y, x); None for the centre: (H // 2, W // 2) of a map or grid as
                in lucid, the middle of a sequence.

        Raises:
            UnitError: The position is outside of the layer, or the grid of tokens is not known.
        """
        count = self.values.shape[2]
        sizes: tuple[int, ...]
        if self.tokens and position is not None and len(position) == 1:
            sizes, offset = (count,), 0
        elif self.grid is not None:
            sizes, offset = self.grid, self.offset
        elif position is None and not self.pictured:
            return count // 2
        else:
            raise UnitError(self._no_grid())
        position = tuple(size // 2 for size in sizes) if position is None else tuple(position)
        if len(position) != len(sizes) or any(one >= size for one, size in zip(position, sizes, strict=True)):
            raise UnitError(
                f"no position {':'.join(map(str, position))} in layer {self.layer!r}: its positions are "
                f"{sizes}"
            )
        index = 0
        for step, size in zip(position, sizes, strict=True):
            index = index * size + step
        return offset + index

    def _no_grid(self) -> str:
        return (
            f"the grid of the {counted(self.values.shape[2], 'position')} of layer {self.layer!r} cannot be "
            "told: give its height and width as grid=(height, width)"
        )


class LaidOut(dict[str, Tensor]):
    """Activations by layer, with what is known of their axes.

    Args:
        tensors: The activations.
        layouts: What a survey found out about the layers.
    """

    def __init__(self, tensors: Mapping[str, Tensor], layouts: Mapping[str, Layout]) -> None:
        super().__init__(tensors)
        self.layouts = dict(layouts)

    def __repr__(self) -> str:
        return f"LaidOut({listed(f'{layer}: {tuple(tensor.shape)}' for layer, tensor in self.items())})"


def with_layouts_of(activations: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> LaidOut:
    """Returns other tensors of the same layers, with what is known of the axes of some activations."""
    return LaidOut(tensors, getattr(activations, "layouts", {}))


def layout_in(activations: Mapping[str, Tensor], layer: str) -> Layout | None:
    """Returns what is known of the axes of a layer in a mapping of activations, None if nothing is."""
    layouts: Mapping[str, Layout] = getattr(activations, "layouts", {})
    return layouts.get(layer)


def channels_of(
    activations: Mapping[str, Tensor],
    unit: Unit | str,
    channel_axis: int | None = None,
    grid: tuple[int, ...] | None = None,
) -> Channels:
    """Returns the channels of a layer.

    Args:
        activations: By layer; those of a survey know their axes.
        unit: The layer, or a unit of it, which may name the axis and the grid.
        channel_axis: The axis of the channels, where it is another one.
        grid: Height and width of the grid of tokens, where it is another one.

    Raises:
        ShapeError: The axis cannot be told or does not exist, or the grid does not fit.
    """
    unit = Unit(unit) if isinstance(unit, str) else unit
    channel_axis = unit.channel_axis if channel_axis is None else channel_axis
    grid = unit.grid if grid is None else grid
    layout = layout_in(activations, unit.layer)
    return _channels_of(activations[unit.layer], layout, unit.layer, channel_axis, grid)


@checked
def with_channels_first(
    activation: Tensor,
    layout: Layout | None = None,
    layer: str = "",
    channel_axis: int | None = None,
    grid: tuple[int, ...] | None = None,
) -> Channels:
    """Returns an activation with the channels first.

    Args:
        activation: (N, C), (N, C, H, W), (N, T, C), or any other shape with the batch first.
        layout: What a survey found out about it.
        layer: Its layer, for messages.
        channel_axis: The axis of the channels, where it is another one.
        grid: Height and width of the grid of tokens, where it is another one.

    Raises:
        ShapeError: The axis cannot be told or does not exist, or the grid does not fit.

    Example:
        >>> import torch
        >>> with_channels_first(torch.zeros(2, 197, 768), grid=(14, 14)).maps().shape
        torch.Size([2, 768, 14, 14])
    """
    return _channels_of(activation, layout, layer, channel_axis, grid)


def _channels_of(
    activation: Tensor,
    layout: Layout | None,
    layer: str,
    channel_axis: int | None,
    grid: tuple[int, ...] | None,
) -> Channels:
    """The channels of an activation without a check of the arguments, which each step of a search needs."""
    axis = channel_axis_of(activation, layout, layer, channel_axis)
    sizes = tuple(size for index, size in enumerate(activation.shape) if index not in (0, axis))
    moved = activation if axis == 1 else activation.movedim(axis, 1)
    values = moved.reshape(*moved.shape[:2], prod(sizes))
    found = _layout_for(activation, axis, layout)
    if len(sizes) > 1 and found.placed:
        return Channels(values, sizes, layer=layer)
    tokens, count = axis == 2 and len(sizes) == 1, values.shape[2]
    offset = found.offset
    if grid is not None:
        _check_grid(count, grid, layer)
        offset = offset if found.grid == grid else count - prod(grid)
    elif found.grid is not None and offset + prod(found.grid) <= count:
        grid = found.grid
    elif found.placed and not tokens:
        grid = sizes
    else:
        return Channels(values, None, 0, layer, found.pictured or not found.placed, tokens)
    return Channels(values, grid, offset, layer, tokens=tokens)


@checked
def channels_first(activation: Tensor, channel_axis: int | None = None) -> Tensor:
    """Returns an activation as (N, C, positions), a view wherever possible; see `with_channels_first`.

    Args:
        activation: With the batch first.
        channel_axis: The axis of the channels, where the rule by rank is wrong.

    Raises:
        ShapeError: The activation has no batch and channel axes, or not the axis that was named.

    Example:
        >>> import torch
        >>> channels_first(torch.zeros(2, 197, 768)).shape
        torch.Size([2, 768, 197])
    """
    return with_channels_first(activation, channel_axis=channel_axis).values


def channel_axis_of(
    activation: Tensor, layout: Layout | None = None, layer: str = "", named: int | None = None
) -> int:
    """Returns the axis of the channels; arguments and errors are those of `with_channels_first`."""
    rank = activation.dim()
    axis: int | None = named
    if axis is None and layout is not None:
        axis = layout.channel_axis
        if axis is None and rank > 2:
            raise ShapeError(
                f"the axis of the channels of layer {layer!r}, {tuple(activation.shape)}, cannot be told: "
                f"name it as channel_axis="
            )
    if axis is None:
        axis = rank - 1 if rank == 3 else 1
    axis = axis + rank if axis < 0 else axis
    if rank < 2 or not 0 < axis < rank:
        raise ShapeError(
            f"expected an activation with a batch and a channel axis {axis}, got {tuple(activation.shape)}"
        )
    return axis


def _layout_for(activation: Tensor, axis: int, layout: Layout | None) -> Layout:
    """The layout without its grid where that is one of another axis or of a picture of another size."""
    layout = layout or Layout()
    same = not layout.shape or layout.shape[1:] == activation.shape[1:]
    if layout.channel_axis != axis:
        return Layout(pictured=layout.pictured)
    return layout if same else replace(layout, grid=None, offset=0)


def _check_grid(count: int, grid: tuple[int, ...], layer: str) -> None:
    if not 0 < len(grid) < 4 or min(grid) < 1 or prod(grid) > count:
        raise ShapeError(
            f"grid={tuple(grid)} does not fit the {counted(count, 'token')} of layer {layer!r}: give height "
            "and width of the grid of patches"
        )
