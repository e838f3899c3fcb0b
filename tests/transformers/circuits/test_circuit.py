"""Circuits as sets of edges: names, graphs of networkx, random ones, files, pictures, pages."""

import json
import re

import networkx as nx
import pytest
import torch
from plain_edges import ANSWERS, CLEAN, CORRUPT, WRONG

from toumei.core.errors import ArgumentError
from toumei.transformers import HookedModel, logit_difference
from toumei.transformers.circuits import Circuit, attribution_graph


@pytest.fixture
def graph(language_model):
    """Three layers of four heads; two heads share keys and values."""
    model = HookedModel(language_model("llama"))
    return attribution_graph(model, CLEAN, CORRUPT, logit_difference(ANSWERS, WRONG), "eap")


def test_nodes_and_edges_have_the_order_of_the_model(graph):
    assert graph.writers == ("embed", *(f"a0.{head}" for head in range(4)), "m0", *graph.writers[6:])
    assert graph.readers[:9] == (
        *("a0.0<q>", "a0.1<q>", "a0.2<q>", "a0.3<q>"),
        *("a0.0-1<k>", "a0.2-3<k>", "a0.0-1<v>", "a0.2-3<v>", "m0"),
    )
    circuit = graph.prune(share=1.0)
    wired = circuit.to_networkx()
    assert len(circuit) == 8 * (1 + 6 + 11) + 5 + 10 + 15 + 16 == int(graph.allowed.sum())
    assert nx.is_directed_acyclic_graph(wired) and nx.has_path(wired, "a0.1<q>", "a0.1")
    assert wired.nodes["a1.0-1<k>"] == {"kind": "head", "layer": 1, "input": "k"}
    assert wired.edges["embed", "m0"]["score"] == graph["embed->m0"] == graph["embed", "m0"]
    assert set(wired.successors("a1.0-1<k>")) == {"a1.0", "a1.1"}


def test_the_strongest_edges_are_kept(graph):
    circuit = graph.prune(edges=5)
    assert circuit.edges == tuple(name for name, _ in graph.top(5))
    smallest = abs(graph.top(5)[-1][1])
    assert graph.prune(threshold=smallest).edges == circuit.edges
    assert len(graph.prune(share=0.1)) == round(0.1 * len(graph))
    given = circuit.with_edges(["embed->m0", "m0->logits"])
    assert given.nodes == ("embed", "m0", "logits") and len(given.without("m0")) == 1
    with pytest.raises(ArgumentError, match="no edge from 'm1' to 'm0'"):
        circuit.with_edges(["m1->m0"])
    with pytest.raises(ArgumentError, match="nodes that write"):
        circuit.without(["logits"])


def test_random_circuits_have_the_same_size_and_only_edges_of_the_model(graph):
    circuit = graph.prune(edges=20)
    drawn = [circuit.random(seed) for seed in range(3)]
    assert all(len(one) == 20 and not bool((one.kept & ~one.allowed).any()) for one in drawn)
    assert not torch.equal(drawn[0].kept, drawn[1].kept)
    assert torch.equal(drawn[0].kept, circuit.random(0).kept)


def test_circuits_are_kept(graph, tmp_path):
    circuit = graph.prune(edges=20)
    circuit.save(tmp_path / "circuit.safetensors")
    loaded = Circuit.load(tmp_path / "circuit.safetensors")
    assert loaded.edges == circuit.edges and loaded.found_by == "strongest by eap"
    nodes = len(circuit.nodes)
    assert repr(loaded) == f"Circuit(20 of 190 edges, {nodes} nodes, strongest by eap)"


def test_a_picture_has_a_curve_for_each_edge(graph):
    axes = graph.prune(edges=12).plot()
    curves = [patch for patch in axes.patches if type(patch).__name__ == "FancyArrowPatch"]
    assert len(curves) >= 12
    names = {text.get_text() for text in axes.texts}
    assert names == {label.removeprefix("a") for label in drawn(graph.prune(edges=12))}
    assert graph.plot(edges=3).get_title().startswith("3 of 190 edges")
    assert graph.prune(edges=0).plot() is not None


def drawn(circuit):
    """The labels of nodes of a circuit, of heads that share an input those that go on, or all."""
    lines = circuit._sketch(None).lines
    return {label for line in lines for label in (line.writer, line.reader)}


def test_a_page_has_all_edges_in_itself(graph, tmp_path):
    graph.save_html(tmp_path / "circuit.html", edges=30)
    text = (tmp_path / "circuit.html").read_text()
    data = json.loads(re.search(r"const data = (.*);\n", text)[1])
    assert data["edges"] == list(graph.prune(edges=30).edges)
    assert {data["nodes"][line["from"]]["label"] for line in data["lines"]} <= set(graph.writers)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert graph._repr_html_().startswith("<iframe")
