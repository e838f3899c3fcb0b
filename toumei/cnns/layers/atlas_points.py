"""From a dataset to the cells of an atlas: activations at random positions, their layout, and averages."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...core.checks import checked
from ...core.errors import ArgumentError, ShapeError
from ...core.hooks import hooked
from ...core.layout import Channels, with_channels_first
from ...core.modules import evaluating
from ...core.optional import require
from ...core.progress import tqdm
from ...core.repeats import check_layers_repeat
from ...core.seeding import make_generator
from ...core.summaries import counted, line_of
from ...core.surveys import survey
from ..inputs import as_input, batch_in, batches_of

Layout = Literal["tsne", "umap", "pca"]

_ITERATIONS = 500  # of t-SNE: more make the islands no clearer
_COMPONENTS = 50  # of the activations that t-SNE is shown


@dataclass(frozen=True)
class Samples:
    """Activations of a layer at random positions in images. All tensors are on the CPU.

    Attributes:
        activations: (n, C), none of them zero.
        attributions: What each activation adds to each logit, to first order, (n, classes): its product with
            the gradient of the logits. No columns without logits.
    """

    activations: Tensor
    attributions: Tensor

    __repr__ = line_of


@checked
def sample_activations(
    model: nn.Module,
    layer: str,
    loader: Iterable[Any],
    count: int = 10_000,
    *,
    per_image: int = 1,
    logits: str | None = None,
    classes: int | None = None,
    channel_axis: int | None = None,
    grid: tuple[int, int] | None = None,
    seed: int = 0,
    verbose: bool = True,
) -> Samples:
    """Returns at most `count` activations of a layer, at random positions in the images of a loader.

    The loader is read only as far as needed. Positions where all channels are zero have no direction and are
    left out. So are the class and register tokens of a vision transformer.

    Args:
        model: The network, which runs in evaluation mode.
        layer: A layer that makes maps or tokens.
        loader: Batches of images as the network takes them, (N, C, H, W): tensors, tuples that begin with
            one, or mappings with ``"pixel_values"``.
        count: How many activations.
        per_image: Positions in an image; each takes a forward pass.
        logits: The layer of the logits; None for no attributions.
        classes: How many logits there have to be: with another number there are no attributions. By default
            any number is right.
        channel_axis: The axis of the channels, where it cannot be told.
        grid: Height and width of the grid that tokens stand on, where it cannot be told.
        seed: Seed of the positions.
        verbose: Show a progress bar.

    Raises:
        LayerError: There is no such layer.
        ShapeError: The layer makes no maps, or the images are whole numbers.
        ArgumentError: The loader is empty, all activations are zero, or `count` or `per_image` is below 1.

    Example:
        >>> from toumei.models import ShapesCNN, ShapesDataset
        >>> batch = ShapesDataset(seed=1).batch(range(8))
        >>> sample_activations(ShapesCNN(), "relu3", [batch], 5, verbose=False).activations.shape
        torch.Size([5, 48])
    """
    if count < 1 or per_image < 1:
        raise ArgumentError(f"count and per_image are 1 at least, got {count} and {per_image}")
    pick: _Pick | None = None
    parts: list[tuple[Tensor, Tensor]] = []
    found = 0
    bar = tqdm(total=count, desc="activations", unit="activation", disable=not verbose)
    with torch.no_grad(), evaluating(model), bar:
        for batch in batches_of(loader):
            images = batch_in(batch)
            if images.dim() != 4:
                raise ShapeError(f"expected a loader of images (N, C, H, W), got {tuple(images.shape)}")
            for _ in range(per_image):
                if found >= count:
                    break
                shown = as_input(images, model)
                pick = pick or _make_pick(model, layer, shown[:1], channel_axis, grid, seed)
                parts.append(_sampled(model, pick, shown, logits, classes))
                bar.update(min(len(parts[-1][0]), count - found))
                found += len(parts[-1][0])
            if found >= count:
                break
    if not found:
        raise ArgumentError(
            f"layer {layer!r} is zero at all positions that were drawn" if parts else "the loader is empty"
        )
    activations, attributions = (torch.cat(column)[:count] for column in zip(*parts, strict=True))
    return Samples(activations, attributions)


def lay_out(activations: Tensor, method: Layout = "tsne", seed: int = 0) -> Tensor:
    """Returns a point in the unit square for each activation, (n, 2), so that similar ones are neighbours.

    Activations are compared by their directions. The square spans the first to the last percentile and a
    tenth of that on each side; points outside of it are moved to its border, as in lucid.

    Args:
        activations: (n, C).
        method: ``"tsne"`` and ``"pca"`` are scikit-learn's; ``"umap"`` needs the package umap-learn, and uses
            the settings of Carter et al. 2019.
        seed: Seed of the layout.

    Raises:
        ArgumentError: Fewer than four activations, or an unknown method.
        MissingDependencyError: UMAP is not installed.

    Example:
        >>> lay_out(torch.rand(20, 8), "pca").shape
        torch.Size([20, 2])
    """
    check_layout(method)
    if len(activations) < 4:
        raise ArgumentError(f"too few activations to lay out: {len(activations)}")
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count = len(activations)
    directions = nn.functional.normalize(activations.float(), dim=1).numpy()
    if method == "umap":
        neighbours = min(50, count - 1)
        reducer = _umap().UMAP(
            n_neighbors=neighbours, min_dist=0.05, metric="cosine", random_state=seed % 2**32, n_jobs=1
        )
        return unit_square(torch.from_numpy(reducer.fit_transform(directions)))
    components = min(2 if method == "pca" else _COMPONENTS, *directions.shape)
    points = PCA(components, random_state=seed % 2**32).fit_transform(directions)
    if method == "tsne":
        perplexity = min(30, (count - 1) / 3)
        points = TSNE(perplexity=perplexity, max_iter=_ITERATIONS, random_state=seed % 2**32).fit_transform(
            points
        )
    return unit_square(torch.from_numpy(points))


def check_layout(method: str) -> None:
    """Raises an `ArgumentError` for an unknown layout, a `MissingDependencyError` without its package."""
    if method not in get_args(Layout):
        raise ArgumentError(f"layout is one of {get_args(Layout)}, got {method!r}")
    if method == "umap":
        _umap()


def check_grid(grid: int, min_count: int) -> None:
    """Raises an `ArgumentError` unless both are positive."""
    if grid < 1 or min_count < 1:
        raise ArgumentError(f"grid and min_count are 1 at least, got {grid} and {min_count}")


def unit_square(points: Tensor) -> Tensor:
    """Returns points (n, 2) moved and scaled to [0, 1] along each axis, with outliers at the border."""
    low, high = points.float().quantile(torch.tensor([0.01, 0.99]), dim=0)
    margin = 0.1 * (high - low)
    clipped = points.float().clamp(low - margin, high + margin)
    low, high = clipped.amin(0), clipped.amax(0)
    return (clipped - low) / (high - low).clamp(min=1e-12)


def grid_cells(points: Tensor, grid: int, min_count: int) -> tuple[Tensor, Tensor]:
    """Returns the cells that hold enough points, (cells, 2) as column and row, and the cell of each point.

    A point in another cell has -1.

    Args:
        points: (n, 2) in the unit square.
        grid: Cells in a row and in a column.
        min_count: Points that a cell needs.

    Raises:
        ArgumentError: No cell has that many points, or `grid` or `min_count` is below 1.

    Example:
        >>> grid_cells(torch.tensor([[0.1, 0.9], [0.2, 0.8], [1.0, 0.0]]), grid=2, min_count=2)
        (tensor([[0, 1]]), tensor([ 0,  0, -1]))
    """
    check_grid(grid, min_count)
    column, row = (points * grid).long().clamp(0, grid - 1).T
    cell = row * grid + column
    kept = (cell.bincount(minlength=grid * grid) >= min_count).nonzero().flatten()
    if not len(kept):
        raise ArgumentError(
            f"too few activations, {len(points)}: none of {grid} x {counted(grid, 'cell')} has {min_count} "
            "of them"
        )
    index = torch.full((grid * grid,), -1)
    index[kept] = torch.arange(len(kept))
    return torch.stack([kept % grid, kept // grid], 1), index[cell]


def cell_means(values: Tensor, members: Tensor) -> Tensor:
    """Returns the mean of the values (n, C) of each cell, (cells, C); a member of cell -1 is left out."""
    kept = members >= 0
    counts = members[kept].bincount()
    sums = torch.zeros(len(counts), *values.shape[1:], dtype=torch.float64)
    sums.index_add_(0, members[kept], values[kept].double())
    return (sums / counts[:, None]).to(values.dtype)


def whitened(directions: Tensor, activations: Tensor) -> Tensor:
    """Returns directions (cells, C) in which activations of the same norm are equally rare (Carter et al.).

    They are multiplied by the inverse of the mean of activation times its transpose, to whose diagonal a
    thousandth of its mean is added, and keep their norms.
    """
    values = activations.double()
    moment = values.T @ values / len(values)
    moment += 1e-3 * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)
    rare = torch.linalg.solve(moment, directions.double().T).T
    norms = directions.double().norm(dim=1) / rare.norm(dim=1).clamp(min=1e-12)
    result: Tensor = (rare * norms[:, None]).to(directions.dtype)
    return result


@dataclass
class _Pick:
    """Takes the activation at one random position of each image from the output of a layer."""

    layer: str
    channels_of: Callable[[Tensor], Channels]
    generator: torch.Generator | None
    vectors: Tensor = field(default_factory=lambda: torch.empty(0))

    def __call__(self, activation: Tensor) -> Tensor:
        """Keeps the vectors, and gives the layer's output a tangent that is the vector at its place."""
        channels = self.channels_of(activation)
        flat, positions = channels.values, channels.maps()[0, 0].numel()
        drawn = torch.randint(positions, (len(flat),), generator=self.generator).to(flat.device)
        index = drawn + channels.offset  # class tokens stand before the grid
        images = torch.arange(len(flat), device=flat.device)
        self.vectors = flat[images, :, index]
        tangent = torch.zeros(activation.shape, dtype=activation.dtype, device=activation.device)
        self.channels_of(tangent).values[images, :, index] = self.vectors
        with (
            warnings.catch_warnings()
        ):  # torch compiles formulas of its own at first use, and deprecates that
            warnings.simplefilter("ignore", FutureWarning)
            result: Tensor = forward_ad.make_dual(activation, tangent)
            return result


def _make_pick(
    model: nn.Module,
    layer: str,
    image: Tensor,
    channel_axis: int | None,
    grid: tuple[int, int] | None,
    seed: int,
) -> _Pick:
    """What takes activations of the last run of a layer."""
    found = survey(model, [layer], lambda: model(image))
    check_layers_repeat(model, image, found.names)
    channels = partial(
        with_channels_first, layout=found.layouts[layer], layer=layer, channel_axis=channel_axis, grid=grid
    )
    channels(found.activations[layer]).maps()  # an error now, not in the middle of a pass
    return _Pick(found.names[layer], channels, make_generator(seed))


def _sampled(
    model: nn.Module, pick: _Pick, images: Tensor, logits: str | None, classes: int | None
) -> tuple[Tensor, Tensor]:
    """The activations at a random position of each image that are not zero, and their attributions.

    One pass in forward mode gives the products with the gradients of all logits at once.
    """
    with _forward_mode():
        record = [] if logits is None else [logits]
        with hooked(model, record, {pick.layer: pick}, stop=True) as activations:
            model(images)
        added = torch.zeros(len(images), 0)
        if logits is not None:
            tangent = forward_ad.unpack_dual(activations[logits]).tangent
            right = tangent is not None and tangent.dim() == 2
            if not right and classes is None:
                raise ArgumentError(
                    f"layer {logits!r} makes no logits (N, classes) that depend on {pick.layer!r}"
                )
            if right and classes in (None, tangent.shape[1]):
                added = tangent.float().cpu()
    vectors = pick.vectors.float().cpu()
    kept = vectors.any(1)
    return vectors[kept], added[kept]


def _umap() -> Any:
    return require("umap", "the layout 'umap'", "umap-learn")


@contextmanager
def _forward_mode() -> Iterator[None]:
    """Runs forward-mode differentiation, with the one implementation of attention that supports it."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
