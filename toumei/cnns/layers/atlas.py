"""Atlases of activations: what a layer tells apart, laid out as a map of pictures (Carter et al. 2019)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ... import plots
from ...core.errors import ArgumentError
from ...core.modules import device_and_dtype
from ...core.serialization import Saved
from ...core.tensor_specs import Spec, specs
from .. import robustness
from ..objectives import Layer, NeuronDirection
from ..objectives.classes import categories_of
from ..optimization import Progress
from ..parameterization.fft import FFTImage
from ..parameterization.transform import Transform
from ..pipeline import Pipeline
from .atlas_html import atlas_page
from .atlas_points import (
    Layout,
    cell_means,
    check_grid,
    check_layout,
    grid_cells,
    lay_out,
    sample_activations,
    whitened,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Preprocess = Callable[[Tensor], Tensor]


@dataclass(frozen=True, repr=False, eq=False)
class ActivationAtlas(Saved):
    """A map of the activations of a layer: cells of similar ones and a picture of each. Tensors on the CPU.

    Attributes:
        layer: The layer.
        grid: Cells in a row and in a column.
        points: Where each activation lies, (n, 2) in the unit square, x to the right and y down.
        members: The cell of each activation, (n,); -1 where too few lie together.
        cells: Column and row of each cell, (cells, 2).
        counts: Activations in each cell, (cells,).
        directions: The mean activation of each cell, (cells, C).
        icons: A picture of each direction, (cells, 3 or other C, H, W) in [0, 1].
        attributions: What the activations of a cell add to each logit on average, (cells, classes); without
            columns where there are no logits.
        categories: Names of the classes.
    """

    layer: str
    grid: int
    points: Tensor
    members: Tensor
    cells: Tensor
    counts: Tensor
    directions: Tensor
    icons: Tensor
    attributions: Tensor
    categories: tuple[str, ...] = ()

    _specs = specs(
        points="n 2",
        members=Spec("n", "integer"),
        cells=Spec("cells 2", "integer"),
        counts=Spec("cells", "integer"),
        directions="cells C",
        icons="cells _ _ _",
        attributions="cells classes",
    )

    @property
    def labels(self) -> tuple[str, ...]:
        """The class that each cell speaks for most; empty where there are no logits."""
        if not self.attributions.shape[1]:
            return ()
        return tuple(self.categories[index] for index in self.attributions.argmax(1).tolist())

    def picture(self) -> Tensor:
        """Returns the map pixel by pixel, (3, grid * H, grid * W): the icons in their cells on white."""
        height, width = self.icons.shape[-2:]
        canvas = torch.ones(3, self.grid * height, self.grid * width)
        for (column, row), icon in zip(self.cells.tolist(), self.icons, strict=True):
            y, x = row * height, column * width
            canvas[:, y : y + height, x : x + width] = icon
        return canvas

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the map."""
        return plots.image_grid(self.picture()[None], columns=4, ax=ax)

    def save(self, path: str | Path) -> None:
        """Writes the atlas; the ending of the path says as what.

        ``.html``: a page that needs no other file, with the class and an enlarged picture of the cell under
        the pointer. ``.png``: the map pixel by pixel. ``.safetensors``: everything, for `load`.

        Raises:
            ArgumentError: Another ending.
        """
        path = Path(path)
        ending = path.suffix.lower()
        if ending == ".png":
            plots.save_pixels(self.picture(), path)
        elif ending == ".html":
            plots.save_page(atlas_page(self), path)
        elif ending != ".safetensors":
            raise ArgumentError(f"cannot save as {path.suffix!r}: there are .png, .html and .safetensors")
        else:
            super().save(path)

    def __repr__(self) -> str:
        return (
            f"ActivationAtlas({len(self.cells)} cells of {self.grid}x{self.grid}, "
            f"{len(self.points)} activations of {self.layer})"
        )


def activation_atlas(
    model: nn.Module,
    layer: str,
    loader: Iterable[Any],
    *,
    count: int = 10_000,
    per_image: int = 1,
    grid: int = 20,
    min_count: int = 6,
    layout: Layout = "tsne",
    logits: str | None = None,
    whiten: bool = False,
    size: int = 32,
    channels: int = 3,
    steps: int = 64,
    preprocess: Preprocess | None = None,
    channel_axis: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    verbose: bool = True,
) -> ActivationAtlas:
    """Returns a map of what a layer tells apart (Carter et al., Activation Atlas, 2019).

    Activations at random places of the images of a dataset are laid out in two dimensions and averaged over
    the cells of a grid; for each average a picture is optimized whose centre has that direction.

    Args:
        model: The network, which is left as it is.
        layer: A layer that makes maps or tokens.
        loader: Batches of images as the network takes them; see `sample_activations`.
        count: Activations to collect; fewer if the loader ends.
        per_image: Places in an image.
        grid: Cells in a row and in a column.
        min_count: Activations that a cell needs; 6 as in lucid.
        layout: ``"tsne"`` (half a minute for 10,000 activations on two cores), ``"pca"``, or ``"umap"`` if
            umap-learn is installed.
        logits: The layer of the logits, for the classes that cells speak for: by default the model's
            `logits_layer` if it has one; the empty name is the model's output.
        whiten: Optimize for whitened directions.
        size: Height and width of an icon.
        channels: Colour channels of the network's images.
        steps: Optimizer steps for an icon.
        preprocess: From RGB in [0, 1] to the network's input, for the icons.
        channel_axis: The axis of the channels, where it is not axis 1 or, for tokens, the last.
        batch_size: Icons in a batch.
        seed: Of the places, the layout and the icons.
        verbose: Show progress bars.

    Raises:
        LayerError: There is no such layer.
        ShapeError: The layer makes no maps.
        ArgumentError: The loader is empty, or its activations are too few for the grid.
        MissingDependencyError: UMAP is not installed.

    Example:
        >>> from toumei.models import ShapesCNN, ShapesDataset
        >>> batches = [ShapesDataset(seed=1).batch(range(64))]
        >>> model = ShapesCNN(pretrained=True)
        >>> activation_atlas(model, "relu5", batches, grid=2, layout="pca", steps=2, verbose=False)
        ActivationAtlas(4 cells of 2x2, 64 activations of relu5)
    """
    check_layout(layout)
    check_grid(grid, min_count)
    shown = _start(1, size, channels, preprocess, seed).to(device_and_dtype(model)[0])
    Pipeline(shown, Layer(layer)).attach(model)  # fails now, not after minutes, if the icons do not fit
    logits = getattr(model, "logits_layer", None) if logits is None else logits
    samples = sample_activations(
        model, layer, loader, count, per_image=per_image, logits=logits,
        channel_axis=channel_axis, seed=seed, verbose=verbose,
    )  # fmt: skip
    with tqdm(total=1, desc=layout, unit="layout", disable=not verbose) as bar:
        points = lay_out(samples.activations, layout, seed)
        bar.update()
    cells, members = grid_cells(points, grid, min_count)
    directions = cell_means(samples.activations, members)
    attributions = cell_means(samples.attributions, members)
    icons = render_icons(
        model, layer, whitened(directions, samples.activations) if whiten else directions,
        size=size, channels=channels, steps=steps, preprocess=preprocess,
        channel_axis=channel_axis, batch_size=batch_size, seed=seed, verbose=verbose,
    )  # fmt: skip
    counts = members[members >= 0].bincount()
    categories = _categories(model, attributions.shape[1])
    return ActivationAtlas(
        layer, grid, points, members, cells, counts, directions, icons, attributions, categories
    )


def render_icons(
    model: nn.Module,
    layer: str,
    directions: Tensor,
    *,
    size: int = 32,
    channels: int = 3,
    steps: int = 64,
    preprocess: Preprocess | None = None,
    channel_axis: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    verbose: bool = True,
) -> Tensor:
    """Returns a picture of each direction, (directions, 3, size, size), on the CPU.

    All start from the same noise and are moved about alike, so that similar directions give similar
    pictures. After Ctrl-C what is not done yet stays noise. The arguments are those of `activation_atlas`.
    """
    device, _ = device_and_dtype(model)
    parts = directions.split(batch_size)
    pictures: list[Tensor] = []
    interrupted = False
    with tqdm(total=steps * len(parts), desc="icons", unit="step", disable=not verbose) as bar:

        def advance(progress: Progress) -> None:
            bar.update()

        for part in parts:
            shown = _start(len(part), size, channels, preprocess, seed).to(device)
            objective = NeuronDirection(layer, part, similarity="dot-cosine", channel_axis=channel_axis)
            pipeline = Pipeline(shown, objective).attach(model)
            todo = 0 if interrupted else steps
            result = pipeline.optimize(todo, verbose=False, callback=advance, seed=seed)
            interrupted = interrupted or result.ended == "interrupted"
            pictures.append(result.images)
    return torch.cat(pictures)


def _start(count: int, size: int, channels: int, preprocess: Preprocess | None, seed: int) -> Transform:
    """So many times the same picture, seen through the same random views."""
    image = FFTImage(1, channels, size, size, seed=seed)
    same = image.coefficients.detach().repeat(count, 1, 1, 1, 1)
    image.coefficients = same.requires_grad_()
    views = robustness.light(same_on_batch=True)
    return Transform(image, views) if preprocess is None else Transform(image, views, preprocess)


def _categories(model: nn.Module, classes: int) -> tuple[str, ...]:
    names = categories_of(model)
    return names if len(names) == classes else tuple(f"class {index}" for index in range(classes))
