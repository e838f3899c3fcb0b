"""The images of a dataset that excite units most and least: what a search found, with pictures and plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import Self

from ... import plots
from ...core.checks import checked
from ...core.errors import ArgumentError, UnitError
from ...core.names import parse
from ...core.serialization import Saved, load_result
from ...core.summaries import counted, listed
from ...core.user_warnings import warn
from ..inputs import images_in
from .ranking import Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DRAWN = 6  # units in a notebook


@dataclass(frozen=True, repr=False, eq=False)
class DatasetExamples(Saved):
    """Which images of a dataset excite each unit of some layers most and least. All tensors are on the CPU.

    The images themselves are not kept: they are taken from the dataset on request.

    Attributes:
        highest: For each layer the images with the highest activations, values from the highest down.
        lowest: The images with the lowest activations, values from the lowest up; empty without
            ``lowest=True``.
        fields: For each layer the receptive field of a unit, as shares of height and width of the image.
        seen: How many images were looked at.
        dataset: The images by index; None if they are not available.

    Example:
        >>> from toumei.cnns.examples.search import dataset_examples
        >>> from toumei.models import ShapesCNN, ShapesDataset
        >>> loader = torch.utils.data.DataLoader(ShapesDataset(size=20), batch_size=10)
        >>> examples = dataset_examples(ShapesCNN(), ["conv2", "conv4"], loader, k=3, verbose=False)
        >>> examples
        DatasetExamples(3 highest and lowest of 20 images: 32 units of conv2, 64 units of conv4)
        >>> examples.images("conv4:5").shape, examples.crops("conv4:5").shape
        (torch.Size([3, 3, 64, 64]), torch.Size([3, 3, 24, 24]))
    """

    highest: Mapping[str, Ranking]
    lowest: Mapping[str, Ranking]
    fields: Mapping[str, tuple[float, float]]
    seen: int
    dataset: Any = None

    _not_stored = ("dataset",)

    @checked
    def values(self, unit: str, *, lowest: bool = False) -> Tensor:
        """Returns the activations (k,) of a unit on its images, ``"conv4:12"``, or (units, k) of a layer."""
        return self._of(unit, lowest, "values")

    @checked
    def indices(self, unit: str, *, lowest: bool = False) -> Tensor:
        """Returns the indices (k,) of a unit's images in the dataset, or (units, k) of those of a layer."""
        return self._of(unit, lowest, "indices")

    @checked
    def positions(self, unit: str, *, lowest: bool = False) -> Tensor:
        """Returns the position at which a unit is strongest in its images, y and x from 0 to 1, (k, 2)."""
        return self._of(unit, lowest, "positions")

    @checked
    def images(self, unit: str, *, lowest: bool = False) -> Tensor:
        """Returns a unit's images, (k, C, H, W), from the dataset.

        Warns where all of them have the same activation, as the lowest ones after a ReLU often do: they are
        the first such images of the dataset, and say nothing about the unit.

        Raises:
            ArgumentError: There is no dataset.
            UnitError: The string names no channel of the searched layers.
        """
        if self.dataset is None:
            raise ArgumentError(
                "the images are in the dataset, which is not available: dataclasses.replace(examples, "
                "dataset=...) or DatasetExamples.load(path, dataset) sets it"
            )
        indices = self.indices(unit, lowest=lowest)
        if indices.dim() != 1:
            raise UnitError(f"{unit!r} is a layer: name one of its units, such as '{unit}:0'")
        values = self.values(unit, lowest=lowest)
        if 1 < len(values) < self.seen and values[0] == values[-1]:
            warn(
                f"the {len(values)} {'lowest' if lowest else 'highest'} images of {unit!r} all have the "
                f"activation {float(values[0]):.3g}: they say nothing about the unit"
            )
        return torch.stack([images_in(self.dataset[index]) for index in indices.tolist()])

    @checked
    def crops(self, unit: str, *, lowest: bool = False, size: int | None = None) -> Tensor:
        """Returns crops of the images of a unit, around the positions where it was strongest, (k, C, h, w).

        A crop that would reach over the border is moved inwards.

        Args:
            unit: Such as ``"conv4:12"``.
            lowest: Crop the images with the lowest activations.
            size: Height and width of the crops in pixels; by default the receptive field of the unit.

        Raises:
            ArgumentError: There is no dataset, or the images are smaller than the crops.
            UnitError: The string names no channel of the searched layers.
        """
        images = self.images(unit, lowest=lowest)
        whole = torch.tensor(images.shape[-2:])
        seen = (torch.tensor(self.fields[parse(unit).layer]) * whole).ceil().long()
        shape = seen if size is None else torch.tensor([size, size])
        if (shape < 1).any() or (shape > whole).any():
            raise ArgumentError(f"size is {size}, but the images are {whole[0]} by {whole[1]} pixels")
        corners = self.positions(unit, lowest=lowest) * whole - shape / 2
        height, width = shape.tolist()
        cut = []
        for image, corner in zip(images, corners, strict=True):
            # Halves are rounded up, so that the crops of neighbouring positions stay at equal distances.
            top, left = (corner + 0.5).floor().long().clamp(min=torch.zeros(2).long(), max=whole - shape)
            cut.append(image[..., top : top + height, left : left + width])
        return torch.stack(cut)

    @checked
    def plot(
        self,
        units: str | Sequence[str],
        pictures: Tensor | Sequence[Tensor] | None = None,
        ax: "Axes | None" = None,
        *,
        size: int | None = None,
    ) -> "Axes":
        """Returns axes with a row for each unit: its picture if given, its highest and its lowest crops.

        Args:
            units: Such as ``"conv4:12"`` or a list of them, or the titles of a `Visualization`.
            pictures: A picture (3, H, W) for each unit.
            ax: Where to draw; a new figure by default.
            size: Size of the crops; see `crops`.
        """
        units = [units] if isinstance(units, str) else units
        groups: dict[str, Sequence[Tensor]] = {}
        if pictures is not None:
            groups["picture"] = [picture[None] for picture in pictures]
        groups["highest"] = [self.crops(unit, size=size) for unit in units]
        if self.lowest:
            groups["lowest"] = [self.crops(unit, size=size, lowest=True) for unit in units]
        return plots.side_by_side(groups, units, ax=ax)

    @classmethod
    @checked
    def load(cls, path: str | Path, dataset: Any = None) -> Self:
        """Returns examples that were saved, or the state of an interrupted search.

        Args:
            path: The file.
            dataset: The images by index.

        Raises:
            ArgumentError: The file holds something else.
        """
        return load_result(cls, path, dataset=dataset)[0]

    def _drawn(self) -> Any:
        layer, ranking = next(iter(self.highest.items()))
        return self.plot([f"{layer}:{channel}" for channel in range(min(_DRAWN, len(ranking.values)))])

    def _of(self, unit: str, lowest: bool, what: str) -> Tensor:
        layer, channel = parse(unit).layer, parse(unit).channel
        rankings = self.lowest if lowest else self.highest
        if layer not in rankings:
            raise UnitError(f"no layer {layer!r}: there are {', '.join(rankings) or 'none'}")
        tensor: Tensor = getattr(rankings[layer], what)
        if channel is not None and channel >= len(tensor):
            raise UnitError(
                f"no channel {channel} in layer {layer!r}: it has {counted(len(tensor), 'channel')}, 0 to "
                f"{len(tensor) - 1}"
            )
        tensor = tensor if channel is None else tensor[channel]
        return -tensor if lowest and what == "values" else tensor

    def __repr__(self) -> str:
        layers = [
            f"{counted(len(ranking.values), 'unit')} of {layer}" for layer, ranking in self.highest.items()
        ]
        k = next(iter(self.highest.values())).values.shape[1]
        ends = "highest and lowest" if self.lowest else "highest"
        return f"DatasetExamples({k} {ends} of {counted(self.seen, 'image')}: {listed(layers, 3)})"
