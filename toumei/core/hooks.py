"""The engine: records, edits and stops at any module or operation of a model while a `with` block lasts.

All names are resolved before the first hook is registered, and every hook is gone after the block, however
it ends. Nothing else in the package registers a hook.

A name without a run number means the last run of its module or operation in a forward pass, a pass being one
call of the model. Outside a call of the model, where a part of it is called alone, each call counts on.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .activations import Activations, not_reached
from .blocks import block
from .errors import ArgumentError, UnreachedLayerError
from .forward import raise_forward_error
from .functions import intercepted
from .interrupts import Cleanup, uninterrupted, until_the_end
from .kinds import as_names, shown
from .listening import Listener
from .modules import (
    check_model,
    device_and_dtype,
    eager,
    layer_name,
    without_wrapper,
    wrap_forward,
)
from .operations import OperationStack, inner_modules
from .passes import Pass, Stop
from .seeding import seeded
from .targets import CallEdit, Edit, Place, Target, find_places
from .threads import HomeThread, begin_alone
from .weight_moves import WeightMoves, computing_forward


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
    check_model(model)
    given, model = model, without_wrapper(model)
    names, edits = _names(record, model), _edits(edit)
    places = find_places(model, [*names.values(), *edits])
    activations = Activations({key: places[name].layer for key, name in names.items()})
    forward_pass = Pass(
        model=model,
        activations=activations,
        every=every,
        detach=detach,
        clone=clone,
        inputs=inputs,
        stops=stop and all(place.layer.run is not None for place in places.values()),
    )
    targets = _targets(places, forward_pass)
    for key, name in names.items():
        targets[name].want(places[name].layer).keys.append(key)
    for name, function in edits.items():
        targets[name].want(places[name].layer).edit = function
    activations.count({name: targets[name].runs for name in edits})
    activations.count({key: targets[name].runs for key, name in names.items()})
    with until_the_end() as cleanup:
        begin_alone(model, cleanup)
        with uninterrupted():
            cleanup.enter(eager(given, [place.layer.module for place in places.values()]))
            _install(model, dict.fromkeys(targets.values()), forward_pass, cleanup)
        try:
            yield activations
        except Stop as signal:
            if signal.args[0] is not forward_pass:  # an outer block asked for it
                raise
            return
    for name in edits:
        layer = places[name].layer
        if not targets[name].edited(layer):
            raise UnreachedLayerError(not_reached(layer, targets[name].runs))


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
            cleanup.add(lambda: _remove(handles))
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
        cleanup.add(lambda: _remove(handles))
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


def _names(record: Iterable[str] | Mapping[str, str], model: nn.Module) -> dict[str, str]:
    """What is recorded, by the keys of the activations; modules of the model by their names."""
    if isinstance(record, str):
        raise ArgumentError(
            f"expected an iterable of names to record, got the string {record!r}: give [{record!r}]"
        )
    if isinstance(record, Mapping):
        return dict(record)
    if not isinstance(record, Iterable) or isinstance(record, nn.Module | Tensor):
        raise ArgumentError(f"expected an iterable of names to record, got {shown(record)}")
    return {name: name for name in as_names([layer_name(model, name) for name in record])}


def _edits(edit: Mapping[str, Edit] | None) -> dict[str, Edit]:
    if edit is not None and not isinstance(edit, Mapping):
        raise ArgumentError(f"expected a dictionary of edits by the names of layers, got {shown(edit)}")
    edits: dict[str, Any] = dict(edit or {})
    for name, function in edits.items():
        if not callable(function) and not isinstance(function, CallEdit):
            kind = type(function).__name__
            raise ArgumentError(f"expected a function of a tensor as the edit of {name!r}, got {kind}")
    return edits


def _targets(places: Mapping[str, Place], forward_pass: Pass) -> dict[str, Target]:
    """The targets by name; all layers that name the same module or operation have one."""
    made: dict[tuple[nn.Module, str | None], Target] = {}
    found = {}
    for name, (layer, module) in places.items():
        place = (module, layer.operation)
        if place not in made:
            made[place] = Target(module, layer, forward_pass)
        found[name] = made[place]
    return found


def _remove(handles: Iterable[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()


def _install(model: nn.Module, targets: Collection[Target], forward_pass: Pass, cleanup: Cleanup) -> None:
    """Registers all hooks, and adds the steps that take them away."""
    operations: dict[nn.Module, dict[str, Target]] = {}
    handles: list[RemovableHandle] = []
    cleanup.add(lambda: _remove(handles))
    for target in targets:
        if target.operation is None:
            handles.append(target.module.register_forward_hook(target.hook, with_kwargs=True))
        else:
            operations.setdefault(target.module, {})[target.operation] = target
    if operations:
        listening = OperationStack()
        cleanup.add(listening.clear)
        for module, named in operations.items():
            listener = listening.listener(named)
            forward_pass.counters.append(listener.ran)
            wrap_forward(
                module, listener.listening, cleanup, innermost=True, attribute=computing_forward(module)
            )
        for module in inner_modules(operations):
            handles.append(module.register_forward_pre_hook(listening.pause))
            handles.append(module.register_forward_hook(listening.resume, always_call=True))
    if targets:
        wrap_forward(model, forward_pass.around, cleanup)
        cleanup.add(forward_pass.close)
        forward_pass.open()
