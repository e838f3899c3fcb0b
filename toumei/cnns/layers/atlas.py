"""Activation atlases: what a layer distinguishes, laid out as a map of pictures (Carter et al. 2019)."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ... import plots
from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.modules import categories_of
from ...core.progress import tqdm
from ...core.serialization import Saved
from ...core.summaries import counted, shortened
from ...core.tensor_specs import Spec, specs
from .atlas_html import atlas_page
from .atlas_icons import IconSettings, Preprocess, check_icons, rendered
from .atlas_points import (
    Layout,
    Samples,
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


@dataclass(frozen=True, repr=False, eq=False)
class ActivationAtlas(Saved):
    """A map of the activations of a layer: cells of similar ones and a picture of each. Tensors on the CPU.

    Attributes:
        layer: The layer.
        grid: Cells in a row and in a column.
        points: Position of each activation in the unit square, (n, 2), x to the right and y down.
        members: The cell of each activation, (n,); -1 in a cell with too few activations.
        cells: Column and row of each cell, (cells, 2).
        counts: Activations in each cell, (cells,).
        directions: The mean activation of each cell, (cells, C).
        icons: A picture of each direction, (cells, 3 or other C, H, W) in [0, 1].
        attributions: What the activations of a cell add to each logit on average, (cells, classes); no
            columns without logits.
        categories: Names of the classes.

    Example:
        >>> atlas = ActivationAtlas(
        ...     layer="conv4",
        ...     grid=2,
        ...     points=torch.rand(4, 2),
        ...     members=torch.tensor([0, 0, 1, 1]),
        ...     cells=torch.tensor([[0, 0], [1, 1]]),
        ...     counts=torch.tensor([2, 2]),
        ...     directions=torch.rand(2, 8),
        ...     icons=torch.rand(2, 3, 16, 16),
        ...     attributions=torch.eye(2),
        ...     categories=("disc", "ring"),
        ... )
        >>> atlas
        ActivationAtlas(2 cells of 2x2, 4 activations of conv4)
        >>> atlas.labels
        ('disc', 'ring')
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
        """The class that each cell adds most to; empty without logits."""
        if not self.attributions.shape[1]:
            return ()
        return tuple(self.categories[index] for index in self.attributions.argmax(1).tolist())

    def picture(self) -> Tensor:
        """Returns the map as pixels, (3, grid * H, grid * W): the icons in their cells on white."""
        height, width = self.icons.shape[-2:]
        canvas = torch.ones(3, self.grid * height, self.grid * width)
        for (column, row), icon in zip(self.cells.tolist(), self.icons, strict=True):
            y, x = row * height, column * width
            canvas[:, y : y + height, x : x + width] = icon
        return canvas

    def page(self) -> str:
        """Returns the HTML page of the atlas, which `save` writes."""
        return atlas_page(
            f"Activation atlas of {self.layer}",
            f"{counted(len(self.points), 'activation')}, {counted(len(self.cells), 'cell')}",
            self.picture(),
            grid=self.grid,
            cells=self.cells,
            counts=self.counts,
            attributions=self.attributions,
            categories=self.categories,
        )

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the map."""
        with plots.drawing(ax, 8, 8) as ax:
            plots.image_grid(self.picture()[None], ax=ax)
            ax.set_title(f"{counted(len(self.points), 'activation')} of {shortened(self.layer)}")
        return ax

    @checked
    def save(self, path: str | Path) -> None:
        """Writes the atlas in the format that the ending of the path names.

        ``.html``: a page that needs no other file; it enlarges the cell under the pointer and names its
        classes. ``.png``: the map. ``.safetensors``: everything, for `load`.

        Raises:
            ArgumentError: Another ending.
        """
        path = Path(path)
        ending = path.suffix.lower()
        if ending == ".png":
            plots.save_pixels(self.picture(), path)
        elif ending == ".html":
            plots.save_page(self.page(), path)
        elif ending != ".safetensors":
            raise ArgumentError(f"cannot save as {path.suffix!r}: there are .png, .html and .safetensors")
        else:
            super().save(path)

    def __repr__(self) -> str:
        return (
            f"ActivationAtlas({counted(len(self.cells), 'cell')} of {self.grid}x{self.grid}, "
            f"{counted(len(self.points), 'activation')} of {shortened(self.layer)})"
        )


@checked
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
    token_grid: tuple[int, int] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    jobs: int = 1,
    verbose: bool = True,
) -> ActivationAtlas:
    """Returns a map of what a layer distinguishes (Carter et al., Activation Atlas, 2019).

    Activations at random positions in the images of a dataset are laid out in two dimensions and averaged
    over the cells of a grid. For each average, a picture is optimized whose centre has that direction.

    Args:
        model: The network, which is left as it is.
        layer: A layer that makes maps or tokens.
        loader: Batches of images as the network takes them; see `sample_activations`.
        count: Activations to collect; fewer if the loader ends.
        per_image: Positions in an image.
        grid: Cells in a row and in a column.
        min_count: Activations that a cell needs; 6 as in lucid.
        layout: ``"tsne"`` (half a minute for 10,000 activations on two cores), ``"pca"``, or ``"umap"`` if
            umap-learn is installed.
        logits: The layer of the logits, for the classes that cells add to: by default the model's
            `logits_layer` if it has one, or its output if it has as many numbers as the model has
            `categories`. The empty name is the model's output.
        whiten: Optimize for whitened directions.
        size: Height and width of an icon.
        channels: Colour channels of the network's images.
        steps: Optimizer steps for an icon.
        preprocess: From RGB in [0, 1] to the network's input, for the icons.
        channel_axis: The axis of the channels, where it cannot be told.
        token_grid: Height and width of the grid that tokens stand on, where it cannot be told.
        batch_size: Icons in a batch.
        seed: Seed of the positions, the layout and the icons.
        jobs: How many batches of icons run at once; see `render_icons`.
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
    settings = IconSettings(
        size=size,
        channels=channels,
        steps=steps,
        preprocess=preprocess,
        channel_axis=channel_axis,
        batch_size=batch_size,
        seed=seed,
        jobs=jobs,
        verbose=verbose,
    )
    check_icons(model, layer, settings)  # an error here comes before minutes of work
    logits, classes = _logits(model, logits)
    samples = sample_activations(
        model,
        layer,
        loader,
        count,
        per_image=per_image,
        logits=logits,
        classes=classes,
        channel_axis=channel_axis,
        grid=token_grid,
        seed=seed,
        verbose=verbose,
    )
    with tqdm(total=1, desc=layout, unit="layout", disable=not verbose) as bar:
        points = lay_out(samples.activations, layout, seed)
        bar.update()
    return _averaged(model, layer, samples, points, (grid, min_count), whiten, settings)


def _averaged(
    model: nn.Module,
    layer: str,
    samples: Samples,
    points: Tensor,
    cell_sizes: tuple[int, int],
    whiten: bool,
    settings: IconSettings,
) -> ActivationAtlas:
    """The averages over the cells of a grid, with their pictures."""
    grid, min_count = cell_sizes
    cells, members = grid_cells(points, grid, min_count)
    directions = cell_means(samples.activations, members)
    attributions = cell_means(samples.attributions, members)
    wanted = whitened(directions, samples.activations) if whiten else directions
    return ActivationAtlas(
        layer=layer,
        grid=grid,
        points=points,
        members=members,
        cells=cells,
        counts=members[members >= 0].bincount(),
        directions=directions,
        icons=rendered(model, layer, wanted, settings),
        attributions=attributions,
        categories=_categories(model, attributions.shape[1]),
    )


def _logits(model: nn.Module, logits: str | None) -> tuple[str | None, int | None]:
    """The layer of the logits, and how many it has to have if it is a guess: as many as there are names."""
    named = getattr(model, "logits_layer", None) if logits is None else logits
    if named is not None or not categories_of(model):
        return named, None
    return "", len(categories_of(model))


def _categories(model: nn.Module, classes: int) -> tuple[str, ...]:
    names = categories_of(model)
    return names if len(names) == classes else tuple(f"class {index}" for index in range(classes))
