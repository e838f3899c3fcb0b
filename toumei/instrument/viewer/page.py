"""The graph of operations as one page that needs no network: boxes that open, and a panel for each."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ... import plots
from ...core.summaries import counted, shortened
from ..nodes import Operation, TensorNode, with_values
from . import arrangement
from .arrangement import box_width, end_text, end_width, grids, header_width, labels
from .edges import Level, levels
from .grid import Grid
from .histograms import histogram
from .items import ForwardPass, Item
from .tree import module_tree

_OPENED = 60  # most boxes of a page that has just been opened
_LONGEST = 200  # letters of the arguments of an operation
_FOLDER = Path(__file__).parent


def graph_page(
    graph: ForwardPass,
    tensors: Mapping[str, Any] | None = None,
    focus: Operation | TensorNode | None = None,
    summary: str = "",
) -> str:
    """Returns the page of a graph.

    Args:
        graph: The graph, whole or cut out.
        tensors: Values of tensors by name; the page shows their histograms. A value may be a list of the
            tensors of several passes.
        focus: What the page shows first.
        summary: The line below the title; by default what there is.

    Example:
        >>> from torch import nn
        >>> from toumei.instrument import instrument
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     _ = model(torch.rand(1, 3))
        >>> graph_page(tracker.build_graph())[:15]
        '<!DOCTYPE html>'
    """
    numbers = (
        f"{counted(len(graph.operations), 'operation', form=',')}, "
        f"{counted(_parameters(graph), 'parameter', form=',')}"
    )
    error = (
        f'<div class="error">The pass ended with {plots.escaped(graph.error)}</div>' if graph.error else ""
    )
    return plots.page(
        graph.modules.get("", "") or "graph",
        _BODY.replace("<!--error-->", error).replace("<!--legend-->", _legend()),
        summary=summary or numbers,
        style=_file("page.css"),
        script=_file("arrangement.js") + _file("page.js"),
        data=page_data(graph, tensors or {}, focus),
    )


def page_data(
    graph: ForwardPass, tensors: Mapping[str, Any], focus: Operation | TensorNode | None
) -> dict[str, Any]:
    """Returns what the script of the page needs, for JSON."""
    root = module_tree(graph)
    found = levels(root, graph)
    cells = grids(found)
    items = [root, *(child for item in found for child in item.children)]
    number = {item: place for place, item in enumerate(items)}
    operation_of = {operation: place for place, operation in enumerate(graph.operations.values())}
    tensor_of = {node: place for place, node in enumerate(_tensors(graph))}
    sources = {source: place for place, source in enumerate({one.source: None for one in operation_of})}
    ids = {node.name: place for node, place in tensor_of.items()}
    return {
        "sizes": _SIZES,
        "error": graph.error is not None,
        "items": [_item(item, number, operation_of) for item in items],
        "levels": {number[item]: _level(level, cells[item], tensor_of) for item, level in found.items()},
        "sources": list(sources),
        "ops": [_operation(one, sources, tensor_of) for one in operation_of],
        "tensors": [_tensor(node) for node in tensor_of],
        "histograms": {ids[name]: histogram(_joined(tensors[name])) for name in tensors if name in ids},
        "opened": [number[item] for item in _opened(root, focus)],
        "focus": _focus(focus, operation_of, tensor_of),
    }


_SIZES = {
    "height": arrangement.HEIGHT,
    "end": arrangement.END_HEIGHT,
    "header": arrangement.HEADER,
    "padding": arrangement.PADDING,
    "margin": arrangement.MARGIN,
    "lane": arrangement.LANE,
    "gap": arrangement.GAP,
    "bend": arrangement.BEND_GAP,
    "most": arrangement.MOST_GAP,
    "step": arrangement.PORT_STEP,
}


def _tensors(graph: ForwardPass) -> Iterable[TensorNode]:
    """The tensors of a graph, and those that its operations take or make."""
    operations = graph.operations.values()
    used = (node for one in operations for node in [*one.inputs, *one.written])
    return dict.fromkeys([*graph.tensors.values(), *used])


def _parameters(graph: ForwardPass) -> int:
    return sum(prod(node.shape) for node in graph.tensors.values() if node.kind == "parameter")


def _opened(root: Item, focus: object) -> list[Item]:
    """The root, and its children as long as the page does not get crowded; all of what is cut out."""
    inner = [item for item in root.everything() if item.children]
    if focus is not None and sum(len(item.children) for item in inner) <= _OPENED:
        return inner
    found, shown = [root], len(root.children)
    for child in root.children:
        if child.children and shown + len(child.children) <= _OPENED and not child.repeats:
            found.append(child)
            shown += len(child.children)
    return found


def _focus(
    focus: Operation | TensorNode | None,
    operation_of: Mapping[Operation, int],
    tensor_of: Mapping[TensorNode, int],
) -> list[Any] | None:
    if focus is None:
        return None
    if isinstance(focus, Operation):
        return ["operation", operation_of[focus]]
    return ["tensor", tensor_of[focus]]


def _item(item: Item, number: Mapping[Item, int], operation_of: Mapping[Operation, int]) -> list[Any]:
    title, below = labels(item)
    operation = -1 if item.operation is None else operation_of[item.operation]
    first = number[item.children[0]] if item.children else 0
    widths = box_width(item), header_width(item)
    return [title, below, item.path, item.type, operation, first, len(item.children), item.repeats, *widths]


def _level(level: Level, grid: Grid, tensor_of: Mapping[TensorNode, int]) -> list[Any]:
    edges = [[*edge, [tensor_of[node] for node in nodes]] for edge, nodes in level.edges.items()]
    bends = [[number for bend in of_node.items() for number in bend] for of_node in grid.bends]
    ports = [[tensor_of[node] for node in nodes] for nodes in level.ports]
    ends = [] if level.sources else [*range(level.first), *([] if level.out is None else [level.out])]
    return [
        level.sources,
        edges,
        level.leaves,
        grid.rows,
        grid.columns,
        bends,
        ports,
        [end_text(level, node) for node in ends],
        [end_width(level, node) for node in ends],
    ]


def _operation(one: Operation, sources: Mapping[str, int], tensor_of: Mapping[TensorNode, int]) -> list[Any]:
    return [
        one.name,
        one.function,
        one.module,
        one.kind,
        one.in_place,
        sources[one.source],
        float(f"{one.seconds:.3g}"),
        one.nbytes,
        [tensor_of[node] for node in one.inputs],
        [tensor_of[node] for node in one.outputs],
        [tensor_of[after] for after, _ in one.views],
        shortened(_arguments(one), _LONGEST),
        "" if one.value is None else shortened(str(one.value), _LONGEST),
    ]


def _arguments(operation: Operation) -> str:
    """The arguments as they stand in a call, with names in place of tensors."""
    names = {node: _Name(node.name) for node in operation.inputs}
    args, kwargs = with_values((operation.args, operation.kwargs), names)  # type: ignore[arg-type]
    texts = [*((f"{key}=", value) for key, value in kwargs.items())]
    return ", ".join(
        key + shortened(repr(value), 100) for key, value in [*(("", one) for one in args), *texts]
    )


class _Name(str):
    """A name that stands for a tensor."""

    def __repr__(self) -> str:
        return str(self)


def _tensor(node: TensorNode) -> list[Any]:
    dtype = str(node.dtype).removeprefix("torch.")
    return [node.name, node.kind, list(node.shape), dtype, str(node.device), node.nbytes]


def _joined(value: Tensor | Sequence[Tensor]) -> Tensor:
    return value if isinstance(value, Tensor) else torch.cat([one.flatten() for one in value])


def _legend() -> str:
    lines = []
    for kind, meaning in _LEGEND.items():
        box = f'<g class="{kind}"><rect class="box" x="2" y="2" width="32" height="15"/></g>'
        lines.append(f'<div><svg width="36" height="19">{box}</svg>{meaning}</div>')
    return "".join(lines)


@cache
def _file(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


_LEGEND = {
    "module": "module: a click opens it",
    "row": "equal modules in a row",
    "function": "operation",
    "view": "operation whose result shares memory",
    "in_place": "operation that overwrites a tensor",
    "several": "operation with several results",
    "read": "Python reads numbers of a tensor",
    "untracked": "not seen by functions of torch",
    "last": "the last one before the pass failed",
    "end": "input or output of the model",
}

_BODY = """<header><div><!--heading--></div>
<div class="tools">
<label>colour by <select id="shading"><option value="">nothing</option><option>time</option>
<option>memory</option></select></label>
<button id="open">open all</button><button id="close">close all</button><button id="fit">fit</button>
<span class="search"><input id="search" type="search" placeholder="search names ( / )" autocomplete="off">
<div id="results"></div></span>
</div></header>
<!--error-->
<main>
<svg id="graph"><defs>
<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"
 markerUnits="userSpaceOnUse"><path d="M0,1 L8,4 L0,7 z"/></marker>
<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6"
 fill="var(--box)"/><path class="hatch" d="M0,6 L6,0"/></pattern></defs><g id="view"></g></svg>
<details id="legend"><summary>legend</summary><!--legend--></details>
<aside id="panel" hidden><button class="close" id="hide">&times;</button><div id="content"></div></aside>
</main>"""
