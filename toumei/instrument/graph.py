"""The graph of a forward pass: its operations, and the tensors between them."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import translate
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
from torch import Tensor

from ..core.checks import checked
from ..core.errors import ArgumentError, LayerError, ReplayError, ShapeError
from ..core.summaries import counted, listed
from ..plots import framed, save_page
from .nodes import Memory, Operation, TensorNode, name_of, nodes_in, shape_of, with_values
from .replay import replayed
from .viewer import graph_page, neighbourhood, picture, save_dot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = Mapping[Any, Any] | Tensor | tuple[Any, ...] | None


@dataclass(frozen=True, eq=False)
class OperationGraph:
    """The operations of a forward pass in their order, and the tensors between them.

    Attributes:
        operations: The operations by name, in the order in which they ran.
        tensors: The tensors by name.
        modules: Types of the model's modules by name; the empty name is the model itself.
        returned: The modules whose output a tensor was, the innermost first, by its name; a module that ran
            several times comes several times.
        inputs: The tensors among the inputs of the model.
        output: The model's output with nodes in place of tensors, None if the pass failed.
        error: What ended the pass early, as text; None if nothing did.
        memory: What `replay` needs.

    Example:
        >>> import torch
        >>> from toumei.instrument import instrument
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     output = model(torch.ones(1, 3))
        >>> graph = tracker.build_graph()
        >>> graph
        OperationGraph(Sequential, 2 operations, 5 tensors)
        >>> list(graph.operations)
        ['0/linear#0', '1/relu#0']
        >>> torch.equal(graph.replay(), output)
        True
    """

    operations: Mapping[str, Operation]
    tensors: Mapping[str, TensorNode]
    modules: Mapping[str, str]
    returned: Mapping[str, list[str]]
    inputs: tuple[TensorNode, ...]
    output: Any
    error: str | None
    memory: Memory

    def __len__(self) -> int:
        return len(self.operations)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations.values())

    def __repr__(self) -> str:
        failed = "" if self.error is None else ", of a pass that failed"
        numbers = f"{counted(len(self.operations), 'operation')}, {counted(len(self.tensors), 'tensor')}"
        return f"OperationGraph({self.modules['']}, {numbers}{failed})"

    def __str__(self) -> str:
        functions = [operation.function for operation in self]
        counts = sorted({name: functions.count(name) for name in functions}.items(), key=lambda one: -one[1])
        found = listed((f"{name} x {n}" for name, n in counts), 12)
        lines = [repr(self), f"operations: {found or 'none'}"]
        if self.untracked:
            lines.append("not seen by functions of torch: " + listed(one.name for one in self.untracked))
        if self.error is not None:
            lines.append(f"the pass ended with {self.error}")
        return "\n".join(lines)

    @property
    def outputs(self) -> tuple[TensorNode, ...]:
        """The tensors in the output of the model."""
        return tuple(dict.fromkeys(nodes_in(self.output)))

    @property
    def untracked(self) -> list[Operation]:
        """What functions of torch do not show: custom autograd functions, TorchScript, numpy."""
        return [one for one in self if one.kind in ("custom", "untracked")]

    def tensor(self, place: "str | TensorNode") -> TensorNode:
        """Returns a tensor by name; without a run number it is that of the last run.

        Raises:
            LayerError: The pass had no such tensor; the message names the nearest ones.
        """
        name = name_of(place, TensorNode)
        if name in self.tensors:
            return self.tensors[name]
        runs = self._runs.get(name)
        if runs is None:
            raise LayerError(_unknown("tensor", name, self.tensors, self._runs))
        return runs

    def operation(self, place: "str | Operation") -> Operation:
        """Returns an operation by name; without a run number it is the last run.

        Raises:
            LayerError: The pass had no such operation.
        """
        name = name_of(place, Operation)
        if name in self.operations:
            return self.operations[name]
        runs = [one for one in self if f"{one.module}/{one.function}" == name]
        if not runs:
            raise LayerError(_unknown("operation", name, self.operations))
        return runs[-1]

    def producer(self, place: "str | TensorNode") -> Operation | None:
        """Returns the operation that made a tensor, None for what the pass began with."""
        name = self.tensor(place).producer
        return None if name is None else self.operations[name]

    def consumers(self, place: "str | TensorNode") -> list[Operation]:
        """Returns the operations that take a tensor, in their order."""
        return self._consumers.get(self.tensor(place).name, [])

    @checked
    def matching(self, pattern: str) -> list[TensorNode]:
        """Returns the results of operations whose names match a pattern such as ``h.*.attn/softmax``.

        ``*`` stands for any characters, ``?`` for one. A pattern without a run number matches all runs.
        """
        fits = name_filter(pattern)
        return [node for node in self.tensors.values() if node.producer is not None and fits(node.name)]

    def networkx(self) -> "nx.DiGraph[Operation | TensorNode]":
        """Returns the bipartite graph: tensors lead to operations that take them, those to their results.

        Nodes are the `Operation` and `TensorNode` objects. Their attribute ``bipartite`` is 0 for operations
        and 1 for tensors, as networkx has it.
        """
        graph: nx.DiGraph[Operation | TensorNode] = nx.DiGraph(name=self.modules[""])
        graph.add_nodes_from(self.tensors.values(), bipartite=1)
        graph.add_nodes_from(self.operations.values(), bipartite=0)
        for operation in self:
            graph.add_edges_from((node, operation) for node in operation.inputs)
            graph.add_edges_from((operation, node) for node in operation.written)
        return graph

    @checked
    def replay(self, values: Values = None, record: Iterable[str | TensorNode] = ()) -> Any:
        """Computes the pass again, operation by operation, and returns the output of the model.

        With the inputs of the pass the output is that of the model bit for bit, also where it used tensors of
        unknown origin. A network that draws random numbers, with dropout for example, draws those of the pass
        again, operation by operation: only what follows from given values is another one, and the difference
        is theirs alone. It is the difference for these random numbers; others need another pass. Parameters
        and buffers count as they are now; buffers are not changed. Gradients flow where they are switched on.

        Args:
            values: Values of tensors in place of those of the pass: inputs as the model takes them, a tensor,
                a tuple or a dictionary; or a dictionary by names of any tensors. All that follows from them
                is computed.
            record: Names of tensors whose values are returned, in place of the output.

        Returns:
            The output as a tensor, or as tuples, lists and dictionaries with tensors; other objects in it,
            such as caches, are None. With ``record`` a dictionary of the values by name.

        Raises:
            ReplayError: The pass failed and has no output; an operation that functions of torch do not show,
                or that cannot take these values; a tensor that may or may not follow from the
                given values; a number that the model read of a tensor with ``item``, and that is another
                one now.
            ShapeError: A value of another shape than in the pass.
            LayerError: A tensor that the pass did not have.

        Example:
            >>> import torch
            >>> from toumei.instrument import instrument
            >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
            >>> with instrument(model) as probe, probe.track() as tracker:
            ...     output = model(torch.ones(1, 3))
            >>> tracker.build_graph().replay({"0/linear": -torch.ones(1, 4)})
            tensor([[0., 0., 0., 0.]])
        """
        wanted = [self.tensor(place) for place in record]
        if self.error is not None and not wanted:
            raise ReplayError(
                f"the pass ended with {self.error} and has no output: name tensors that it had, record=[...]"
            )
        found = replayed(
            operations=list(self),
            begin=[node for node in self.tensors.values() if node.producer is None],
            ends=wanted or list(self.outputs),
            given=self._given(values),
            memory=self.memory,
        )
        return {node.name: found[node] for node in wanted} if wanted else with_values(self.output, found)

    @checked
    def save_dot(self, path: str | Path, *, parameters: bool = False) -> None:
        """Writes the graph as text for Graphviz, or as its picture for a path in .svg, .pdf or .png.

        Operations are nodes in clusters by module, tensors are edges with their shapes.

        Args:
            path: The file.
            parameters: Whether parameters, buffers and constants are nodes too.

        Raises:
            MissingDependencyError: A picture is asked for, and the program ``dot`` is not installed.
        """
        save_dot(self, path, parameters)

    @checked
    def save_html(
        self,
        path: str | Path,
        *,
        tensors: Mapping[str, Any] | None = None,
        focus: "str | TensorNode | Operation | None" = None,
        hops: int = 4,
    ) -> None:
        """Writes the graph as a page that needs no network: modules open by a click, any name can be found.

        Args:
            path: The file.
            tensors: Values of tensors by name, such as the map of a tracker; the page has their histograms.
                Names that the graph has no tensor for, as those of modules, are left out.
            focus: Name of an operation or a tensor; then the page has only what is near it.
            hops: How near: from an operation to its result is a hop, from there to one that takes it another.

        Raises:
            LayerError: The pass had no operation or tensor ``focus``.
        """
        save_page(self._page(tensors, focus, hops), path)

    @checked
    def plot(self, ax: "Axes | None" = None, module: str = "", depth: int = 1) -> "Axes":
        """Returns axes with the modules and operations in a module, and the tensors between them as lines.

        Args:
            ax: Where to draw; by default a new figure of the size that the letters need.
            module: Name of the module, empty for the whole model.
            depth: How many levels are open; with 1 the modules in it are closed boxes.

        Raises:
            LayerError: No such module ran several operations.
        """
        return picture(self, ax, module, depth)

    def _repr_html_(self) -> str:
        return framed(self._page(None, None, 0))

    def _page(
        self, tensors: Mapping[str, Any] | None, focus: "str | TensorNode | Operation | None", hops: int
    ) -> str:
        shown = self._shown(tensors or {})
        if focus is None:
            return graph_page(self, shown)
        if hops < 0:
            raise ArgumentError(f"hops is a whole number from 0 on, got {hops}")
        node = self._node(focus)
        near = neighbourhood(self, self.networkx(), node, hops)
        return graph_page(near, shown, node, f"{counted(hops, 'hop')} around {node.name}")

    def _shown(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Values of tensors of the graph by their full names, without those that have no numbers."""
        found = {}
        for name, value in tensors.items():
            several = value if isinstance(value, list) else [value]
            for one in several:
                if not isinstance(one, Tensor):
                    raise ArgumentError(
                        f"expected a tensor as the value of {name!r}, got {type(one).__name__}"
                    )
            node = self.tensors.get(name) or self._runs.get(name)
            if node is not None and not any(one.is_meta for one in several):
                found[node.name] = value
        return found

    def _node(self, place: "str | TensorNode | Operation") -> TensorNode | Operation:
        """An operation or a tensor by name; a name of both is that of the operation."""
        if isinstance(place, TensorNode):
            return self.tensor(place)
        try:
            return self.operation(place)
        except LayerError:
            if isinstance(place, Operation):
                raise
            return self.tensor(place)

    def _given(self, values: Values) -> dict[TensorNode, Tensor]:
        """Given values by node, which have the shapes of the pass."""
        if not isinstance(values, Mapping):
            several = values if isinstance(values, tuple) else () if values is None else (values,)
            values = dict(enumerate(several))
        found = {}
        for key, value in values.items():
            node = self.tensors.get(f"inputs[{key}]") or self.tensor(key)
            if not isinstance(value, Tensor):
                kind = type(value).__name__
                raise ArgumentError(f"expected a tensor as the value of {node.name!r}, got {kind}")
            if shape_of(value) != node.shape:
                raise ShapeError(
                    f"{node.name!r} had shape {node.shape} in the pass, got {shape_of(value)}: a graph "
                    f"computes passes of the same shapes; run the model"
                )
            found[node] = value
        return found

    @cached_property
    def _runs(self) -> dict[str, TensorNode]:
        """The last run of each operation, by its name without a number, with and without the part."""
        last = {}
        for node in self.tensors.values():
            if node.producer is not None and "@" not in node.name:
                operation, _, part = node.name.partition("#")
                key = operation + part.lstrip("0123456789")
                last[key] = node
                if key.endswith("[0]"):
                    last[operation] = node
                    last[node.name.removesuffix("[0]")] = node
        return last

    @cached_property
    def _consumers(self) -> dict[str, list[Operation]]:
        found: dict[str, list[Operation]] = {}
        for operation in self:
            for node in operation.inputs:
                found.setdefault(node.name, []).append(operation)
        return found


def _unknown(kind: str, name: str, names: Iterable[str], others: Iterable[str] = ()) -> str:
    """Says that there is no such name, and which are near."""
    near = get_close_matches(name, [*names, *others], n=6, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"it had {listed(names, 6) or 'none'}"
    return f"the pass had no {kind} {name!r}: {hint}"


def name_filter(pattern: str) -> Callable[[str], bool]:
    """Returns whether a name of a tensor matches a pattern; see `OperationGraph.matching`.

    Example:
        >>> name_filter("h.*.attn/softmax")("h.3.attn/softmax#0"), name_filter("*/add#1")("fc/add#0")
        (True, False)
    """
    if "#" not in pattern:
        pattern, bracket, part = pattern.partition("[")
        pattern += "#*" + bracket + part
    # brackets are those of parts of outputs, not sets of characters
    fits = re.compile(translate(pattern.replace("[", "[[]"))).match
    return lambda name: fits(name) is not None
