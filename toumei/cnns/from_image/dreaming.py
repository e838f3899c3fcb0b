"""Deep dream: a photograph that is changed to excite a layer more, from coarse to fine."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from ...core.checks import checked
from ...core.errors import ArgumentError, ForwardError, NonFiniteError, ShapeError
from ...core.modules import device_and_dtype, evaluating, frozen
from ...core.names import parse
from ...core.progress import trange
from ...core.seeding import seeded
from ...core.summaries import counted
from ..fixed_size import FixedSizeError
from ..inputs import as_images
from ..objectives import DeepDream, Objective, as_objective
from ..objectives.objective import ObjectiveLike
from ..optimization import OptimizationTask
from ..parameterization import Generator, Transform
from ..pipeline import Pipeline
from ..visualization import Visualization, as_picture, distance_moved, warn_if_still

Size = tuple[int, int]


@checked
def deep_dream(
    model: nn.Module,
    image: Tensor,
    objective: ObjectiveLike,
    *,
    octaves: int = 4,
    scale: float = 1.4,
    steps: int = 10,
    lr: float = 0.01,
    tile: int = 512,
    preprocess: Callable[[Tensor], Tensor] | None = None,
    snapshots: int = 0,
    seed: int | None = None,
    verbose: bool = True,
) -> Visualization:
    """Returns a photograph changed so that the score of an objective rises, at several sizes in turn.

    The first size is the smallest. What the steps add there is enlarged and added to the photograph at the
    next size, and so on up to the full size (Mordvintsev, Olah and Tyka, Inceptionism, 2015). A step adds the
    gradient divided by its mean absolute value. Before each step the photograph is rolled by a random number
    of pixels, so that its edges and those of tiles leave no marks.

    Args:
        model: The network.
        image: The photograph (C, H, W), or several (N, C, H, W), in [0, 1], of any size.
        objective: What is raised; the name of a layer means `DeepDream` of it, the mean squared activation.
        octaves: How many sizes.
        scale: Factor from one size to the next.
        steps: Steps at each size.
        lr: Mean absolute change of a value in [0, 1] in a step.
        tile: The network sees larger photographs in tiles of at most this height and width, one after the
            other, so that memory does not grow with the photograph.
        preprocess: From RGB in [0, 1] to the input of the model; see `robustness.preprocess`.
        snapshots: Keep the picture, at full size, at the start and after every so many steps; 0 for none.
        seed: Seed of the shifts.
        verbose: Show a progress bar.

    Raises:
        ShapeError: An image of a wrong size or range, or so many octaves that the smallest picture is too
            small for the network.
        ArgumentError: Numbers out of range, or a score that does not depend on the picture.
        NonFiniteError: The gradient became NaN or infinite.
        LayerError: A layer that the model does not have.

    Example:
        >>> from toumei.models import SimpleCNN
        >>> deep_dream(SimpleCNN(3, 10), torch.rand(3, 40, 60), "conv1", octaves=2, steps=3, verbose=False)
        Visualization(1 picture of 40x60 after 6 steps, moved by ..., finished: conv1)
    """
    if min(octaves, steps, tile) < 1 or scale <= 1 or snapshots < 0:
        raise ArgumentError(
            f"octaves, steps and tile are at least 1, scale is above 1, snapshots at least 0; got "
            f"{octaves}, {steps}, {tile}, {scale} and {snapshots}"
        )
    photograph = as_images(image).to(device_and_dtype(model)[0])
    sizes = _sizes(photograph, octaves, scale)
    dream = _Dream(photograph, sizes[0], tile)
    pipeline = Pipeline(Transform(dream, *[preprocess] if preprocess else []), _dreamt(objective))
    task = _attached(pipeline, model, sizes)
    kept, losses, ended = {0: as_picture(photograph)} if snapshots else {}, [], "finished"
    with (
        torch.enable_grad(),
        frozen(model),
        evaluating(model),
        seeded(seed, dream.device),
        task.in_steps() as task,
    ):
        try:
            for step in trange(octaves * steps, desc="dream", disable=not verbose, unit="step"):
                if step % steps == 0:
                    dream.resize(sizes[step // steps])
                losses.append(dream.step(task, lr))
                if snapshots and (step + 1) % snapshots == 0:
                    kept[step + 1] = as_picture(dream.at_full_size())
        except KeyboardInterrupt:
            ended = "interrupted"
    history = torch.stack(losses).float().cpu() if losses else torch.zeros(0, len(photograph))
    titles = tuple(task.objective.titles(len(photograph)))
    images = as_picture(dream.at_full_size())
    result = Visualization(
        images=images,
        losses=history,
        titles=titles,
        snapshots=kept,
        ended=ended,
        moved=distance_moved(as_picture(photograph), images),
    )
    warn_if_still(result, task.objective)
    return result


def _attached(pipeline: Pipeline, model: nn.Module, sizes: Sequence[Size]) -> OptimizationTask:
    """The task of a pipeline whose picture is at the smallest of these sizes."""
    try:
        return pipeline.attach(model)._attached()
    except FixedSizeError as error:
        height, width = error.size
        raise ShapeError(
            f"{error}; octaves and tiles show it other sizes: give a photograph of {height} by {width} "
            f"pixels and octaves=1"
        ) from error
    except ForwardError as error:
        if len(sizes) == 1:
            raise
        height, width = sizes[0]
        raise ShapeError(
            f"the network does not run at the smallest of {counted(len(sizes), 'octave')}, {height} by "
            f"{width} pixels; fewer octaves help if that is too small: {error}"
        ) from error


class _Dream(Generator):
    """A photograph at one size and what the steps have added to it; as a generator, it makes one tile."""

    def __init__(self, photograph: Tensor, size: Size, tile: int) -> None:
        self.photograph, self.tile = photograph, tile
        self.detail = torch.zeros_like(photograph)
        self.resize(size)
        self.seen = self.picture[..., :tile, :tile]

    def resize(self, size: Size) -> None:
        """Changes the size: of the photograph, and of the detail that is added to it."""
        self.base, self.detail = _resized(self.photograph, size), _resized(self.detail, size)

    @property
    def picture(self) -> Tensor:
        """The picture at the current size, (N, C, H, W)."""
        return (self.base + self.detail).clamp(0, 1)

    def at_full_size(self) -> Tensor:
        """Returns the sum of the photograph and the detail."""
        return (self.photograph + _resized(self.detail, self.photograph.shape[-2:])).clamp(0, 1)

    def step(self, task: OptimizationTask, lr: float) -> Tensor:
        """Takes a step along the normalized gradient and returns the loss of each picture before it, (N,)."""
        picture = self.picture
        shift = [int(torch.randint(min(self.tile, pixels), ())) for pixels in picture.shape[-2:]]
        rolled = picture.roll(shift, (-2, -1))
        gradient, losses = torch.empty_like(rolled), []
        for rows, columns in _tiles(rolled, self.tile):
            self.seen = rolled[..., rows, columns].clone().requires_grad_()
            loss = task.loss()
            if not loss.requires_grad:
                raise ArgumentError(f"nothing to optimize: the score of {task.objective} is without gradient")
            # Scores are means over a tile: each is weighted by its share of the picture.
            loss = loss * (self.seen[0, 0].numel() / rolled[0, 0].numel())
            (gradient[..., rows, columns],) = torch.autograd.grad(loss.sum(), self.seen)
            losses.append(loss.detach())
        mean = gradient.abs().mean((1, 2, 3), keepdim=True)
        if not mean.isfinite().all():
            raise NonFiniteError(f"the gradient of {task.objective} became NaN or infinite")
        ascent = -gradient.roll([-pixels for pixels in shift], (-2, -1)) / mean.clamp(min=1e-12)
        self.detail = (picture + lr * ascent).clamp(0, 1) - self.base
        return torch.stack(losses).sum(0)

    @property
    def parameters(self) -> list[Tensor]:
        """The tile."""
        return [self.seen]

    def get_image(self) -> Tensor:
        """Returns the tile (N, C, h, w)."""
        return self.seen.clone()  # the network may overwrite it

    def to(self, device: torch.device | str) -> Self:
        """Moves the tile."""
        self.seen = self.seen.to(device)
        return self


def _dreamt(objective: ObjectiveLike) -> Objective:
    if isinstance(objective, str) and parse(objective).channel is None:
        return DeepDream(objective)
    return as_objective(objective)


def _sizes(photograph: Tensor, octaves: int, scale: float) -> list[Size]:
    """Height and width at each octave, the smallest first."""
    height, width = photograph.shape[-2:]
    shrinks = [scale**-octave for octave in reversed(range(octaves))]
    return [(max(1, round(height * shrink)), max(1, round(width * shrink))) for shrink in shrinks]


def _resized(images: Tensor, size: Sequence[int]) -> Tensor:
    if images.shape[-2:] == tuple(size):
        return images
    return F.interpolate(images, size=tuple(size), mode="bilinear", antialias=True)


def _tiles(picture: Tensor, tile: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of parts of about equal size, none larger than a tile."""
    for rows in _parts(picture.shape[-2], tile):
        for columns in _parts(picture.shape[-1], tile):
            yield rows, columns


def _parts(pixels: int, tile: int) -> list[slice]:
    count = ceil(pixels / tile)
    ends = [round(pixels * part / count) for part in range(count + 1)]
    return [slice(first, last) for first, last in pairwise(ends)]
