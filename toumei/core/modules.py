"""Modules by name, and the states of a model that are changed for a while and given back exactly."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import wraps
from itertools import chain
from typing import Any

import torch
from torch import nn

from .advice import in_place_of
from .compiled import uncompiled
from .errors import ArchitectureError, ArgumentError, LayerError
from .interrupts import Cleanup, uninterrupted, until_the_end
from .kinds import as_names, shown
from .offloading import execution_device
from .threads import HomeThread, begin_alone

MANY_NAMES = 10  # from here on one walk over the model costs less than a search for each name

Around = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def find_module(model: nn.Module, name: str) -> nn.Module:
    """Returns the module of a model that has this name; the empty name is the model itself.

    Tied modules are found by each of their names. What `torch.compile` wrapped is found without the wrapper.

    Args:
        model: The model to look in.
        name: A dotted name as in `model.named_modules()`.

    Raises:
        LayerError: There is no such module; the message names the nearest ones.

    Example:
        >>> find_module(nn.Sequential(nn.ReLU()), "0")
        ReLU()
    """
    check_module(model)
    if not isinstance(name, str):
        raise LayerError(f"the name of a layer is a string, got {shown(name)}")
    try:
        return without_wrapper(model.get_submodule(name))
    except AttributeError:
        raise LayerError(_unknown_layer(model, name)) from None


def find_modules(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """Returns the modules of these names, in their order; see `find_module`.

    Args:
        model: The model.
        names: The names, as in `named_modules()`.

    Example:
        >>> find_modules(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), ["1"])
        {'1': ReLU()}
    """
    return {name: find_module(model, name) for name in as_names(names)}


def layer_name(model: object, layer: Any) -> Any:
    """Returns the name of a layer that is given as a module of a model; else what was given.

    Raises:
        LayerError: It is no module of the model.

    Example:
        >>> network = nn.Sequential(nn.ReLU(), nn.Flatten())
        >>> layer_name(network, network[1]), layer_name(network, "0")
        ('1', '0')
    """
    if not isinstance(layer, nn.Module) or not isinstance(model, nn.Module):
        return layer
    for name, module in model.named_modules():
        if module is layer:
            return name
    raise LayerError(
        f"the {type(layer).__name__} that is given as a layer is no module of the {type(model).__name__}: "
        f"give a name, as in model.named_modules()"
    )


def check_module(model: object) -> None:
    """Raises an error for what is no module.

    Raises:
        ArgumentError: It is no `nn.Module`.

    Example:
        >>> check_module(nn.ReLU())
    """
    if not isinstance(model, nn.Module):
        exported = type(model).__name__ == "ExportedProgram"
        way_out = ": give its .module()" if exported else in_place_of("model", model)
        if isinstance(getattr(model, "model", None), nn.Module):  # such as a HookedModel
            way_out = ": give its .model"
        elif hasattr(model, "predict"):
            way_out = (
                ": estimators are explained by what needs only scores, such as explain and KernelShap of "
                "toumei.attribution"
            )
        raise ArgumentError(f"expected a torch.nn.Module as the model, got {type(model).__name__}{way_out}")


def check_model(model: object) -> None:
    """Checks that hooks run in a model.

    Args:
        model: What the user gave as a model.

    Raises:
        ArgumentError: It is no `nn.Module`.
        ArchitectureError: It is scripted, or runs copies of a model; the message says what to give instead.
    """
    check_module(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise ArchitectureError(
            "the model is compiled by TorchScript, inside which no hooks run: give the module that was "
            "scripted or traced"
        )
    if isinstance(model, nn.DataParallel):
        raise ArchitectureError("DataParallel runs copies of the model on each device: give model.module")


def without_wrapper(model: nn.Module) -> nn.Module:
    """Returns the module that `torch.compile` wrapped, or the model itself."""
    return getattr(model, "_orig_mod", model) if type(model).__name__ == "OptimizedModule" else model


def eager(model: nn.Module, names: Iterable[str] | None = None) -> AbstractContextManager[Any]:
    """Returns a block in which what `torch.compile` compiled of a model runs as it was written.

    Args:
        model: The model.
        names: The modules that are hooked. If nothing is compiled of them and on the way to them, the block
            changes nothing. By default all modules count.
    """
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    hooked = None if names is None else set(names)
    many = hooked is None or len(hooked) > MANY_NAMES
    if many and not any(map(_is_compiled, model.modules())):
        return nullcontext()
    if hooked is not None and not any(map(_is_compiled, _on_the_way(model, hooked))):
        return nullcontext()
    return uncompiled()


def _on_the_way(model: nn.Module, names: Iterable[str]) -> Iterator[nn.Module]:
    """The model, and the modules that lead to some modules and are inside them."""
    yield model
    inner = without_wrapper(model)
    yield inner
    for name in names:
        module = inner
        for part in name.split(".") if name else ():
            module = module.get_submodule(part)
            yield module
        yield from module.modules()


def _is_compiled(module: nn.Module) -> bool:
    if type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None:
        return True
    # of the function, not of the method that is bound to the module, which takes ten times as long
    forward = vars(module).get("forward") or getattr(type(module), "forward", None)
    return hasattr(forward, "_torchdynamo_orig_callable")


@contextmanager
def wrapped_forward(module: nn.Module, around: Around) -> Iterator[None]:
    """Calls a function around the forward of a module inside the block, and outside of those that are there.

    What other threads run of the module stays as it is.

    Args:
        module: The module.
        around: Gets the forward of the module, positional and keyword arguments; its result counts.

    Example:
        >>> with wrapped_forward(relu := nn.ReLU(), lambda forward, args, kwargs: -forward(*args)):
        ...     relu(torch.ones(2))
        tensor([-1., -1.])
    """
    with until_the_end() as cleanup:
        begin_alone(module, cleanup)
        with uninterrupted():
            wrap_forward(module, around, cleanup)
        yield


def wrap_forward(
    module: nn.Module,
    around: Around,
    cleanup: Cleanup,
    innermost: bool = False,
    attribute: str = "forward",
) -> None:
    """Calls a function around the forward of a module until the steps of a `Cleanup` are taken.

    Args:
        module: The module.
        around: As for `wrapped_forward`.
        cleanup: Gets the step that takes the function away.
        innermost: Whether it runs inside the functions that are there already, not outside of them.
        attribute: Where the module has its forward.
    """
    wrapper: Any = module.__dict__.get(attribute)
    if not hasattr(wrapper, "arounds"):
        wrapper = _wrapper(getattr(module, attribute), wrapper)
    arounds, added = wrapper.arounds, _Around(around)
    cleanup.add(lambda: _unwrap(module, attribute, wrapper, added))
    arounds.insert(len(arounds) if innermost else 0, added)
    setattr(module, attribute, wrapper)


@dataclass(eq=False, frozen=True)
class _Around:
    """A function around the forward of a module, for one thread."""

    function: Around
    home: HomeThread = field(default_factory=HomeThread)


def _wrapper(forward: Callable[..., Any], attribute: Any) -> Any:
    """A forward that calls functions around the given one; it remembers what the module had in its place."""
    arounds: list[_Around] = []

    @wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = forward
        for one in reversed(arounds):
            if one.home.here():
                call = _inside(one.function, call)
        return call(*args, **kwargs)

    wrapper.arounds, wrapper.attribute = arounds, attribute  # type: ignore[attr-defined]
    return wrapper


def _inside(around: Around, forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward inside a function around it."""
    return lambda *args, **kwargs: around(forward, args, kwargs)


def _unwrap(module: nn.Module, name: str, wrapper: Any, added: _Around) -> None:
    """Takes a function away again, and with the last one the wrapper."""
    if added in wrapper.arounds:
        wrapper.arounds.remove(added)
    attribute = wrapper.attribute
    if wrapper.arounds or module.__dict__.get(name) is not wrapper:
        return
    if attribute is None:
        delattr(module, name)
    else:
        setattr(module, name, attribute)


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Switches `requires_grad` off for all parameters and restores each one's own flag at the end.

    Args:
        model: The model whose weights need no gradients for a while.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> with frozen(model):
        ...     model.weight.requires_grad
        False
        >>> model.weight.requires_grad
        True
    """
    check_module(model)
    with until_the_end() as cleanup:
        begin_alone(model, cleanup)
        places = [
            (module, name, parameter, parameter.requires_grad)
            for module in model.modules()
            for name, parameter in module.named_parameters(recurse=False)
        ]

        def restore() -> None:
            for module, name, parameter, flag in places:
                parameter.requires_grad_(flag)
                now = getattr(module, name, None)  # accelerate loads offloaded weights as other parameters
                if isinstance(now, nn.Parameter):
                    now.requires_grad_(flag)

        cleanup.add(restore)
        for _, _, parameter, _ in places:
            parameter.requires_grad_(False)
        yield model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Puts all modules into evaluation mode and restores each one's own mode at the end.

    Args:
        model: The model, which may be partly in training and partly in evaluation mode.

    Example:
        >>> model = nn.Dropout()
        >>> with evaluating(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    check_module(model)
    with until_the_end() as cleanup:
        begin_alone(model, cleanup)
        modes = [(module, module.training) for module in model.modules()]

        def restore() -> None:
            for module, mode in modes:
                module.training = mode

        cleanup.add(restore)
        model.eval()
        yield model


def device_and_dtype(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Returns where a model takes its input and in which precision: those of its first floating-point weight.

    A model without weights gives the CPU and the default dtype, one whose weights are offloaded the device on
    which it runs.
    """
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.is_floating_point():
            device = execution_device(model) if tensor.is_meta else None
            return device or tensor.device, tensor.dtype
    return torch.device("cpu"), torch.get_default_dtype()


def _unknown_layer(model: nn.Module, name: str) -> str:
    names = [known for known, _ in model.named_modules(remove_duplicate=False) if known]
    longer = [known for known in names if name and known.startswith(name)]
    near = (
        longer + [known for known in get_close_matches(name, names, n=6, cutoff=0.5) if known not in longer]
    )[:6]
    message = f"no layer {name!r} in {type(model).__name__}"
    if near:
        return f"{message}: did you mean {', '.join(near)}?"
    shown = ", ".join(names[:12]) + (f", and {len(names) - 12} more" if len(names) > 12 else "")
    return f"{message}: it has {shown}" if names else f"{message}: it has no submodules"


def categories_of(model: nn.Module) -> tuple[str, ...]:
    """Returns the names of a model's classes: its `categories`, or the labels of a Hugging Face model.

    Example:
        >>> from toumei.models import ShapesCNN
        >>> categories_of(ShapesCNN())[0]
        'disc'
    """
    labels = getattr(getattr(model, "config", None), "id2label", None) or {}
    return tuple(getattr(model, "categories", None) or [labels[index] for index in sorted(labels)])
