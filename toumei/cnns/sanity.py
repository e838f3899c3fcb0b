"""The sanity check of pictures: is a picture processed like natural images that excite its unit?"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..core.checks import checked
from ..core.errors import ArgumentError, ShapeError, UnreachedLayerError
from ..core.forward import forward_errors
from ..core.hooks import hooked, run
from ..core.layout import with_channels_first
from ..core.modules import evaluating
from ..core.names import parse
from ..core.repeats import check_layers_repeat
from ..core.serialization import Saved
from ..core.summaries import counted, listed
from ..core.surveys import Survey, survey
from ..core.targets import resolve
from ..core.tensor_specs import specs
from ..core.user_warnings import warn
from ..plots import style
from ..plots.style import drawing
from .inputs import as_images, as_input

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BATCH = 64
_FEWEST_CHANNELS = 8  # the ranks of a few channels say little


@dataclass(frozen=True, repr=False, eq=False)
class SanityScore(Saved):
    """How alike a network processes pictures and natural images. All tensors are on the CPU.

    A similarity is the mean rank correlation of two sets of images, from -1 to 1. It is NaN in layers that
    the unit of a picture does not depend on.

    Attributes:
        units: The unit of each picture.
        layers: In the order of the forward pass.
        similarities: Between the picture and the images that excite its unit, (units, layers).
        exciting: Between different images that excite the unit, (units, layers).
        others: Between images that excite the unit and other images, (units, layers).

    Example:
        >>> score = SanityScore(
        ...     ("conv2:1",), ("conv1", "conv2"), torch.tensor([[0.9, 0.7]]), torch.tensor([[0.9, 0.8]]),
        ...     torch.tensor([[0.7, 0.4]])
        ... )
        >>> score
        SanityScore(0.83 for conv2:1 over 2 layers; 1: like exciting images, 0: like others)
        >>> score.normalized
        tensor([[1.0000, 0.7500]])
    """

    units: tuple[str, ...]
    layers: tuple[str, ...]
    similarities: Tensor
    exciting: Tensor
    others: Tensor

    _specs = specs(
        units="units",
        layers="layers",
        similarities="units layers",
        exciting="units layers",
        others="units layers",
    )

    @property
    def normalized(self) -> Tensor:
        """The similarities (units, layers) on a scale where exciting images have 1 and other images 0.

        A layer that does not distinguish them gives large numbers of either sign, and has little weight in
        `scores`.
        """
        return (self.similarities - self.others) / (self.exciting - self.others)

    @property
    def scores(self) -> Tensor:
        """One number for each picture, (units,): 1 if it is like exciting images, 0 if it is like others.

        It is the area between the curves of the picture and of the other images over all layers, divided by
        that between exciting and other images. NaN where exciting images are not more alike than others.
        """
        height = (self.exciting - self.others).nansum(1)
        return torch.where(height > 0, (self.similarities - self.others).nansum(1) / height, torch.nan)

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the similarity of pictures, exciting images and other images over the layers."""
        positions = range(len(self.layers))
        title = self.units[0] if len(self.units) == 1 else counted(len(self.units), "unit")
        with drawing(ax) as ax:
            for name, values, color in (
                ("exciting images", self.exciting, style.GREEN),
                ("picture", self.similarities, style.BLUE),
                ("other images", self.others, style.GRAY),
            ):
                if len(values) > 1:
                    for line in values.tolist():
                        ax.plot(positions, line, color=color, alpha=0.2, linewidth=0.7)
                mean = values.nanmean(0).tolist()
                ax.plot(positions, mean, color=color, marker="o", markersize=3, label=name)
            ax.set_xticks(positions, self.layers, rotation="vertical")
            ax.set_xlabel("layer")
            ax.set_ylabel("correlation with the images that excite the unit")
            ax.set_title(f"{title}, score {self.scores.nanmean().item():.2f}")
            ax.legend()
        return ax

    def __repr__(self) -> str:
        scores = [f"{score:.2f} for {unit}" for score, unit in zip(self.scores, self.units, strict=True)]
        scale = "1: like exciting images, 0: like others"
        return f"SanityScore({listed(scores, 2)} over {counted(len(self.layers), 'layer')}; {scale})"


@checked
@torch.no_grad()
def sanity_check(
    model: nn.Module,
    units: str | Sequence[str],
    pictures: Tensor | Sequence[Tensor],
    exciting: Tensor | Sequence[Tensor],
    others: Tensor | Sequence[Tensor],
    layers: str | Sequence[str] | None = None,
    *,
    preprocess: Callable[[Tensor], Tensor] | None = None,
    channel_axis: int | None = None,
) -> SanityScore:
    """Returns how far pictures of units are processed like natural images that excite these units.

    The sanity check of Geirhos et al. 2024 ("Don't trust your eyes: on the (un)reliability of feature
    visualizations", arXiv:2306.04719): a picture can excite a unit along paths that no natural image takes,
    and then says little about it. In each layer the activations are averaged over the positions and compared
    by Spearman's rank correlation over the channels.

    Args:
        model: Any vision network.
        units: One unit such as ``"conv4:12"``, or several, or the titles of a `Visualization`.
        pictures: A picture (3, H, W) for each unit, as a batch or a list.
        exciting: At least two natural images (N, 3, H, W) that excite the unit, or a list of such batches,
            one for each unit: `DatasetExamples.crops` or `images`. Best of the size of the picture.
        others: Random natural images (N, 3, H, W), or a list of batches, one for each unit.
        layers: The layer or the layers to compare in, for all units; by default every module without children
            and with at least 8 channels that runs before the layer of the unit, and that layer.
        preprocess: From images in [0, 1] to the input of the network.
        channel_axis: The axis of the channels, where it cannot be told.

    Raises:
        ArgumentError: Not one picture and one batch for each unit, or no layers.
        ShapeError: Fewer than two exciting images, no other images, or tensors that are no images.
        UnitError: A malformed unit string.
        LayerError: A layer does not exist, or the forward pass does not reach it.

    Example:
        >>> from toumei.models import ShapesCNN
        >>> images = torch.rand(6, 3, 32, 32)
        >>> images[2] = images[1]  # two exciting images that are alike
        >>> sanity_check(ShapesCNN(), "conv2:0", images[:1], images[1:3], images[3:]).layers
        ('conv1', 'relu1', 'pool1', 'conv2')
    """
    names = [units] if isinstance(units, str) else list(units)
    layers = [layers] if isinstance(layers, str) else layers
    ends = [parse(name).layer for name in names]
    resolve(model, [*ends, *(layers or ())])
    sets = [
        _each(given, len(names), what, model, preprocess)
        for given, what in ((pictures, "pictures"), (exciting, "exciting images"), (others, "other images"))
    ]
    if any(len(images) < 2 for images in sets[1]):
        raise ShapeError(
            "at least two exciting images are needed for each unit, to compare them with each other"
        )
    with evaluating(model):
        example = sets[1][0][:1]
        paths = {end: list(layers or _path(model, end, example, channel_axis)) for end in dict.fromkeys(ends)}
        union = tuple(dict.fromkeys(name for path in sorted(paths.values(), key=len) for name in path))
        found = survey(model, union, lambda: model(example), keep=False)
        check_layers_repeat(model, example, {union[-1]: found.names[union[-1]]})
        compared = torch.full((3, len(names), len(union)), torch.nan)
        for row, (end, *images) in enumerate(zip(ends, *sets, strict=True)):
            codes = [_codes(model, batch, paths[end], found, channel_axis) for batch in images]
            for name in paths[end]:
                compared[:, row, union.index(name)] = _similarities(*(code[name] for code in codes))
        score = SanityScore(
            units=tuple(names),
            layers=union,
            similarities=compared[0],
            exciting=compared[1],
            others=compared[2],
        )
    if bool(score.scores.isnan().any()):
        without = [name for name, one in zip(names, score.scores.tolist(), strict=True) if one != one]
        warn(
            f"there is no score for {listed(without)}: in these layers the exciting images are not more like "
            f"each other than like other images; give more images, or more layers"
        )
    return score


def _each(
    given: Tensor | Sequence[Tensor],
    count: int,
    what: str,
    model: nn.Module,
    preprocess: Callable[[Tensor], Tensor] | None,
) -> list[Tensor]:
    """A batch of images for each unit, as the network takes them."""
    if isinstance(given, Tensor) and not given.dim():
        raise ShapeError(f"expected {what} (N, C, H, W), got one number")
    shared = isinstance(given, Tensor) and what != "pictures"
    batches: list[Tensor] = [given] * count if shared else list(given)  # type: ignore[list-item]
    if len(batches) != count:
        raise ArgumentError(f"expected {what} for {counted(count, 'unit')}, got {what} for {len(batches)}")
    return [as_input(as_images(batch, what), model, preprocess) for batch in batches]


def _path(model: nn.Module, end: str, image: Tensor, channel_axis: int | None) -> list[str]:
    """The modules without children whose first run comes before the last run of a layer, and the layer."""
    steps = [name for name, module in model.named_modules() if name and not any(module.children())]
    last = survey(model, [end], lambda: model(image)).names[end]
    reached: dict[str, int] = {}  # channels, in the order of the first runs

    def note(name: str, seen: Tensor) -> Tensor:
        reached.setdefault(name, 0)
        return seen

    edits = {name: partial(note, name) for name in steps if name != end}
    with suppress(UnreachedLayerError), hooked(model, edit=edits, every=True):  # later layers do not run
        run(model, image, record=[last])
    found = survey(model, reached, lambda: model(image), keep=False)
    return [*(name for name in reached if _channels(found, name, channel_axis) >= _FEWEST_CHANNELS), end]


def _channels(found: Survey, layer: str, channel_axis: int | None) -> int:
    layout = found.layouts[layer]
    axis = layout.channel_axis if channel_axis is None else channel_axis
    return 0 if axis is None or len(layout.shape) < 2 else layout.shape[axis]


def _codes(
    model: nn.Module, images: Tensor, layers: Sequence[str], found: Survey, channel_axis: int | None
) -> dict[str, Tensor]:
    """The ranks of the channels in each layer, (N, channels), centred and of length 1."""
    parts = []
    for batch in images.split(_BATCH):
        means: dict[str, Tensor] = {}

        def averaged(name: str, seen: Tensor, means: dict[str, Tensor] = means) -> Tensor:
            channels = with_channels_first(seen, found.layouts[name], name, channel_axis)
            means[name] = channels.values.float().mean(2)
            return seen

        # Not recorded: the activations of all layers at once would take much memory.
        edits = {found.names[name]: partial(averaged, name) for name in layers}
        with forward_errors(model, (batch,)), hooked(model, edit=edits, stop=True):
            model(batch)
        parts.append({name: _ranks(mean.cpu()) for name, mean in means.items()})
    return {name: nn.functional.normalize(torch.cat([part[name] for part in parts])) for name in layers}


def _ranks(values: Tensor) -> Tensor:
    """The centred rank of each value in its row; equal values have the mean of their ranks."""
    ordered = values.contiguous().sort().values
    below, up_to = (torch.searchsorted(ordered, values.contiguous(), right=right) for right in (False, True))
    return (below + up_to - values.shape[1]) / 2


def _similarities(picture: Tensor, exciting: Tensor, others: Tensor) -> Tensor:
    """The mean rank correlations of picture, exciting and other images with the exciting ones, (3,)."""
    among = exciting @ exciting.T
    count = len(exciting)
    among = (among.sum() - among.trace()) / (count * (count - 1))
    return torch.stack([(exciting @ picture.T).mean(), among, (exciting @ others.T).mean()])
