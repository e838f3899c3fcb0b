"""The pipeline: a generator of pictures and an objective, attached to a model and optimized."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ..core.checks import checked
from ..core.errors import ArgumentError, DeviceError, ForwardError, NotAttachedError, ShapeError
from ..core.interrupts import until_the_end
from ..core.layout import LaidOut
from ..core.modules import check_model, device_and_dtype, evaluating, frozen, without_wrapper
from ..core.notebooks import Displayed
from ..core.seeding import seeded
from ..core.summaries import counted
from ..core.surveys import survey
from ..core.targets import resolve
from .fixed_size import FixedSizeError, raise_size_error
from .gradient_overrides import redirected_relu
from .objectives.combinations import as_objective
from .objectives.objective import IMAGE, Objective, ObjectiveLike
from .objectives.regularizers import TotalVariation
from .optimization import OptimizationTask, Progress, in_fastest_memory_format, mean_score, optimize
from .parameterization.generator import Generator
from .parameterization.transform import Transform
from .robustness import CropOrPad
from .visualization import Visualization, as_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOTAL_VARIATION = 1e-3
_NO_ALPHA = (
    "{} cannot take pictures of 4 channels: AlphaImage shows a network pictures with an alpha channel "
    "before backgrounds, as RGB"
)


@checked
class Pipeline(Displayed):
    """Pictures of what units of a network look for.

    Args:
        generator: Makes the pictures, from `toumei.cnns.parameterization`.
        objective: What they are optimized for: an objective of `toumei.cnns.objectives`, a unit string such
            as ``"mixed3a:74"``, or a list of these, one for each picture of the generator's batch.

    Raises:
        ShapeError: The generator makes no batch (N, C, H, W), or another number of pictures than the
            objective has units.
        UnitError: A malformed unit string.

    Example:
        >>> import toumei.cnns.objectives as obj, toumei.cnns.parameterization as param
        >>> from toumei.models import SimpleCNN
        >>> fv = obj.Pipeline(param.FFTImage(2, 3, 32, 32, seed=0), obj.Channel("conv1", channels=[0, 3]))
        >>> fv.attach(SimpleCNN(3, 10)).optimize(epochs=2, verbose=False)
        Visualization(2 pictures of 32x32 after 2 steps, moved by ..., finished: conv1:0, conv1:3)
    """

    def __init__(self, generator: Generator, objective: ObjectiveLike) -> None:
        self.generator = generator
        self.objective = as_objective(objective)
        self.result: Visualization | None = None
        self._task: OptimizationTask | None = None
        image = self.image
        if image.dim() != 4:
            raise ShapeError(
                f"{type(generator).__name__}.get_image must return pictures as (N, C, H, W), "
                f"got {tuple(image.shape)}"
            )
        if self.objective.images not in (None, len(image)):
            raise ShapeError(
                f"the objective is for {counted(self.objective.images, 'picture')}, one for each unit, but "
                f"the generator makes {len(image)}: give the generator a batch of {self.objective.images}"
            )

    @property
    def image(self) -> Tensor:
        """The current pictures, (N, C, H, W), untransformed, without graph."""
        with torch.no_grad():
            return self.generator.get_image()

    @property
    def model(self) -> nn.Module | None:
        """The attached model."""
        return self._task.model if self._task else None

    @checked
    def attach(self, model: nn.Module) -> Self:
        """Attaches a model: finds the layers, and evaluates the objective in one forward pass.

        Nothing is registered or changed on the model. Returns the pipeline.

        Args:
            model: The network.

        Raises:
            LayerError: A layer that the model does not have.
            UnreachedLayerError: A layer that the forward pass does not reach.
            UnitError: A channel or position that its layer does not have, or an unknown class.
            ShapeError: A score that is neither one number for each picture nor one for all, pictures with an
                alpha channel for a model that takes none, or pictures of another size than the only one that
                the model takes, which is named.
            ForwardError: The model does not run on the pictures.
        """
        objective = self.objective.bind(model)
        layers = [layer for layer in objective.layers if layer != IMAGE]
        check_model(model)
        resolve(without_wrapper(model), layers)
        device, dtype = device_and_dtype(model)
        with torch.no_grad(), seeded(0, self.generator.device), evaluating(model):
            image = self.generator.get_image()
            seen = self.generator.view(image).to(device, dtype)
            try:
                found = survey(model, layers, lambda: model(seen))
            except ForwardError as error:
                if seen.shape[1] == 4:
                    raise ShapeError(_NO_ALPHA.format(type(model).__name__)) from error
                raise_size_error(error, model, layers, image, seen)
            tensors = {IMAGE: image.to(device), **found.activations}
            score = mean_score(objective, LaidOut(tensors, found.layouts), self.generator.views)
            _check_score(score, len(image), objective)
            task = OptimizationTask(self.generator, model, objective, found.names, found.layouts)
            self._task = in_fastest_memory_format(task)
        return self

    @checked
    def attach_fitted(self, model: nn.Module, fits: bool) -> Self:
        """Attaches a model; transforms that are ours end in the size of the pictures if it takes no other.

        Args:
            model: The network.
            fits: Whether the transforms are not those of the user.

        Raises:
            FixedSizeError: The network takes pictures of another size, or shall not be shown others.
        """
        try:
            return self.attach(model)
        except FixedSizeError as error:
            if not fits or error.size != error.picture or not isinstance(self.generator, Transform):
                raise
            views, *others = self.generator.transforms
            fitted = CropOrPad(*error.size, same_on_batch=True).to(self.generator.device)
            self.generator.transforms = (views, fitted, *others)
            return self.attach(model)

    def detach(self) -> Self:
        """Forgets the model; the pictures stay."""
        self._task = None
        return self

    @checked
    def to(self, device: torch.device | str) -> Self:
        """Moves the pictures, and the model if one is attached, to a device; returns the pipeline."""
        self.generator.to(device)
        if self._task is not None:
            self._task.model.to(device)
        return self

    @checked
    def optimize(
        self,
        epochs: int = 512,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        lr: float = 0.05,
        tv_loss: bool | float = False,
        verbose: bool = True,
        *,
        snapshots: int | Iterable[int] = (),
        callback: Callable[[Progress], object] | None = None,
        stop: Callable[[Progress], bool] | None = None,
        seed: int | None = None,
        autocast: torch.dtype | None = None,
        redirect: int = 16,
    ) -> Visualization:
        """Returns the pictures after `epochs` optimizer steps; a second call continues from them.

        The model is frozen and in evaluation mode, and restored at the end. Each forward pass ends after the
        last layer that the objective needs. Ctrl-C returns the pictures so far.

        Args:
            epochs: Optimizer steps.
            optimizer: Called as ``optimizer(parameters, lr=lr)``.
            lr: Learning rate (lucid: 0.05; for `Neural` 0.005).
            tv_loss: Subtract the total variation of the pictures with this weight; True for 0.001.
            verbose: Show a progress bar.
            snapshots: Keep the pictures after these steps, or at the start and after every so many steps.
            callback: Called with a `Progress` after each step.
            stop: Called with a `Progress` after each step; ends the optimization when it returns True.
            seed: Seed of the transforms; without one they use torch's global generator.
            autocast: Run the network, and only it, in this precision, such as ``torch.bfloat16``.
            redirect: In how many steps `redirected_relu` lets gradients through ReLUs that are inactive on
                the first pictures; 0 for the ordinary gradient in all of them.

        Raises:
            NotAttachedError: No model is attached.
            DeviceError: Model and pictures are on different devices.
            NonFiniteError: The loss became NaN or infinite; the pictures are those of the last finite loss.
            ArgumentError: Negative `epochs` or `redirect`, or a snapshot beyond them.
        """
        task = replace(self._attached(), autocast=autocast)
        if tv_loss:
            weight = _TOTAL_VARIATION if tv_loss is True else tv_loss
            task = replace(task, objective=task.objective - weight * TotalVariation())
        if epochs < 0:
            raise ArgumentError(f"epochs is a number of steps, 0 or more, got {epochs}")
        steps = _snapshot_steps(snapshots, epochs)
        parameters = self.generator.parameters
        self.result = None  # after an error the current pictures are shown
        with (
            until_the_end() as cleanup,
            torch.enable_grad(),
            frozen(task.model),
            evaluating(task.model),
            redirected_relu(task.model, redirect),
            seeded(seed, self.generator.device),
            task.in_steps() as task,
        ):
            cleanup.add(lambda: _forget_gradients(parameters))
            self.result = optimize(
                task,
                epochs,
                _made(optimizer, parameters, lr),
                snapshots=steps,
                callback=callback,
                stop=stop,
                verbose=verbose,
            )
        return self.result

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Shows the pictures as a grid with titles, and returns its axes."""
        from .. import plots

        axes = self._shown().plot(ax)
        if ax is None:
            plots.show()
        return axes

    @checked
    def save(self, path: str | Path) -> None:
        """Writes the pictures; see `Visualization.save`."""
        self._shown().save(path)

    def _attached(self) -> OptimizationTask:
        if self._task is None:
            raise NotAttachedError("no model is attached: call attach(model) before optimize()")
        device, _ = device_and_dtype(self._task.model)
        if device != self.generator.device:
            raise DeviceError(
                f"the model is on {device} and the pictures are on {self.generator.device}: "
                f"Pipeline.to({str(device)!r}) moves both"
            )
        return self._task

    def _shown(self) -> Visualization:
        if self.result is not None:
            return self.result
        image = as_picture(self.image)
        return Visualization(
            images=image,
            losses=torch.zeros(0, len(image)),
            titles=tuple(self.objective.titles(len(image))),
        )

    def _drawn(self) -> "Axes":
        return self._shown().plot()

    def __repr__(self) -> str:
        attached = f", attached to {type(self.model).__name__}" if self.model else ""
        return f"Pipeline({type(self.generator).__name__}, {self.objective}{attached})"


def _forget_gradients(parameters: Iterable[Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None


def _made(
    optimizer: Callable[..., torch.optim.Optimizer], parameters: list[Tensor], lr: float
) -> torch.optim.Optimizer:
    try:
        return optimizer(parameters, lr=lr)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"the optimizer cannot be made with lr={lr}: {error}") from error


def _check_score(score: Tensor, images: int, objective: Objective) -> None:
    if not isinstance(score, Tensor) or score.shape not in ((), (1,), (images,)):
        got = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
        raise ShapeError(f"the score of {objective} must be a tensor ({images},) or of one number, got {got}")


def _snapshot_steps(snapshots: int | Iterable[int], epochs: int) -> set[int]:
    if isinstance(snapshots, int):
        if snapshots < 1:
            raise ArgumentError(f"snapshots=n takes one every n steps, n is at least 1, got {snapshots}")
        return set(range(0, epochs + 1, snapshots))
    steps = set(snapshots)
    if beyond := [step for step in steps if not 0 <= step <= epochs]:
        raise ArgumentError(f"snapshots at {sorted(beyond)} are not among the steps 0 to {epochs}")
    return steps
