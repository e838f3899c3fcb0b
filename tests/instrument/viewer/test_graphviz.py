"""The text for Graphviz can be read, whatever the names are; pictures need the program dot."""

import re

import networkx as nx
import pytest
import torch
from torch import nn

from toumei.core.errors import ArgumentError, MissingDependencyError
from toumei.instrument import instrument
from toumei.instrument.viewer import graphviz

TOKEN = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|(->|[{}\[\];,=])|([A-Za-z_]\w*|[\d.]+))', re.DOTALL)


def tokens(text):
    """Every token of a text in the language of Graphviz: strings, names and signs."""
    at = 0
    while text[at:].strip():
        match = TOKEN.match(text, at)
        assert match, text[at : at + 40]
        at = match.end()
        yield match.group(1) if match.group(1) is not None else match.group(2) or match.group(3)


def read(text):
    """The statements of a text: nodes with their attributes and clusters, edges with theirs."""
    stream = list(tokens(text))
    assert stream[0] == "digraph" and stream.count("{") == stream.count("}")
    nodes, edges, clusters = {}, [], []
    for at, token in enumerate(stream):
        if token == "subgraph":
            clusters.append(stream[at + 1])
        elif token == "}" and clusters:
            clusters.pop()
        elif token == "->":
            edges.append((stream[at - 1], stream[at + 1], stream[at + 5]))
        elif re.fullmatch(r"n\d+|output", token) and stream[at + 1] == "[" and stream[at - 1] != "->":
            end = stream.index("]", at)
            inside = stream[at + 2 : end]
            found = dict(zip(inside[::4], inside[2::4], strict=True))
            nodes[token] = {**found, "cluster": clusters[-1] if clusters else ""}
    return nodes, edges


def graph_of(model, *inputs):
    with torch.no_grad(), instrument(model) as probe, probe.track(only=[]) as tracker:
        model(*inputs)
    return tracker.build_graph()


@pytest.fixture(scope="module")
def graph():
    inner = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    return graph_of(nn.Sequential(inner, nn.Linear(3, 2)), torch.ones(4, 3))


def test_nodes_are_operations_in_the_clusters_of_their_modules(graph):
    nodes, edges = read(graphviz.dot_text(graph))
    drawn = {one["tooltip"]: one["cluster"] for one in nodes.values() if "tooltip" in one}
    assert drawn == {one.name: f"cluster_{one.module}" for one in graph}
    name = {key: one.get("tooltip", one["label"]) for key, one in nodes.items()}
    assert {(name[a], name[b], shape) for a, b, shape in edges} == {
        ("inputs[0]", "0.0/linear#0", "4\u00d73"),
        ("0.0/linear#0", "0.1/relu#0", "4\u00d73"),
        ("0.1/relu#0", "1/linear#0", "4\u00d73"),
        ("1/linear#0", "output", "4\u00d72"),
    }
    assert [one["tooltip"] for one in nodes.values() if "dashed" in one.get("style", "")] == ["0.1/relu#0"]


def test_parameters_are_nodes_on_request(graph):
    nodes, edges = read(graphviz.dot_text(graph, parameters=True))
    labels = [one["label"] for one in nodes.values()]
    for node in graph.tensors.values():
        if node.kind == "parameter":
            assert sum(label.startswith(node.name) for label in labels) == 1
    assert nx.is_directed_acyclic_graph(nx.DiGraph([edge[:2] for edge in edges]))
    assert len(edges) == 4 + 4


@pytest.mark.parametrize(
    "name", ['a"b', "a\\", "{x}<b>[0]|\\N", "\u900f\u660e \U0001f600", "two\nlines", "digraph"]
)
def test_any_name_can_be_read_back(name):
    model = nn.Sequential()
    model.add_module(name, nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    nodes, _ = read(graphviz.dot_text(graph_of(model, torch.ones(1, 2))))
    tips = [one["tooltip"] for one in nodes.values() if "tooltip" in one]
    plain = [re.sub(r"\\(.)", lambda one: {"n": "\n"}.get(one[1], one[1]), tip) for tip in tips]
    assert plain == [f"{name}.0/linear#0", f"{name}.1/relu#0"]


def test_nothing_and_a_pass_that_failed(tmp_path):
    assert read(graphviz.dot_text(graph_of(nn.Identity(), torch.ones(1))))[1] != []
    model = nn.Sequential(nn.ReLU(), nn.Linear(3, 2))
    with instrument(model) as probe, probe.track() as tracker, pytest.raises(RuntimeError):
        model(torch.ones(1, 1))
    assert "output" not in read(graphviz.dot_text(tracker.build_graph()))[0]


def test_files(graph, tmp_path, monkeypatch):
    graph.save_dot(tmp_path / "new" / "graph.dot")
    assert (tmp_path / "new" / "graph.dot").read_text(encoding="utf-8") == graphviz.dot_text(graph)
    monkeypatch.setattr(graphviz, "which", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"\.svg needs Graphviz, and there is no program dot"):
        graph.save_dot(tmp_path / "graph.svg")
    program = tmp_path / "dot"
    program.write_text('#!/bin/sh\ncat > "$0.in"; echo "picture $1"\n')
    program.chmod(0o755)
    monkeypatch.setattr(graphviz, "which", lambda name: str(program))
    graph.save_dot(tmp_path / "graph.PDF", parameters=True)
    assert (tmp_path / "graph.PDF").read_text() == "picture -Tpdf\n"
    assert (tmp_path / "dot.in").read_text(encoding="utf-8") == graphviz.dot_text(graph, parameters=True)
    program.write_text('#!/bin/sh\ncat > /dev/null; echo "too large" >&2; exit 1\n')
    with pytest.raises(ArgumentError, match="could not draw the graph: too large"):
        graph.save_dot(tmp_path / "other.png")
    assert not (tmp_path / "graph.svg").exists() and not (tmp_path / "other.png").exists()
