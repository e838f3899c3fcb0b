"""Groups of channels that are active together: the activations of a layer as non-negative factors."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ... import plots
from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError, NonFiniteError, ShapeError
from ...core.hooks import run
from ...core.layout import channels_of, with_layouts_of
from ...core.modules import evaluating
from ...core.repeats import check_layers_repeat
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.surveys import survey
from ...core.tensor_specs import Spec, specs
from ...plots.style import palette
from ..inputs import as_input
from ..objectives import Direction

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False, eq=False)
class ChannelGroups(Saved):
    """Groups of channels of a layer and where in some images each group fires. All tensors are on the CPU.

    The activation at a position is about the sum over groups of map times direction. Groups are ordered by
    how much of the activations they explain.

    Attributes:
        layer: The layer.
        directions: The channels of each group, (groups, C), not negative, of norm 1.
        maps: How active each group is at each position, (N, groups, H, W), not negative.
        images: The images, (N, 3, H', W').
        error: What the groups leave out: the norm of the difference over the norm of the activations.
        channel_axis: The axis of the channels in the layer, where it had to be named.

    Example:
        >>> from toumei.models import ShapesCNN, ShapesDataset
        >>> images = ShapesDataset(seed=1).batch(range(4))[0]
        >>> groups = group_channels(ShapesCNN(pretrained=True), "relu4", images, 3)
        >>> groups.directions.shape, groups.maps.shape
        (torch.Size([3, 64]), torch.Size([4, 3, 16, 16]))
    """

    layer: str
    directions: Tensor
    maps: Tensor
    images: Tensor
    error: float
    channel_axis: int | None = None

    _specs = specs(
        directions=Spec("groups C", finite=True),
        maps=Spec("N groups _ _", finite=True),
        images="N _ _ _",
    )

    def objective(self) -> Direction:
        """Returns the objective that makes a picture of each group, for a generator of as many pictures."""
        axis = self.channel_axis
        return Direction(self.layer, self.directions, similarity="dot-cosine", channel_axis=axis)

    def colors(self) -> Tensor:
        """Returns the colour of each group in plots, (groups, 3)."""
        from matplotlib.colors import to_rgb

        return torch.tensor([to_rgb(color) for color in palette(len(self.directions), on_dark=True)])

    def heat(self) -> Tensor:
        """Returns the groups' maps in their colours over the darkened images in gray, (N, 3, H', W').

        The brightness of a group is its activity relative to its 99th percentile.

        Raises:
            ShapeError: The maps do not have the proportions of the images.
        """
        size = self.images.shape[-2:]
        plots.check_overlay(self.maps.shape[-2:], size)
        flat = self.maps.movedim(1, 0).flatten(1)
        most = torch.stack([group.sort().values[int(0.99 * (len(group) - 1))] for group in flat])
        most = torch.where(most > 0, most, flat.amax(1)).clamp(min=1e-12)
        strength = (self.maps / most.view(1, -1, 1, 1)).clamp(max=1)
        strength = F.interpolate(strength, size=size, mode="bilinear")
        glow = torch.einsum("nkhw,kc->nchw", strength, self.colors())
        gray = plots.in_range(self.images).mean(1, keepdim=True)
        return (0.25 * gray + 0.85 * glow).clamp(0, 1)

    @checked
    def plot(
        self, pictures: Tensor | None = None, ax: "Axes | None" = None, columns: int | None = None
    ) -> "Axes":
        """Returns axes with the images, the heat maps of the groups below them, and a legend of the colours.

        Args:
            pictures: A picture of each group, (groups, 3, H, W), from a `Pipeline` with `objective`; by
                default the legend shows a field of its colour.
            ax: Where to draw; a new figure by default.
            columns: How many images are shown; by default as many as there are groups, at least four.

        Raises:
            ShapeError: There is not one picture for each group.
        """
        groups, size = len(self.directions), self.images.shape[-2:]
        if pictures is not None and len(pictures) != groups:
            raise ShapeError(
                f"expected a picture for each of {counted(groups, 'group')}, got {tuple(pictures.shape)}"
            )
        columns = columns or max(groups, 4)
        shown = min(columns, len(self.images))
        legend = _framed(self.colors(), pictures, size)
        blank = torch.ones(1, 3, *size)
        rows = [self.images[:shown].expand(-1, 3, -1, -1), self.heat()[:shown], legend]
        rows = [torch.cat([row, blank.expand(-len(row) % columns, -1, -1, -1)]) for row in rows]
        before = len(rows[0]) + len(rows[1])
        titles = ["images", *[""] * (columns - 1), "groups", *[""] * (before - columns - 1)]
        titles += [f"group {index}" for index in range(groups)]
        return plots.image_grid(torch.cat(rows), titles, columns, ax)

    def __repr__(self) -> str:
        groups, channels = self.directions.shape
        return (
            f"ChannelGroups({counted(groups, 'group')} of {counted(channels, 'channel')} of {self.layer} on "
            f"{counted(len(self.maps), 'image')}, relative error {self.error:.3f})"
        )


@checked
def group_channels(
    model: nn.Module,
    layer: str,
    images: Tensor,
    groups: int = 6,
    *,
    preprocess: Callable[[Tensor], Tensor] | None = None,
    channel_axis: int | None = None,
    grid: tuple[int, int] | None = None,
    batch_size: int = 64,
    iterations: int = 400,
    seed: int = 0,
) -> ChannelGroups:
    """Returns groups of channels that are active together (Olah et al., Building Blocks, 2018).

    The activations at all positions are factorized into two non-negative matrices by scikit-learn's `NMF`.
    All of them are held in memory, so this is for tens or hundreds of images.

    Args:
        model: The network.
        layer: A layer without negative activations, such as a ReLU.
        images: (N, 3, H, W), in [0, 1] for the plots.
        groups: How many groups.
        preprocess: From images to the input of the network; see `robustness.preprocess`.
        channel_axis: The axis of the channels, where it cannot be told.
        grid: Height and width of the grid that tokens stand on, where it cannot be told.
        batch_size: Images in a forward pass.
        iterations: The most steps of the factorization.
        seed: Seed of its start.

    Raises:
        LayerError: There is no such layer.
        ShapeError: The images are no batch, or the layer makes no maps.
        ArgumentError: Negative activations, only zeros, or more groups than channels or positions.

    Example:
        >>> from toumei.models import ShapesCNN
        >>> model = ShapesCNN(pretrained=True).eval()
        >>> found = group_channels(model, "relu6", torch.rand(2, 3, 64, 64), groups=3, iterations=2)
        >>> found.directions.shape
        torch.Size([3, 128])
    """
    if images.dim() != 4 or not len(images):
        raise ShapeError(f"expected images (N, C, H, W), at least one, got {tuple(images.shape)}")
    with torch.no_grad(), evaluating(model):
        first = as_input(images[:1], model, preprocess)
        found = survey(model, [layer], lambda: model(first))
        check_layers_repeat(model, first, found.names)
        parts = []
        for batch in images.split(batch_size):
            recorded = run(model, as_input(batch, model, preprocess), record=found.names)
            activations = with_layouts_of(found.activations, recorded)
            parts.append(channels_of(activations, layer, channel_axis, grid).maps().float().cpu())
    directions, strengths, error = factorize(torch.cat(parts), groups, layer, iterations, seed)
    return ChannelGroups(
        layer=layer,
        directions=directions,
        maps=strengths,
        images=images.float().cpu(),
        error=error,
        channel_axis=channel_axis,
    )


@checked
def factorize(
    maps: Tensor, groups: int, layer: str = "", iterations: int = 400, seed: int = 0
) -> tuple[Tensor, Tensor, float]:
    """Returns directions (groups, C) of norm 1, their maps (N, groups, H, W), and the relative error.

    Args:
        maps: Activations (N, C, H, W), not negative.
        groups: How many directions.
        layer: The layer's name, for messages.
        iterations: The most steps.
        seed: Seed of the start.

    Raises:
        ArgumentError: Negative activations, only zeros, or more groups than channels or positions.

    Example:
        >>> maps = torch.tensor([[1.0, 0, 2], [0, 3, 0]]).reshape(1, 2, 1, 3)
        >>> directions, strengths, error = factorize(maps, 2)
        >>> directions.round(decimals=3).abs()
        tensor([[0., 1.],
                [1., 0.]])
    """
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    check_counts(1, iterations=iterations)
    if not maps.isfinite().all():
        raise NonFiniteError(f"the maps of layer {layer!r} have NaN or infinite numbers")
    if maps.dim() != 4 or not maps.numel():
        raise ShapeError(f"expected maps (N, C, H, W), got {tuple(maps.shape)}")
    images, channels, height, width = maps.shape
    rows = maps.movedim(1, 3).reshape(-1, channels)
    if rows.min() < 0:
        raise ArgumentError(
            f"layer {layer!r} has negative activations, down to {rows.min():.3g}, and non-negative groups "
            f"cannot sum to them: name the ReLU that follows"
        )
    if not rows.any():
        raise ArgumentError(f"layer {layer!r} is zero on all of these images")
    if not 1 <= groups <= min(rows.shape):
        raise ArgumentError(
            f"expected 1 to {counted(min(rows.shape), 'group')} of {counted(channels, 'channel')} at "
            f"{counted(len(rows), 'position')}, got {groups}"
        )
    solver = NMF(groups, init="nndsvda", max_iter=iterations, tol=1e-5, random_state=seed % 2**32)
    with warnings.catch_warnings():  # the error of the result says how far it converged
        warnings.simplefilter("ignore", ConvergenceWarning)
        strengths = torch.from_numpy(solver.fit_transform(rows.numpy())).float()
    directions = torch.from_numpy(solver.components_).float()
    norms = directions.norm(dim=1)
    directions, strengths = directions / norms.clamp(min=1e-12)[:, None], strengths * norms
    order = strengths.square().sum(0).argsort(descending=True)
    directions, strengths = directions[order], strengths[:, order]
    error = ((rows - strengths @ directions).norm() / rows.norm()).item()
    return directions, strengths.reshape(images, height, width, groups).movedim(3, 1).contiguous(), error


def _framed(colors: Tensor, pictures: Tensor | None, size: Sequence[int]) -> Tensor:
    """A picture for each group in a frame of its colour, or a field of the colour, (groups, 3, H, W)."""
    fields = colors[:, :, None, None].expand(-1, -1, *size).clone()
    if pictures is None:
        return fields
    border = min(max(2, size[0] // 16), (min(size) - 1) // 2)
    inside = (size[0] - 2 * border, size[1] - 2 * border)
    smaller = F.interpolate(pictures.float().cpu(), size=inside, mode="bilinear", antialias=True)
    fields[:, :, border : size[0] - border, border : size[1] - border] = smaller
    return fields
