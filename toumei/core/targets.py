"""What the engine waits for in a forward pass: runs of modules and operations, to record, edit or stop at."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .activations import Runs
from .errors import ArchitectureError, ShapeError
from .functions import canonical_name
from .modules import MANY_NAMES, find_module, without_wrapper
from .names import Layer, parse_layer
from .outputs import has_tensor, main_tensor, tensor_parts, with_main_tensor
from .passes import Pass
from .threads import in_backward

_SPECIAL = re.compile(r"[/#\[\]:]")  # characters of the grammar


@dataclass(frozen=True, eq=False)
class CallEdit:
    """An edit that also sees with what the layer was called.

    Attributes:
        function: Takes the tensor of the layer, the positional and the keyword arguments of its call, and
            returns another tensor of the same shape.

    Example:
        >>> from toumei.core import run
        >>> from toumei.models import SimpleMLP
        >>> double = CallEdit(lambda output, args, kwargs: 2 * output)
        >>> model, inputs = SimpleMLP(4, 3, 2), torch.rand(5, 4)
        >>> once = run(model, inputs, record=["fc0"])["fc0"]
        >>> twice = run(model, inputs, record=["fc0"], edit={"fc0": double})["fc0"]
        >>> torch.equal(twice, 2 * once)
        True
    """

    function: Callable[[Tensor, tuple[Any, ...], dict[str, Any]], Tensor]


Edit = Callable[[Tensor], Tensor] | CallEdit


class Place(NamedTuple):
    """A layer, and the module that it is the output of or lies in."""

    layer: Layer
    module: nn.Module


@dataclass(eq=False)
class Wanted:
    """One layer that is recorded under some names, edited, or both."""

    layer: Layer
    keys: list[str] = field(default_factory=list)
    edit: Edit | None = None
    done: bool = False
    edited: bool = False


class Target:
    """A module, or an operation inside it, at whose runs something happens."""

    def __init__(self, module: nn.Module, layer: Layer, forward_pass: Pass) -> None:
        self.module, self.layer, self.operation = module, layer, layer.operation
        self.runs = Runs(inside=_inside_list(module))
        self.wanted: list[Wanted] = []
        self._pass = forward_pass
        self._expected = 1  # runs in a pass
        forward_pass.targets.append(self)

    def want(self, layer: Layer) -> Wanted:
        """Returns what is wanted of a layer, so far nothing if it is new."""
        for wanted in self.wanted:
            if wanted.layer == layer:
                return wanted
        self.wanted.append(Wanted(layer))
        return self.wanted[-1]

    @property
    def done(self) -> bool:
        """Whether nothing more can come in this pass."""
        return all(wanted.done for wanted in self.wanted)

    @property
    def edits_last(self) -> bool:
        """Whether the last run is edited, which is known only after the pass."""
        return not self._pass.every and any(one.edit and one.layer.run is None for one in self.wanted)

    def begin(self) -> None:
        """Prepares for a forward pass."""
        self.runs.count = 0
        for wanted in self.wanted:
            wanted.done = False

    def settle(self) -> bool:
        """Returns whether an edit of the last run met another run in the pass that is over."""
        if not self.edits_last or self.runs.count in (0, self._expected):
            return False
        self._expected = self.runs.count
        return True

    def state(self) -> Any:
        """Returns what `reset` goes back to."""
        return self.runs.count, [(wanted.done, wanted.edited) for wanted in self.wanted]

    def reset(self, state: Any) -> None:
        """Forgets what happened since."""
        self.runs.count, flags = state
        for wanted, flag in zip(self.wanted, flags, strict=True):
            wanted.done, wanted.edited = flag

    def edited(self, layer: Layer) -> bool:
        """Returns whether the edit of a layer has run."""
        return any(wanted.edited for wanted in self.wanted if wanted.layer == layer)

    def waits(self) -> bool:
        """Returns whether the next run is one of those that are wanted."""
        count = self.runs.count
        return any(wanted.layer.run is None or wanted.layer.run == count for wanted in self.wanted)

    def hook(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """The forward hook of a module; it leaves what other threads run of it as it is."""
        return self(output, args, kwargs) if self._pass.home.here() else output

    def __call__(self, output: Any, args: Any, kwargs: Any) -> Any:
        """Returns the output of a run, with edits, after recording what is wanted of it."""
        if self._pass.paused:
            return output
        if not self._pass.running and in_backward():
            return self._computed_again(output, args, kwargs)
        number = self.runs.count
        self.runs.count += 1
        wanted = [one for one in self.wanted if one.layer.run is None or one.layer.run == number]
        for one in wanted:
            if one.edit is not None and self._is_meant(one.layer, number):
                output = self._edit(one, output, args, kwargs)
        for one in wanted:
            if one.keys:
                output = self._record(one, output, args, kwargs)
            one.done = True
        self._pass.check_stop()
        return output

    def _computed_again(self, output: Any, args: Any, kwargs: Any) -> Any:
        """Edits a run that a checkpoint computes again in the backward pass, and records nothing."""
        for one in self.wanted:
            if one.edit is not None:
                if self.runs.count > 1 and not (self._pass.every and one.layer.run is None):
                    raise ArchitectureError(
                        f"{one.layer.source!r} ran {self.runs.count} times, and a checkpoint computes it "
                        f"again in the backward pass, where its runs cannot be told apart: edit every run "
                        f"with every=True, or switch checkpointing off"
                    )
                output = self._edit(one, output, args, kwargs)
        return output

    def _is_meant(self, layer: Layer, number: int) -> bool:
        if layer.run is not None or self._pass.every or not self._pass.running:
            return True
        return number == self._expected - 1

    def _edit(self, wanted: Wanted, output: Any, args: Any, kwargs: Any) -> Any:
        part = wanted.layer.part
        tensor = main_tensor(output, part)
        self.runs.parts[part] = tensor_parts(output, part)
        assert wanted.edit is not None
        if isinstance(wanted.edit, CallEdit):
            edited = wanted.edit.function(tensor.clone(), args, kwargs)
        else:
            edited = wanted.edit(tensor.clone())
        if not isinstance(edited, Tensor) or edited.shape != tensor.shape:
            got = tuple(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
            raise ShapeError(
                f"the edit of layer {str(wanted.layer)!r} must return {tuple(tensor.shape)}, got {got}"
            )
        wanted.edited = True
        if any(
            stride == 0 and size > 1 for stride, size in zip(_strides(edited), edited.shape, strict=False)
        ):
            edited = edited.clone(memory_format=torch.contiguous_format)  # the model may write into it
        return with_main_tensor(output, edited, part)

    def _record(self, wanted: Wanted, output: Any, args: Any, kwargs: Any) -> Any:
        part = wanted.layer.part
        seen = output
        if self._pass.inputs:
            seen = args if has_tensor(args) else kwargs
        tensor = main_tensor(seen, part)
        shown = tensor.detach() if self._pass.detach else tensor
        for key in wanted.keys:
            self._pass.activations._add(key, shown, self._pass.every)
        if self._pass.clone and not self._pass.inputs:
            return with_main_tensor(output, tensor.clone(), part)
        return output


def _strides(tensor: Tensor) -> tuple[int, ...]:
    return tensor.stride() if tensor.layout == torch.strided else ()


def _inside_list(module: nn.Module) -> tuple[str, ...]:
    """The modules that a list or dictionary of modules holds, which never runs."""
    never = type(module).forward is nn.Module.forward and "forward" not in vars(module)
    return tuple(name for name, _ in module.named_children()) if never else ()


def resolve(model: nn.Module, names: Iterable[str]) -> dict[str, Layer]:
    """Returns the layers that names mean; see `find_places`."""
    return {name: place.layer for name, place in find_places(model, names).items()}


def find_places(model: nn.Module, names: Iterable[str]) -> dict[str, Place]:
    """Returns the layers that names mean, and their modules.

    Modules whose names have characters of the grammar, such as ``a/b``, come before what else the name may
    mean. Functions of torch are found by each of their names.

    Raises:
        LayerError: A module that the model does not have.
        UnitError: A name that cannot be read.
        ArchitectureError: A module that is compiled by TorchScript.
    """
    names = list(names)
    known: dict[str, nn.Module] = {}
    if len(names) > MANY_NAMES or any(_meets_odd_modules(model, str(name)) for name in names):
        known = dict(model.named_modules(remove_duplicate=False))
    odd = sorted(filter(_SPECIAL.search, known), key=len, reverse=True)
    places = {}
    for name in names:
        layer = Layer(name) if isinstance(name, str) and name in known else _layer(name, odd)
        found = known.get(layer.module)
        module = find_module(model, layer.module) if found is None else without_wrapper(found)
        if isinstance(module, torch.jit.ScriptModule):
            raise ArchitectureError(
                f"layer {layer.module!r} is compiled by TorchScript, where no hooks run: name a module "
                f"around it, or give the module that was scripted or traced"
            )
        places[name] = Place(layer, module)
    return places


def _meets_odd_modules(model: nn.Module, name: str) -> bool:
    """Whether a module on the way to a name has one inside whose name has characters of the grammar."""
    plain = _SPECIAL.split(name)[0]
    if plain == name:
        return False
    module: nn.Module | None = without_wrapper(model)
    for part in (*plain.split("."), ""):
        if module is None:
            return False
        if any(map(_SPECIAL.search, module._modules)):
            return True
        module = module._modules.get(part)
    return False


def _layer(name: str, odd: Iterable[str]) -> Layer:
    for module in odd:
        if isinstance(name, str) and name.startswith(module) and name[len(module) :][:1] in ("", *"/#["):
            return replace(parse_layer(name[len(module) :]), module=module)
    layer = parse_layer(name)
    if layer.operation is None:
        return layer
    return replace(layer, operation=canonical_name(layer.operation)[0])
