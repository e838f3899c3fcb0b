"""One grammar for every place in a network: layers, operations, parts of outputs, runs and units.

::

    layer3.0.conv2                  the output of a module, with the name that `named_modules()` gives it
    layer2.0.relu#0                 the first of its runs in a forward pass; without a number the last one
    lstm[1]   bert[pooler_output]   another part of an output than the main tensor
    attn/softmax                    what torch's function `softmax` returns inside the module ``attn``
    layer3.0/add#1                  what the second call of it there returns
    mixed3a:74                      channel 74 of a layer
    mixed3a:74:3:5                  the channel at a position: y:x on maps and grids of patches, a token in
                                    sequences, z:y:x in volumes

An operation belongs to the innermost module that calls it. Its name is the canonical one of
`toumei.core.functions`: ``a + b``, ``a += b`` and ``torch.add(a, b)`` are all ``add``.
"""

import re
from dataclasses import dataclass, replace

from .errors import UnitError

_LAYER = re.compile(
    r"(?P<module>[^/#\[\]:]*)(?:/(?P<operation>\w+))?(?P<part>(?:\[[^\[\]]+\])*)"
    r"(?:#(?P<run>\d+))?(?P<late_part>(?:\[[^\[\]]+\])*)",
    re.ASCII,
)
_KEY = re.compile(r"\[([^\[\]]+)\]")
_INDEX = re.compile(r"-?\d+", re.ASCII)
_LAYER_GRAMMAR = (
    "'module', 'module/operation', with '#run' for one of its runs and '[part]' for a part of its output"
)
_UNIT_GRAMMAR = (
    "'layer', 'layer:channel', 'layer:channel:token', 'layer:channel:y:x' or 'layer:channel:z:y:x'"
)


@dataclass(frozen=True)
class Layer:
    """A tensor in a forward pass: what a module or an operation inside it returns.

    Attributes:
        module: Name of the module, as in `named_modules()`; the empty name is the model itself.
        operation: Canonical name of a function of torch that the module calls, None for the module's output.
        run: Which run of the module or operation in a forward pass, from 0 on; None for the last one.
        part: Keys and indices that lead from the output to the tensor; empty for the main tensor.

    Example:
        >>> layer = Layer("layer3.0", "add", run=1)
        >>> str(layer), layer.source
        ('layer3.0/add#1', 'layer3.0/add')
    """

    module: str
    operation: str | None = None
    run: int | None = None
    part: tuple[int | str, ...] = ()

    def __str__(self) -> str:
        operation = "" if self.operation is None else f"/{self.operation}"
        run = "" if self.run is None else f"#{self.run}"
        return self.module + operation + run + "".join(f"[{key}]" for key in self.part)

    @property
    def source(self) -> str:
        """The name without run and part: what runs."""
        return str(Layer(self.module, self.operation))

    def at_run(self, run: int | None) -> "Layer":
        """Returns the same place at another run."""
        return replace(self, run=run)


def parse_layer(text: str) -> Layer:
    """Returns the layer that a string names.

    Args:
        text: See the grammar above; a unit is refused.

    Raises:
        UnitError: The string does not follow the grammar.

    Example:
        >>> parse_layer("layer3.0/add#1")
        Layer(module='layer3.0', operation='add', run=1, part=())
        >>> parse_layer("lstm[1][0]").part
        (1, 0)
    """
    if not isinstance(text, str):
        raise UnitError(
            f"cannot read the layer {text!r}: expected the name of a layer as a string, {_LAYER_GRAMMAR}"
        )
    if ":" in text:
        raise UnitError(
            f"cannot read the layer {text!r}: a layer is expected here and ':' names a unit of it; "
            f"expected {_LAYER_GRAMMAR}"
        )
    match = _LAYER.fullmatch(text)
    if match is None:
        raise UnitError(f"cannot read the layer {text!r}: expected {_LAYER_GRAMMAR}")
    module, operation, part, run, late_part = match.groups()
    keys = _KEY.findall(part + late_part)
    return Layer(
        module=module,
        operation=operation,
        run=None if run is None else int(run),
        part=tuple(int(key) if _INDEX.fullmatch(key) else key for key in keys),
    )


@dataclass(frozen=True)
class Unit:
    """A layer, or one of its channels, or a channel at one position.

    A unit may say what cannot be told from the network; everything that takes a unit as a string takes a
    `Unit` too.

    Attributes:
        layer: Name of a layer, see the grammar of this module.
        channel: Index of the channel, None for all.
        position: (y, x) on a map or a grid of patches, (token,) in a sequence, (z, y, x) in a volume; None
            for all or for the centre.
        channel_axis: The axis of the channels, where it cannot be told.
        grid: Height and width of the grid that tokens stand on, where it cannot be told.

    Example:
        >>> str(Unit("mixed3a", 74, (3, 5)))
        'mixed3a:74:3:5'
    """

    layer: str
    channel: int | None = None
    position: tuple[int, ...] | None = None
    channel_axis: int | None = None
    grid: tuple[int, int] | None = None

    def __str__(self) -> str:
        numbers = () if self.channel is None else (self.channel, *(self.position or ()))
        return ":".join([self.layer, *map(str, numbers)])


def parse(unit: "str | Unit") -> Unit:
    """Returns the unit that a string names.

    Args:
        unit: See the grammar above; a `Unit` is returned as it is.

    Raises:
        UnitError: The string does not follow the grammar.

    Example:
        >>> parse("mixed3a:74:3:5")
        Unit(layer='mixed3a', channel=74, position=(3, 5), channel_axis=None, grid=None)
    """
    if isinstance(unit, Unit):
        return unit
    layer, *numbers = unit.split(":") if isinstance(unit, str) else ("",)
    whole = all(number.isascii() and number.isdigit() for number in numbers)
    if not layer or len(numbers) > 4 or not whole or _LAYER.fullmatch(layer) is None:
        raise UnitError(
            f"cannot read the unit {unit!r}: expected {_UNIT_GRAMMAR}, with whole numbers from 0 on, where a "
            f"layer is {_LAYER_GRAMMAR}"
        )
    channel, *position = map(int, numbers) if numbers else (None,)
    return Unit(layer, channel, tuple(position) or None)
