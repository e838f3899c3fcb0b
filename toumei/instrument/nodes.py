"""The operations of a forward pass and the tensors between them, one by one."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import ArgumentError
from ..core.generators import Draw
from ..core.kinds import shown
from ..core.offloading import loaded_weight
from ..core.summaries import counted, shortened


@dataclass(eq=False, slots=True)
class TensorNode:
    """A tensor of a forward pass.

    Attributes:
        name: The engine's name of what an operation returned, such as ``h.0.attn/softmax#0``, with the part
            where it returned several, as in ``h.0.attn/split#0[1]``. Parameters and buffers have the names of
            ``named_parameters()`` and ``named_buffers()``, inputs are ``inputs[0]`` or ``inputs[mask]``,
            constants the attribute that holds them. A tensor that nothing is known of is ``unknown[0]``. A
            tensor that shares its memory with one which an operation overwrote is a new one,
            ``name@operation``.
        kind: ``"result"``, ``"input"``, ``"parameter"``, ``"buffer"``, ``"constant"`` or ``"unknown"``: what
            no attribute of a module holds, a constant, or made during the pass by what functions of torch do
            not show, such as TorchScript and numpy.
        shape: Its shape; -1 for the lengths that differ among the parts of a nested tensor.
        dtype: Its type of numbers.
        device: Where it is.
        nbytes: Bytes of its memory; 0 if it shares the memory of another tensor of the graph.
        producer: Name of the operation that made it, None for what the pass began with.

    Example:
        >>> from toumei.instrument import instrument
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     _ = model(torch.rand(1, 3))
        >>> node = tracker.build_graph().tensor("0/linear")
        >>> node.shape, node.kind
        ((1, 2), 'result')
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    nbytes: int
    producer: str | None = None

    @property
    def tensor_id(self) -> str:
        """The name."""
        return self.name

    def __repr__(self) -> str:
        return f"TensorNode({shortened(self.name, 90)!r}, {self.kind}, {self.shape}, {str(self.dtype)[6:]})"


@dataclass(eq=False, slots=True)
class Operation:
    """A call of a function of torch in a forward pass.

    Attributes:
        name: The engine's name, ``module/function#run``, as in ``h.0.attn/softmax#0``.
        function: Canonical name of the function, see `toumei.core.functions`. What torch's functions do not
            show has the name of its class, or ``untracked``.
        module: Name of the innermost module that called it, or that took its untracked result first; empty
            for the model.
        run: How many calls of the function by this module came before it in the pass.
        kind: ``"function"``; ``"read"`` where Python read numbers of a tensor, as ``item`` does; ``"custom"``
            for a custom autograd function, whose inner operations are in the graph too; ``"untracked"`` for
            what torch's functions do not show at all, such as TorchScript. Both are told by the nodes of
            autograd: without gradients there are the inner operations alone, and what TorchScript made is a
            tensor of kind ``"unknown"``, as what numpy made always is. Other names stay.
        args: Positional arguments, with nodes in place of tensors.
        kwargs: The other arguments.
        outputs: The tensors it returned, or overwrote.
        views: Tensors that share memory with what it overwrote, after and before.
        source: File and line that called it, outside torch where there is such a line.
        seconds: How long the call took. On accelerators that is the time to launch it.
        in_place: Whether it overwrote a tensor.
        callable: The function itself, None where it is not known.
        value: What Python read, for kind ``"read"``; the kind of an untracked result.
        autocast: Device type and dtype of the autocast block that it ran in, None without.
        gradients: Whether gradients were on, where the model had switched them since the pass began; None
            elsewhere.
        draw: Where it draws random numbers from, and the state there before it; None if it draws nothing.

    Example:
        >>> from toumei.instrument import instrument
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     _ = model(torch.rand(1, 3))
        >>> [(operation.name, operation.function) for operation in tracker.build_graph()]
        [('0/linear#0', 'linear'), ('1/relu#0', 'relu')]
    """

    name: str
    function: str
    module: str
    run: int
    kind: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[TensorNode]
    source: str
    seconds: float = 0.0
    in_place: bool = False
    callable: Callable[..., Any] | None = None
    value: Any = None
    autocast: tuple[str, torch.dtype] | None = None
    gradients: bool | None = None
    draw: Draw | None = None
    views: list[tuple[TensorNode, TensorNode]] = field(default_factory=list)
    _inputs: list[TensorNode] | None = field(default=None, init=False, repr=False)

    @property
    def inputs(self) -> list[TensorNode]:
        """The tensors among its arguments, each once."""
        if self._inputs is None:
            self._inputs = list(dict.fromkeys(nodes_in((self.args, self.kwargs))))
        return self._inputs

    @property
    def written(self) -> list[TensorNode]:
        """All tensors that are new or other after it: its outputs, and views of what it overwrote."""
        return [*self.outputs, *(after for after, _ in self.views)]

    @property
    def nbytes(self) -> int:
        """Bytes of memory that its outputs took."""
        return sum(node.nbytes for node in self.outputs)

    @property
    def line(self) -> str:
        """File name and line of the source."""
        return self.source.replace("\\", "/").rsplit("/", 1)[-1]

    def __repr__(self) -> str:
        shapes = ", ".join(str(node.shape) for node in self.outputs[:2])
        return f"Operation({shortened(self.name, 90)!r}, {counted(len(self.inputs), 'input')} -> {shapes})"


@dataclass(frozen=True, eq=False)
class Memory:
    """What a graph needs to compute the pass again.

    Attributes:
        model: The model, whose parameters and buffers count as they are now.
        first: Values of inputs and constants, by name, and of tensors in place of parameters.
        overwritten: Names of tensors that the pass began with and overwrote.
        rewind: Sets the global generators of random numbers to their states before the pass. Operations that
            are not known to draw begin from there.
    """

    model: nn.Module
    first: Mapping[str, Tensor]
    overwritten: frozenset[str]
    rewind: Callable[[], None]

    def weight(self, node: TensorNode) -> Tensor:
        """Returns a parameter or buffer as the model has it now; one that is offloaded is loaded.

        What `torch.func.functional_call` put in place of a parameter is that of the pass.
        """
        return self.first[node.name] if node.name in self.first else loaded_weight(self.model, node.name)


def name_of(place: Any, kind: type[TensorNode] | type[Operation]) -> str:
    """Returns the name that a node has, or that was given in its place.

    Raises:
        ArgumentError: It is something else.
    """
    name = place.name if isinstance(place, kind) else place
    if not isinstance(name, str):
        thing = "a tensor" if kind is TensorNode else "an operation"
        raise ArgumentError(f"expected the name of {thing} or its node, got {shown(place)}")
    return name


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """Returns the shape of a tensor; of a nested one -1 for the lengths that differ among its parts."""
    return (
        tuple(_length(tensor, axis) for axis in range(tensor.dim())) if tensor.is_nested else (*tensor.shape,)
    )


def _length(tensor: Tensor, axis: int) -> int:
    try:
        length = tensor.size(axis)
    except RuntimeError:
        return -1
    return length if isinstance(length, int) else -1


def nodes_in(value: Any) -> Iterable[TensorNode]:
    """Yields the tensors in arguments or in an output."""
    if isinstance(value, TensorNode):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from nodes_in(one)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from nodes_in(one)
    elif isinstance(value, slice):
        yield from nodes_in((value.start, value.stop, value.step))


def with_values(value: Any, values: Mapping[TensorNode, Tensor]) -> Any:
    """Returns arguments or an output with tensors in place of nodes."""
    if isinstance(value, TensorNode):
        return values[value]
    if type(value) in (tuple, list):
        return type(value)(with_values(one, values) for one in value)
    if type(value) is dict:
        return {key: with_values(one, values) for key, one in value.items()}
    if type(value) is slice:
        return slice(*(with_values(one, values) for one in (value.start, value.stop, value.step)))
    return value
