"""Expanded weights: how the channels of a layer feed the units of a later one, through all layers between."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ... import plots
from ...core.checks import checked
from ...core.errors import ArgumentError, ShapeError, UnitError
from ...core.function_kinds import RECTIFIERS, rectifier_ceiling
from ...core.functions import Function, canonical_name, intercepted, returns_indices
from ...core.hooks import hooked
from ...core.kinds import shown
from ...core.layout import Channels, channels_of, with_channels_first, with_layouts_of
from ...core.modules import evaluating, frozen
from ...core.repeats import check_layers_repeat
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.surveys import survey
from ...core.tensor_specs import specs
from ...plots.pixels import in_range
from ...plots.style import diverging_colors, look_of
from ..inputs import as_input

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CELL = 64  # pixels of a picture or of a kernel in a plot


@dataclass(frozen=True, repr=False, eq=False)
class ExpandedWeights(Saved):
    """What each channel of a layer adds to units of a later layer, by place. All tensors are on the CPU.

    Attributes:
        before: The earlier layer.
        after: The later layer.
        channels: The units of the later layer, in the order of `weights`.
        weights: (units, C, h, w): how much the unit at the centre of its map rises with a channel of the
            earlier layer at each position of the receptive field.

    Example:
        >>> from toumei.models import ShapesCNN
        >>> model = ShapesCNN(pretrained=True)
        >>> expanded_weights(model, "conv2", "conv4", torch.zeros(1, 3, 64, 64), channels=[5, 9])
        ExpandedWeights(conv2 to conv4: 2 units, 32 inputs, 8x8)
    """

    before: str
    after: str
    channels: tuple[int, ...]
    weights: Tensor

    _specs = specs(channels="units", weights="units C h w")

    @checked
    def strongest(self, channel: int, count: int = 6) -> list[int]:
        """Returns the channels of the earlier layer that matter most to a unit, by the norm of their weights.

        Raises:
            ArgumentError: The unit is not among `channels`.
        """
        result: list[int] = self._of(channel).flatten(1).norm(dim=1).argsort(descending=True)[:count].tolist()
        return result

    @checked
    def plot(
        self, inputs: int = 6, pictures: Mapping[str, Tensor] | None = None, ax: "Axes | None" = None
    ) -> "Axes":
        """Returns axes with a row for each unit: its strongest inputs as kernels. Red excites, blue inhibits.

        The colours of a row share a scale that ends at the largest weight of the unit.

        Args:
            inputs: How many inputs of each unit are shown.
            pictures: What units look for, (3, H, W) by unit string, such as ``"conv5:12"``. They are shown at
                the left of the row of a unit and above its inputs.
            ax: Where to draw; a new figure by default.
        """
        pictures = pictures or {}
        inputs = min(inputs, self.weights.shape[1])
        tiles, titles = [], []
        for channel in self.channels:
            unit, chosen = f"{self.after}:{channel}", self.strongest(channel, inputs)
            names = [f"{self.before}:{index}" for index in chosen]
            kernels = list(_heat(self._of(channel))[chosen])
            if any(name in pictures for name in names):
                tiles += [_tile(pictures.get(name)) for name in (unit, *names)]
                tiles += [_tile(None), *map(_tile, kernels)]
                titles += [unit, *names, "weights", *[""] * inputs]
            else:
                tiles += [_tile(pictures.get(unit)), *map(_tile, kernels)]
                titles += [unit, *names]
        with look_of(ax):
            ax = plots.image_grid(torch.stack(tiles), titles, inputs + 1, ax)
            plots.color_bar(ax, "weight, 1: largest of the row")
        return ax

    def _of(self, channel: int) -> Tensor:
        if channel not in self.channels:
            raise ArgumentError(
                f"the weights of {self.after}:{channel} were not computed, only those of {self.channels}"
            )
        return self.weights[self.channels.index(channel)]

    def __repr__(self) -> str:
        units, inputs, height, width = self.weights.shape
        size = f"{counted(units, 'unit')}, {counted(inputs, 'input')}, {height}x{width}"
        return f"ExpandedWeights({self.before} to {self.after}: {size})"


@checked
def expanded_weights(
    model: nn.Module,
    before: str,
    after: str,
    image: Tensor,
    channels: Sequence[int] | None = None,
    *,
    linear_relu: bool = True,
    average_pool: bool = True,
    batch_size: int = 32,
) -> ExpandedWeights:
    """Returns the weights from every channel of a layer to units of a later one (Voss et al. 2021).

    They are the gradient of each unit, at the centre of its map, with respect to the activation of the
    earlier layer. Between neighbouring convolutions they are the weights of the second one, with zeros
    between them if it is dilated; through several layers they are the composed kernel. Weights outside of the
    map are cut off, so the image should be larger than the receptive field.

    Args:
        model: The network, which runs in evaluation mode.
        before: The earlier layer, which makes maps or tokens.
        after: The later layer: convolutional, linear, or any other with channels.
        image: (1, C, H, W) as the network takes it. The network is linearized at this image. With both
            options below, and without other nonlinear layers, only its size matters.
        channels: Units of the later layer; all by default.
        linear_relu: Treat ReLUs and similar functions (ReLU6, PReLU, GELU, SiLU, ...) as the identity.
            Otherwise they have their gradient at this image.
        average_pool: Replace max-pooling by average pooling.
        batch_size: How many units are differentiated at once.

    Raises:
        LayerError: There is no such layer.
        ShapeError: The image is no batch of one, or the earlier layer makes no maps.
        UnitError: The later layer does not have these channels.
        ArgumentError: The later layer does not depend on the earlier one.

    Example:
        >>> from toumei.models import ShapesCNN
        >>> model = ShapesCNN(pretrained=True).eval()
        >>> expanded_weights(model, "conv4", "conv5", torch.rand(1, 3, 64, 64), [1, 35])
        ExpandedWeights(conv4 to conv5: 2 units, 64 inputs, 3x3)
    """
    if not isinstance(image, Tensor) or image.dim() != 4 or len(image) != 1:
        raise ShapeError(f"expected one image (1, C, H, W), got {shown(image)}")
    leaves: list[Tensor] = []

    def cut(activation: Tensor) -> Tensor:
        leaves.append(activation.detach().requires_grad_())
        return leaves[-1].clone()  # which the network may overwrite

    with ExitStack() as stack:
        for context in (torch.enable_grad(), frozen(model), evaluating(model)):
            stack.enter_context(context)
        stack.enter_context(intercepted(partial(_linearized, linear_relu, average_pool)))
        seen = as_input(image, model)
        found = survey(model, [before, after], lambda: model(seen))
        check_layers_repeat(model, seen, found.names)
        with hooked(model, {after: found.names[after]}, {found.names[before]: cut}, stop=True) as recorded:
            model(seen)
        activations = with_layouts_of(found.activations, recorded)
        units = _centre(channels_of(activations, after))
        if before == after or not units.requires_grad:
            raise ArgumentError(
                f"layer {after!r} does not depend on {before!r}; the earlier layer is named first, and the "
                f"network computes with gradients"
            )
        channels = range(len(units)) if channels is None else channels
        if not channels or min(channels) < 0:
            raise UnitError(f"channels are whole numbers from 0 up, at least one; got {list(channels)}")
        channels_of(activations, after).check(channels)
        maps = partial(with_channels_first, layout=found.layouts[before], layer=before)
        y, x = _receptive_field(maps(_any_gradient(units, leaves[-1])).maps())
        # Cut out and copied batch by batch: the gradients of all units on whole maps would take much memory.
        parts = [
            maps(gradients).maps()[:, :, y, x].to("cpu", torch.float32, copy=True)
            for gradients in _gradients(units, leaves[-1], channels, batch_size)
        ]
    return ExpandedWeights(before, after, tuple(channels), torch.cat(parts))


def _centre(channels: Channels) -> Tensor:
    """All channels of a layer at the centre of its map, (C,)."""
    return channels.values[0, :, channels.index(None)]


def _gradients(units: Tensor, leaf: Tensor, channels: Sequence[int], batch_size: int) -> Iterator[Tensor]:
    """The gradient of each unit, (units, C, H, W) or (units, T, C), batch by batch."""
    rows = torch.eye(len(units), device=units.device, dtype=units.dtype)[list(channels)]
    for part in rows.split(batch_size):
        yield torch.autograd.grad(units, leaf, part, retain_graph=True, is_grads_batched=True)[0].squeeze(1)


def _any_gradient(units: Tensor, leaf: Tensor) -> Tensor:
    """The gradient of a random mixture of all units: nonzero wherever one of them has a weight."""
    mixture = torch.rand(len(units), generator=torch.Generator().manual_seed(0)).to(units) + 0.5
    return torch.autograd.grad(units, leaf, mixture, retain_graph=True)[0]


def _receptive_field(gradient: Tensor) -> tuple[slice, slice]:
    """The rows and columns that the units of a layer can see; one position if they see nothing."""
    seen = gradient.abs().sum((0, 1)) > 0
    spans = [seen.any(1).nonzero().flatten().tolist(), seen.any(0).nonzero().flatten().tolist()]
    y, x = (slice(span[0], span[-1] + 1) if span else slice(0, 1) for span in spans)
    return y, x


def _linearized(
    linear_relu: bool,
    average_pool: bool,
    function: Function,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Calls a function, or passes its input on for a rectifier, or pools by the average for a max-pool."""
    name, _ = canonical_name(function)
    if linear_relu and (name in _PASSED_ON or rectifier_ceiling(name, args, kwargs) is not None):
        return args[0] if args else kwargs["input"]
    if average_pool and name == "max_pool2d" and not returns_indices(function, kwargs):
        return _average_pool(*args, **kwargs)
    return function(*args, **kwargs)


_PASSED_ON = RECTIFIERS | {"hardtanh"}


def _average_pool(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The average pool with the arguments of a max-pool."""
    if dilation not in (1, (1, 1), [1, 1]):
        raise ArgumentError("there is no dilated average pool: give average_pool=False")
    return F.avg_pool2d(input, kernel_size, stride or None, padding, ceil_mode, count_include_pad=False)


def _heat(weights: Tensor) -> Tensor:
    """Kernels (C, h, w) as pictures (C, 3, H, W): white is zero, orange positive, blue negative."""
    colors = diverging_colors(weights, float(weights.abs().max().clamp(min=1e-12)))
    return F.interpolate(colors.movedim(3, 1), size=(_CELL, _CELL), mode="nearest")


def _tile(picture: Tensor | None) -> Tensor:
    """A picture in the size of a cell of a plot; white without one."""
    if picture is None:
        return torch.ones(3, _CELL, _CELL)
    picture = in_range(picture).expand(3, -1, -1)
    if picture.shape[1:] == (_CELL, _CELL):
        return picture
    return F.interpolate(picture[None], size=(_CELL, _CELL), mode="bicubic", antialias=True).clamp(0, 1)[0]
