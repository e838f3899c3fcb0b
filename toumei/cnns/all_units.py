"""Pictures of all units of a layer, optimized in batches, in several processes if need be."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.checks import check_counts, checked
from ..core.content import content_of_model
from ..core.errors import ArgumentError, UnitError
from ..core.kinds import shown
from ..core.layout import channel_axis_of
from ..core.modules import device_and_dtype, evaluating
from ..core.parallel import sweep
from ..core.surveys import survey
from . import robustness
from .objectives import Channel
from .objectives.objective import ObjectiveLike
from .parameterization import FFTImage, Transform
from .pipeline import Pipeline
from .visualization import Visualization


@checked
def unit_pictures(
    model: nn.Module,
    layer: str,
    channels: Sequence[int] | None = None,
    *,
    objective: Callable[[str], ObjectiveLike] = Channel,
    size: int = 128,
    steps: int = 256,
    lr: float = 0.05,
    tv_loss: bool | float = False,
    views: nn.Module | None = None,
    preprocess: nn.Module | None = None,
    batch_size: int = 16,
    seed: int = 0,
    jobs: int = 1,
    folder: str | Path | None = None,
    verbose: bool = True,
) -> Visualization:
    """Returns a picture of each unit of a layer.

    Units are optimized in batches. A batch depends on its units, the settings and the seed only, so that any
    number of jobs gives the same pictures.

    Args:
        model: The network, which is left as it is.
        layer: The layer.
        channels: Its channels to look at; all by default.
        objective: From a unit such as ``"conv4:12"`` to what its picture is optimized for.
        size: Height and width of the pictures.
        steps: Optimizer steps for a picture.
        lr: Learning rate.
        tv_loss: As in `Pipeline.optimize`.
        views: Random transforms before the network; by default `robustness.lucid`.
        preprocess: From RGB in [0, 1] to the network's input.
        batch_size: Units that are optimized together.
        seed: Seed of the first pictures and of the transforms.
        jobs: How many batches run at once, in processes or on a cluster; see `toumei.core.sweep`.
        folder: Where each finished batch is kept, so that a killed run goes on where it was.
        verbose: Show a progress bar of the batches.

    Raises:
        LayerError: There is no such layer.
        UnitError: The layer has no such channel.
        ShapeError: The network does not take pictures of this size, or the axis of the channels cannot be
            told.

    Example:
        >>> from toumei.models import ShapesCNN
        >>> unit_pictures(ShapesCNN(), "conv2", [0, 5], size=20, steps=2, verbose=False)
        Visualization(2 pictures of 20x20 after 2 steps, moved by ..., finished: conv2:0, conv2:5)
    """
    check_counts(1, size=size, batch_size=batch_size)
    if not callable(objective):
        raise ArgumentError(f"objective is a function of the name of a unit, got {shown(objective)}")
    task = _UnitTask(
        model=model,
        layer=layer,
        objective=objective,
        size=size,
        steps=steps,
        lr=lr,
        tv_loss=tv_loss,
        views=robustness.lucid() if views is None else views,
        preprocess=nn.Identity() if preprocess is None else preprocess,
        seed=seed,
    )
    chosen = _channels(task, channels)
    batches = [tuple(chosen[start : start + batch_size]) for start in range(0, len(chosen), batch_size)]
    return _joined(sweep(task, batches, jobs=jobs, folder=folder, verbose=verbose))


@dataclass(frozen=True)
class _UnitTask:
    """The function of a sweep over batches of channels; the attributes are arguments of `unit_pictures`."""

    model: nn.Module
    layer: str
    objective: Callable[[str], ObjectiveLike]
    size: int
    steps: int
    lr: float
    tv_loss: bool | float
    views: nn.Module
    preprocess: nn.Module
    seed: int

    @property
    def sweep_content(self) -> list[Any]:
        """All that a picture depends on beside its unit."""
        others = {name: value for name, value in vars(self).items() if name != "model"}
        return [content_of_model(self.model), others]

    def __call__(self, channels: tuple[int, ...]) -> Visualization:
        """Returns the pictures of some channels.

        Raises:
            KeyboardInterrupt: The optimization, which returns what there is after Ctrl-C, was interrupted.
        """
        units = [f"{self.layer}:{channel}" for channel in channels]
        result = (
            Pipeline(self.shown(len(units)), [self.objective(unit) for unit in units])
            .attach(self.model)
            .optimize(self.steps, lr=self.lr, tv_loss=self.tv_loss, verbose=False, seed=self.seed)
        )
        if result.ended == "interrupted":
            raise KeyboardInterrupt
        return result

    def shown(self, count: int) -> Transform:
        """Returns the first pictures, as the network sees them."""
        image = FFTImage(count, 3, self.size, self.size, seed=self.seed)
        views = deepcopy(self.views)  # which keep their last draw: the task has to stay as it is
        return Transform(image, views, self.preprocess).to(device_and_dtype(self.model)[0])


def _channels(task: _UnitTask, channels: Sequence[int] | None) -> list[int]:
    """The channels to look at, all by default.

    Raises:
        UnitError: There are none, or the layer does not have one of them.
    """
    probe = task.shown(1)
    device, dtype = device_and_dtype(task.model)
    with torch.no_grad(), evaluating(task.model):
        seen = probe.view(probe.get_image()).to(device, dtype)
        found = survey(task.model, [task.layer], lambda: task.model(seen))
    activation = found.activations[task.layer]
    count = activation.shape[channel_axis_of(activation, found.layouts[task.layer], task.layer)]
    chosen = list(range(count)) if channels is None else list(channels)
    wrong = [channel for channel in chosen if not 0 <= channel < count]
    if wrong or not chosen:
        raise UnitError(f"{task.layer} has the channels 0 to {count - 1}, got {wrong or 'none'}")
    return chosen


def _joined(results: Sequence[Visualization]) -> Visualization:
    moved = [result.moved for result in results if result.moved is not None]
    return Visualization(
        images=torch.cat([result.images for result in results]),
        losses=torch.cat([result.losses for result in results], dim=1),
        titles=tuple(title for result in results for title in result.titles),
        moved=torch.cat(moved) if len(moved) == len(results) else None,
    )
