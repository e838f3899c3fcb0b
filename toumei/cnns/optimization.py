"""The optimization loop: one optimizer step an epoch raises the score of pictures."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from ..core.activations import Activations
from ..core.checks import check_gradients_on
from ..core.errors import ArgumentError, NonFiniteError, ShapeError
from ..core.hooks import repeated_run, run
from ..core.layout import LaidOut, Layout, with_layouts_of
from ..core.modules import device_and_dtype
from ..core.progress import tqdm
from ..core.summaries import counted
from .objectives.combinations import Add
from .objectives.objective import IMAGE, Objective
from .parameterization.generator import Generator
from .visualization import Visualization, as_picture, distance_moved, warn_if_still

_CHECK_EVERY = 32  # steps between two checks of the loss on an accelerator; each check waits for the device


@dataclass(frozen=True)
class OptimizationTask:
    """What is optimized: the pictures of a generator, for an objective of a model.

    Attributes:
        generator: Makes the pictures.
        model: The network.
        objective: What is raised.
        layers: For each layer of the objective the name of its last run, after which a forward pass may end.
        layouts: What the axes of each layer mean.
        memory_format: How the pictures lie in memory when the network sees them.
        autocast: Precision of the network's forward pass, such as ``torch.bfloat16``.
        forward: Runs the model up to the layers and returns what they make; by default `run`.
        place: Device and dtype of the model; by default looked up in each pass.
    """

    generator: Generator
    model: nn.Module
    objective: Objective
    layers: Mapping[str, str]
    layouts: Mapping[str, Layout]
    memory_format: torch.memory_format = torch.contiguous_format
    autocast: torch.dtype | None = None
    forward: Callable[[Tensor], Activations] | None = None
    place: tuple[torch.device, torch.dtype] | None = None

    @contextmanager
    def in_steps(self) -> Iterator["OptimizationTask"]:
        """Yields the task for a loop of steps: hooks and places are looked up once, at the start."""
        if not self.layers:
            yield self
            return
        place = device_and_dtype(self.model)
        with repeated_run(self.model, self.layers, clone=len(self.layers) > 1) as forward:
            yield replace(self, forward=forward, place=place)

    def activations(self, note: Callable[[Tensor], None] | None = None) -> LaidOut:
        """Returns the pictures and what the layers make of them, by layer, at least in float32.

        The forward pass ends after the last layer that is needed.

        Args:
            note: Is called with what the network sees, which keeps its gradient.
        """
        image = self.generator.get_image()
        if not self.layers:
            return LaidOut({IMAGE: image}, {})
        device, dtype = self.place or device_and_dtype(self.model)
        forward = self.forward or partial(run, self.model, record=self.layers, clone=len(self.layers) > 1)
        seen = self.generator.view(image).to(dtype, memory_format=self.memory_format)
        if note is not None and seen.requires_grad:
            seen.retain_grad()
            note(seen)
        with torch.autocast(device.type, self.autocast) if self.autocast else nullcontext():
            recorded = forward(seen)
        tensors = {layer: _at_least_float32(recorded[layer]) for layer in self.layers}
        return LaidOut({IMAGE: image, **tensors}, self.layouts)

    def loss(self, note: Callable[[Tensor], None] | None = None) -> Tensor:
        """Returns the loss of each picture, (N,), with its graph; `note` is that of `activations`."""
        activations = self.activations(note)
        score = mean_score(self.objective, activations, self.generator.views)
        return -score.expand(len(activations[IMAGE]))


@dataclass(frozen=True)
class Progress:
    """The state of an optimization, for callbacks and stop criteria.

    Attributes:
        step: How many steps have been taken.
        history: The loss of each picture, (N,), at each of them, on the pictures' device.
        generator: Makes the pictures.

    Example:
        >>> from toumei.cnns.parameterization import PixelImage
        >>> progress = Progress(3, [torch.tensor(-1.5)], PixelImage(1, 3, 8, 8))
        >>> progress.step, progress.image.shape
        (3, torch.Size([1, 3, 8, 8]))
    """

    step: int
    history: list[Tensor]
    generator: Generator

    @property
    def losses(self) -> Tensor:
        """The history as a tensor (step, N); reading its values waits for the device."""
        return torch.stack(self.history)

    @property
    def image(self) -> Tensor:
        """The current pictures, (N, C, H, W), without graph."""
        with torch.no_grad():
            return self.generator.get_image()


def optimize(
    task: OptimizationTask,
    epochs: int,
    optimizer: torch.optim.Optimizer,
    *,
    snapshots: Collection[int] = (),
    callback: Callable[[Progress], object] | None = None,
    stop: Callable[[Progress], bool] | None = None,
    verbose: bool = True,
) -> Visualization:
    """Returns the pictures after `epochs` steps; the arguments are those of `Pipeline.optimize`.

    On an accelerator the loss is read only every 32 steps, so a loss that is not finite is noticed late. The
    parameters of the last finite loss are kept on the device at every step.

    Raises:
        NonFiniteError: A loss became NaN or infinite; the generator holds the pictures of the last finite
            loss.
        ArgumentError: The score does not depend on the pictures.
    """
    generator, ended = task.generator, "finished"
    history: list[Tensor] = []
    pictures: dict[int, Tensor] = {}
    bar = tqdm(range(1, epochs + 1), "pictures", disable=not verbose, unit="step", mininterval=0.5)
    progress = Progress(0, history, generator)
    first = as_picture(progress.image)
    guard = _Guard(task, len(first))
    if 0 in snapshots:
        pictures[0] = first
    try:
        for step in bar:
            _take_step(task, optimizer, history, guard)
            if step % _CHECK_EVERY == 0 and verbose:
                bar.set_postfix(loss=f"{history[-1].mean().item():.4g}", refresh=False)
            progress = Progress(step, history, generator)
            if step in snapshots:
                pictures[step] = as_picture(progress.image)
            if callback is not None:
                callback(progress)
            if stop is not None and stop(progress):
                ended = "stopped"
                break
    except KeyboardInterrupt:
        ended = "interrupted"
        del history[progress.step :]  # a loss without a step
    finally:
        bar.close()
    guard.check(history)
    guard.check_step(history)
    images = as_picture(progress.image)
    losses = torch.stack(history).float().cpu() if history else torch.zeros(0, len(images))
    result = Visualization(
        images=images,
        losses=losses,
        titles=tuple(task.objective.titles(len(images))),
        snapshots=pictures,
        ended=ended,
        moved=distance_moved(first, images),
    )
    warn_if_still(result, task.objective, guard.unreached())
    return result


def _take_step(
    task: OptimizationTask, optimizer: torch.optim.Optimizer, history: list[Tensor], guard: "_Guard"
) -> None:
    optimizer.zero_grad()
    loss = task.loss(guard.note if guard.searching else None)
    if not loss.requires_grad:
        check_gradients_on()
        raise ArgumentError(f"nothing to optimize: the score of {task.objective} is without gradient")
    loss.sum().backward()
    guard.look()
    history.append(loss.detach())
    guard.watch(history)
    optimizer.step()


class _Guard:
    """Keeps the parameters of the last finite loss, and notes which pictures get a gradient of the network.

    It does so without waiting for the device, and looks for gradients until each picture had one.
    """

    def __init__(self, task: OptimizationTask, pictures: int) -> None:
        self.task, self.pictures = task, pictures
        self.kept = [parameter.detach().clone() for parameter in task.generator.parameters]
        self.every = 1 if task.generator.device.type == "cpu" else _CHECK_EVERY
        self.checked = 0
        self.reached: Tensor | None = None
        self.seen: Tensor | None = None
        self.searching = True

    def note(self, seen: Tensor) -> None:
        """Notes what the network sees, (views x N, C, H, W)."""
        self.seen = seen

    def look(self) -> None:
        """Looks which pictures got a gradient of the network in one step."""
        seen, self.seen = self.seen, None
        if seen is None or seen.grad is None:
            return
        rows = seen.grad.flatten(1).any(1)
        views = self.task.generator.views
        shown = len(rows) == views * self.pictures  # a caricature shows the network the photograph, too
        reached = rows.view(views, -1).any(0) if shown else rows.any().expand(self.pictures)
        self.reached = reached if self.reached is None else self.reached | reached
        if self.every == 1:
            self.searching = bool(self.unreached())

    def unreached(self) -> list[int]:
        """The pictures that got no gradient of the network in any step; waits for the device once."""
        return [] if self.reached is None else (~self.reached).nonzero().flatten().tolist()

    def watch(self, history: list[Tensor]) -> None:
        """Keeps the parameters of the last loss if it is finite; checks the losses every few steps."""
        parameters = [parameter.detach() for parameter in self.task.generator.parameters]
        if self.every == 1:
            if not all(map(math.isfinite, history[-1].tolist())):
                self.check(history)
            for kept, parameter in zip(self.kept, parameters, strict=True):
                kept.copy_(parameter)
            return
        finite = history[-1].isfinite().all()  # reading it would wait for the device
        for kept, parameter in zip(self.kept, parameters, strict=True):
            torch.where(finite, parameter, kept, out=kept)
        if len(history) % self.every == 0:
            self.check(history)
            self.searching = self.reached is None or bool(self.unreached())

    def check(self, history: list[Tensor]) -> None:
        """Fails if a loss since the last check is not finite, with the pictures of the last finite one."""
        recent, first = history[self.checked :], self.checked + 1
        self.checked = len(history)
        finite = torch.stack(recent).isfinite().all(1).tolist() if recent else []  # waits for the device once
        if False in finite:
            step = first + finite.index(False)
            self._fail(f"the loss became {history[step - 1].tolist()} at step {step}")

    def check_step(self, history: list[Tensor]) -> None:
        """Fails in the same way if the last step made the parameters infinite."""
        if not all(parameter.isfinite().all() for parameter in self.task.generator.parameters):
            self._fail(f"the gradient was not finite at step {len(history)}")

    @torch.no_grad()
    def _fail(self, what: str) -> None:
        for parameter, kept in zip(self.task.generator.parameters, self.kept, strict=True):
            parameter.copy_(kept)
        layers = ", ".join(map(repr, self.task.objective.layers))
        raise NonFiniteError(
            f"{what}; the pictures are those of the last finite loss. Try a smaller learning rate, "
            f"or look for infinite activations in {layers}"
        )


def mean_score(objective: Objective, activations: Mapping[str, Tensor], views: int) -> Tensor:
    """Returns the mean of the scores of an objective over the views of each picture.

    Summands that read only the picture are computed once.

    Raises:
        ShapeError: A layer whose batch is not all views of all pictures.
    """
    if views == 1 or set(objective.layers) <= {IMAGE}:
        return objective.score(activations)
    if isinstance(objective, Add):
        summands = (mean_score(part, activations, views) for part in objective.objectives)
        return sum(summands, torch.zeros(()))
    images = len(activations[IMAGE])
    slices: list[dict[str, Tensor]] = [{} for _ in range(views)]
    for layer, activation in activations.items():
        if layer != IMAGE and len(activation) != views * images:
            raise ShapeError(
                f"the first axis of layer {layer!r} should be {counted(views, 'view')} of "
                f"{counted(images, 'picture')}, got {tuple(activation.shape)}"
            )
        parts = [activation] * views if layer == IMAGE else activation.split(images)
        for view, part in zip(slices, parts, strict=True):
            view[layer] = part
    return torch.stack([objective.score(with_layouts_of(activations, view)) for view in slices]).mean(0)


def in_fastest_memory_format(task: OptimizationTask) -> OptimizationTask:
    """Returns the task with channels last on the CPU, if the network and the objective support that.

    With channels last the convolutions and poolings of the CPU take about half the time. A network or a
    function that reshapes maps with `view` does not support it and gets the usual order.
    """
    device, _ = device_and_dtype(task.model)
    if device.type != "cpu":
        return task
    faster = replace(task, memory_format=torch.channels_last)
    try:
        faster.loss()
    except RuntimeError:
        return task
    return faster


def _at_least_float32(activation: Tensor) -> Tensor:
    return activation.float() if activation.dtype in (torch.float16, torch.bfloat16) else activation
