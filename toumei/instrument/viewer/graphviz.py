"""The graph of operations as text for Graphviz, and as the picture that Graphviz makes of it."""

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from shutil import which

from ...core.errors import ArgumentError, MissingDependencyError
from ...core.files import atomic_write
from ..nodes import Operation, TensorNode
from .items import ForwardPass, activations, shape_text

_PICTURES = (".svg", ".pdf", ".png")
_HEAD = """  rankdir=TB;
  graph [fontname="Helvetica", fontsize=11, color="#8a939b", style=rounded];
  node [fontname="Helvetica", fontsize=10, shape=box, style=rounded, height=0.3];
  edge [fontname="Helvetica", fontsize=8, color="#667078", arrowsize=0.6];"""


def save_dot(graph: ForwardPass, path: str | Path, parameters: bool = False) -> None:
    """Writes a graph as text for Graphviz, or as a picture for a path that ends in .svg, .pdf or .png.

    Args:
        graph: A forward pass.
        path: The file.
        parameters: Draw parameters and buffers too.

    Raises:
        MissingDependencyError: A picture is asked for, and the program ``dot`` is not installed.
        ArgumentError: ``dot`` could not draw the graph.

    Example:
        >>> import torch
        >>> from tempfile import TemporaryDirectory
        >>> from torch import nn
        >>> from toumei.instrument import instrument
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     _ = model(torch.rand(1, 3))
        >>> with TemporaryDirectory() as folder:
        ...     save_dot(tracker.build_graph(), f"{folder}/graph.dot")
        ...     (Path(folder) / "graph.dot").read_text()[:9]
        'digraph "'
    """
    text = dot_text(graph, parameters).encode()
    ending = Path(path).suffix.lower()
    if ending in _PICTURES:
        text = _rendered(text, ending[1:])
    with atomic_write(path) as partial:
        partial.write_bytes(text)


def _rendered(text: bytes, kind: str) -> bytes:
    program = which("dot")
    if program is None:
        raise MissingDependencyError(
            f"a picture as .{kind} needs Graphviz, and there is no program dot: install the package graphviz "
            f"of the system, or write a path that ends in .dot"
        )
    done = subprocess.run([program, f"-T{kind}"], input=text, capture_output=True)
    if done.returncode:
        raise ArgumentError(f"dot could not draw the graph: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def dot_text(graph: ForwardPass, parameters: bool = False) -> str:
    """Returns a graph as text for Graphviz: clusters for modules, and tensors as edges with their shapes.

    Args:
        graph: The graph.
        parameters: Whether parameters, buffers and constants are nodes.

    Example:
        >>> import torch
        >>> from toumei.instrument import instrument
        >>> model = torch.nn.Sequential(torch.nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     output = model(torch.ones(3))
        >>> print(dot_text(tracker.build_graph()).splitlines()[-4])
          n2 -> n0 [label="3"];
    """
    ids = {one: f"n{place}" for place, one in enumerate(graph.operations.values())}
    lines = [f"digraph {quoted(graph.modules.get('', '') or 'graph')} {{", _HEAD]
    lines += _clusters(ids, graph.modules)
    lines += _tensors(graph, ids, parameters)
    return "\n".join([*lines, "}", ""])


def quoted(text: str) -> str:
    r"""Returns any text as a string of Graphviz that is drawn as it is.

    Example:
        >>> print(quoted('a "b" \\N'))
        "a \"b\" \\N"
    """
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", " ").replace("\n", "\\n")
    return f'"{text}"'


def _clusters(ids: Mapping[Operation, str], modules: Mapping[str, str]) -> Iterator[str]:
    """The operations of each module in a box, in the box of the module around it."""
    tree: dict[str, list[Operation]] = {"": []}
    inner: dict[str, dict[str, None]] = {"": {}}
    for operation in ids:
        path = operation.module
        tree.setdefault(path, []).append(operation)
        while path and path not in inner.setdefault(around := path.rpartition(".")[0], {}):
            inner[around][path] = None
            path = around

    def lines(path: str, depth: int) -> Iterator[str]:
        space = "  " * (depth + 1)
        yield from (f"{space}{ids[one]} {_operation(one)};" for one in tree.get(path, ()))
        for module in inner.get(path, ()):
            title = quoted(f"{module.rpartition('.')[2]}  {modules.get(module, '')}")
            yield f"{space}subgraph {quoted(f'cluster_{module}')} {{"
            yield f"{space}  label={title};"
            yield from lines(module, depth + 1)
            yield f"{space}}}"

    yield from lines("", 0)


def _operation(operation: Operation) -> str:
    looks = [f"label={quoted(operation.function)}", f"tooltip={quoted(operation.name)}"]
    if operation.in_place:
        looks.append('style="rounded,dashed"')
    if operation.kind != "function":
        looks.append('color="#d55e00"')
    return f"[{', '.join(looks)}]"


def _tensors(graph: ForwardPass, ids: Mapping[Operation, str], parameters: bool) -> Iterator[str]:
    """Edges for tensors between operations; nodes for inputs and the output, and for parameters."""
    made = {node: ids[one] for one in ids for node in one.written}
    drawn = graph.tensors.values() if parameters else activations(graph.tensors.values())
    for node in drawn:
        if node not in made:
            made[node] = f"n{len(ids) + len(made)}"
            yield f"  {made[node]} {_source(node)};"
    for operation, end in ids.items():
        for node in operation.inputs:
            if node in made:
                yield f"  {made[node]} -> {end} [label={quoted(shape_text(node))}];"
    if graph.outputs:
        yield '  output [label="output", shape=oval, style=filled, fillcolor="#eeeeee"];'
        for node in graph.outputs:
            if node in made:
                yield f"  {made[node]} -> output [label={quoted(shape_text(node))}];"


def _source(node: TensorNode) -> str:
    if node.kind in ("input", "result"):
        return f'[label={quoted(node.name)}, shape=oval, style=filled, fillcolor="#eeeeee"]'
    label = quoted(f"{node.name}\n{shape_text(node)}")
    return f'[label={label}, shape=plaintext, fontsize=7, height=0.15, fontcolor="#667078"]'
