"""The icons of an activation atlas: a picture of each direction in a layer."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...core.checks import checked
from ...core.errors import ShapeError
from ...core.modules import device_and_dtype
from ...core.parallel import sweep
from ...core.progress import tqdm
from .. import robustness
from ..objectives import Layer, NeuronDirection
from ..optimization import Progress
from ..parameterization import FFTImage, Transform
from ..pipeline import Pipeline

Preprocess = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class IconSettings:
    """How icons are made; the attributes are the arguments of `render_icons`."""

    size: int = 32
    channels: int = 3
    steps: int = 64
    preprocess: Preprocess | None = None
    channel_axis: int | None = None
    batch_size: int = 64
    seed: int = 0
    jobs: int = 1
    verbose: bool = True

    def start(self, count: int, device: torch.device) -> Transform:
        """Returns `count` times the same noise, which the network sees through the same random views."""
        image = FFTImage(1, self.channels, self.size, self.size, seed=self.seed)
        same = image.coefficients.detach().repeat(count, 1, 1, 1, 1)
        image.coefficients = same.requires_grad_()
        views = robustness.light(same_on_batch=True)
        transforms = [views] if self.preprocess is None else [views, self.preprocess]
        return Transform(image, *transforms).to(device)


def check_icons(model: nn.Module, layer: str, settings: IconSettings) -> None:
    """Raises the error of `Pipeline.attach` unless the network takes icons of this size and has the layer."""
    Pipeline(settings.start(1, device_and_dtype(model)[0]), Layer(layer)).attach(model)


@checked
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
    jobs: int = 1,
    verbose: bool = True,
) -> Tensor:
    """Returns a picture of each direction in a layer, (directions, channels, size, size), on the CPU.

    The centre of a picture excites its direction. All pictures start from the same noise and are transformed
    alike, so that similar directions give similar pictures. After Ctrl-C the remaining pictures are noise.

    Args:
        model: The network, which is left as it is.
        layer: A layer that makes maps or tokens.
        directions: (directions, C).
        size: Height and width of a picture.
        channels: Colour channels of the network's images.
        steps: Optimizer steps for a picture.
        preprocess: From RGB in [0, 1] to the network's input.
        channel_axis: The axis of the channels, where it is not axis 1 or, for tokens, the last.
        batch_size: Pictures in a batch.
        seed: Seed of the noise and of the transforms.
        jobs: How many batches run at once, in processes or on a cluster; see `toumei.core.sweep`. Any number
            gives the same pictures; with several, Ctrl-C ends the call.
        verbose: Show a progress bar.

    Raises:
        LayerError: There is no such layer.
        ShapeError: The directions do not fit the layer.

    Example:
        >>> from toumei.models import ShapesCNN
        >>> render_icons(ShapesCNN(), "relu4", torch.eye(64)[:2], steps=2, verbose=False).shape
        torch.Size([2, 3, 32, 32])
    """
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
    return rendered(model, layer, directions, settings)


def rendered(model: nn.Module, layer: str, directions: Tensor, settings: IconSettings) -> Tensor:
    """Returns the pictures of `render_icons`."""
    if directions.dim() != 2:
        raise ShapeError(f"expected directions (N, channels), got {tuple(directions.shape)}")
    parts = directions.split(settings.batch_size)
    if settings.jobs != 1:
        task = _IconTask(model, layer, settings)
        return torch.cat(sweep(task, parts, jobs=settings.jobs, verbose=settings.verbose))
    pictures: list[Tensor] = []
    steps = settings.steps * len(parts)
    with tqdm(total=steps, desc="icons", unit="step", disable=not settings.verbose) as bar:

        def advance(progress: Progress) -> None:
            bar.update()

        for part in parts:
            result = _pipeline(model, layer, part, settings).optimize(
                settings.steps, verbose=False, callback=advance, seed=settings.seed
            )
            if result.ended == "interrupted":
                settings = replace(settings, steps=0)
            pictures.append(result.images)
    return torch.cat(pictures)


@dataclass(frozen=True)
class _IconTask:
    """The function of a sweep over batches of directions."""

    model: nn.Module
    layer: str
    settings: IconSettings

    def __call__(self, directions: Tensor) -> Tensor:
        """Returns the pictures of some directions."""
        pipeline = _pipeline(self.model, self.layer, directions, self.settings)
        return pipeline.optimize(self.settings.steps, verbose=False, seed=self.settings.seed).images


def _pipeline(model: nn.Module, layer: str, directions: Tensor, settings: IconSettings) -> Pipeline:
    shown = settings.start(len(directions), device_and_dtype(model)[0])
    objective = NeuronDirection(
        layer, directions, similarity="dot-cosine", channel_axis=settings.channel_axis
    )
    return Pipeline(shown, objective).attach(model)
