"""The engine: records, edits and stops at any module or operation of a model while a `with` block lasts.

All names are resolved before the first hook is registered, and every hook is gone after the block, however
it ends. Nothing else in the package registers a hook.

A name without a run number means the last run of its module or operation in a forward pass, a pass being one
call of the model. Outside a call of the model, where a part of it is called alone, each call counts on.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from .activations import Activations
from .blocks import block
from .forward import raise_forward_error
from .functions import intercepted
from .interrupts import uninterrupted, until_the_end
from .listening import Listener
from .modules import (
    check_model,
    device_and_dtype,
    eager,
    without_wrapper,
    wrap_forward,
)
from .operations import inner_modules
from .passes import Stop
from .placed_hooks import PlacedHooks, remove
from .seeding import seeded
from .targets import Edit
from .threads import HomeThread, begin_alone
from .weight_moves import WeightMoves


@block
def hooked(
    model: nn.Module,
    record: Iterable[str] | Mapping[str, str] = (),
    edit: Mapping[str, Edit] | None = None,
    *,
    stop: bool = False,
    detach: bool = False,
    clone: bool = True,
    every: bool = False,
    inputs: bool = False,
) -> Iterator[Activations]:
    """Yields the activations that are recorded, and edits others, in the forward passes inside the block.

    Names are those of `toumei.core.names`: modules, operations, parts of outputs, runs.

    Args:
        model: Any module.
        record: Names of the layers to record; or a dictionary of them, whose keys name the activations. The
            empty name is the model itself.
        edit: A function for each layer to edit, from its tensor to another one of the same shape. It gets a
            copy, so it may write in place. A `CallEdit` also sees the arguments of the call. A recording of
            the same layer sees the edited tensor. Where a name without a number belongs to something that
            runs several times, the forward pass is begun again once it is known which run is the last.
        stop: End the forward pass, and with it the block, silently, as soon as nothing that is wanted can
            come any more: each name has a number, and that run is over. Names without a number need the
            whole pass; see `toumei.core.surveys`.
        detach: Cut the recorded tensors off the graph.
        clone: Hand the layers that follow a copy of a recorded tensor, so that a later operation in place (a
            ReLU, say) cannot overwrite it. Gradients flow through the recorded tensor all the same. Without
            it recording costs nothing, and reading an overwritten tensor raises an error (but not under
            `torch.inference_mode`, where torch does not notice).
        every: Record and edit all runs of names without a number, not only the last.
        inputs: Record the main tensor that a layer is given as it stands after the call, not what it returns.

    Raises:
        LayerError: A name that the model does not have; no hook has been registered then.
        UnitError: A name that cannot be read.
        ArgumentError: `model` is no `nn.Module`.
        ArchitectureError: Hooks do not run inside the model, as in compiled or scripted ones.
        ShapeError: An edit returned a tensor of another shape.
        UnreachedLayerError: An edit that no forward pass in the block reached; the message says what ran.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> with hooked(model, record=["1", "2/linear"], edit={"0": torch.abs}) as activations:
        ...     output = model(torch.ones(1, 3))
        >>> activations
        Activations(1: (1, 4), 2/linear: (1, 2))
    """
    hooks = PlacedHooks(
        model, record, edit, stop=stop, detach=detach, clone=clone, every=every, inputs=inputs
    )
    with until_the_end() as cleanup:
        hooks.install(cleanup)
        try:
            yield hooks.forward_pass.activations
        except Stop as signal:
            if signal.args[0] is not hooks.forward_pass:  # an outer block asked for it
                raise
            return
    hooks.check_edits()


@contextmanager
def listening(model: nn.Module, listener: Listener) -> Iterator[None]:
    """Tells a listener of every module and function of torch that a model runs inside the block.

    It hears the forward passes of the model in this thread, not calls of a part of it alone. Compiled code
    runs as it was written; modules of TorchScript are not heard. Functions that the listener calls itself
    are not told.

    Args:
        model: Any module.
        listener: See `toumei.core.listening`.

    Raises:
        ArgumentError: `model` is no `nn.Module`.
        ArchitectureError: Hooks do not run inside the model.
    """
    check_model(model)
    given, model = model, without_wrapper(model)
    home, running = HomeThread(), list[bool]()

    def around(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if running:  # the model calls itself
            return forward(*args, **kwargs)
        running.append(True)
        try:
            listener.begin(args, kwargs)
            with intercepted(partial(moves.call, listener)):
                output = forward(*args, **kwargs)
            listener.end(output)
        except BaseException as error:
            listener.fail(error)
            raise
        finally:
            running.clear()
        return output

    def enter(module: nn.Module, _: Any) -> None:
        if running and home.here():
            listener.enter(module)

    def leave(module: nn.Module, _: Any, output: Any) -> None:
        if running and home.here():
            listener.leave(module, output)

    handles: list[RemovableHandle] = []
    with until_the_end() as cleanup:
        begin_alone(model, cleanup)
        with uninterrupted():
            cleanup.enter(eager(given))
            cleanup.add(lambda: remove(handles))
            for module in inner_modules([model]):
                handles.append(module.register_forward_pre_hook(enter))
                handles.append(module.register_forward_hook(leave, always_call=True))
            moves = WeightMoves(model, cleanup)
            wrap_forward(model, around, cleanup)
        yield


@contextmanager
def seeded_passes(model: nn.Module, seed: int = 0) -> Iterator[nn.Module]:
    """Fixes the seed of each forward pass in the block, for networks that draw random numbers.

    Every call of the model draws the same numbers, and afterwards the generators are as they were before it.
    Rows of one batch draw different numbers all the same: with ``batch_size=1`` they draw the same ones.

    Args:
        model: The network.
        seed: The seed.

    Example:
        >>> import torch
        >>> noisy = nn.Dropout()
        >>> with seeded_passes(noisy, seed=3):
        ...     first, second = noisy(torch.ones(9)), noisy(torch.ones(9))
        >>> torch.equal(first, second)
        True
    """
    check_model(model)
    device = device_and_dtype(model)[0]
    running: list[Any] = []

    def begin(*_: Any) -> None:
        running.append(seeded(seed, device))
        running[-1].__enter__()

    def end(*_: Any) -> None:
        if running:  # a pass may end before it began, by an error of another hook
            running.pop().__exit__(None, None, None)

    handles: list[RemovableHandle] = []
    with until_the_end() as cleanup:
        cleanup.add(lambda: remove(handles))
        with uninterrupted():
            handles.append(model.register_forward_pre_hook(begin))
            # the block that began last ends first
            handles.append(model.register_forward_hook(end, prepend=True, always_call=True))
        yield model


def run(
    model: nn.Module, *inputs: Any, record: Iterable[str] | Mapping[str, str], **options: Any
) -> Activations:
    """Returns the activations of one forward pass.

    The pass ends after the last recorded layer where all names have run numbers.

    Args:
        model: Any module.
        *inputs: Its positional inputs.
        record: Names of the layers to record.
        **options: The other arguments of `hooked`.

    Raises:
        LayerError: A name that the model does not have.

    Example:
        >>> import torch
        >>> run(nn.Sequential(nn.ReLU(), nn.Flatten()), -torch.ones(1, 2), record=["0"])["0"]
        tensor([[0., 0.]])
    """
    with hooked(model, record, **{"stop": True, **options}) as activations:
        run_past_errors(lambda: model(*inputs), activations.complete, model, inputs)
    return activations


@contextmanager
def repeated_run(
    model: nn.Module, record: Iterable[str] | Mapping[str, str], *, detach: bool = False, clone: bool = True
) -> Iterator[Callable[..., Activations]]:
    """Yields a function that does what `run` does, but whose hooks stay from one forward pass to the next.

    A loop of small steps spends a noticeable part of its time on hooks that each step registers anew. Forward
    passes in the block that the function does not begin are not recorded, and run to their ends.

    Args:
        model: Any module. Its modules are looked up once, when the block begins.
        record: Names of the layers to record.
        detach: As for `hooked`.
        clone: As for `hooked`.

    Raises:
        LayerError: A name that the model does not have.

    Example:
        >>> import torch
        >>> with repeated_run(nn.Sequential(nn.ReLU(), nn.Flatten()), ["0"]) as forward:
        ...     [forward(torch.full((1, 1), value))["0"].item() for value in (-1.0, 2.0)]
        [0.0, 2.0]
    """
    hooks = PlacedHooks(model, record, stop=True, detach=detach, clone=clone, every=False, inputs=False)
    forward_pass, empty = hooks.forward_pass, hooks.forward_pass.activations

    def forward(*inputs: Any) -> Activations:
        forward_pass.activations = activations = empty.emptied()
        forward_pass.paused = False
        try:
            run_past_errors(lambda: model(*inputs), activations.complete, model, inputs)
        except Stop as signal:
            if signal.args[0] is not forward_pass:
                raise
        finally:
            forward_pass.paused, forward_pass.activations = True, empty
        return activations

    with until_the_end() as cleanup:
        forward_pass.paused = True
        hooks.install(cleanup)
        yield forward


def run_past_errors(
    forward: Callable[[], Any],
    complete: Callable[[], bool],
    model: nn.Module | None = None,
    given: Iterable[Any] = (),
) -> None:
    """Runs a forward pass; an error ends it silently once everything that is wanted of it is complete.

    What follows them need not work, such as a classifier that takes pictures of another size.

    Raises:
        ForwardError: The network cannot run on what it is given.
    """
    try:
        forward()
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError" or not complete():
            raise_forward_error(error, model, given)
