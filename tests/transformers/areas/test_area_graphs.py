"""Graphs of areas: sums of weights, both categories on one edge, correlations of components."""

from collections import Counter
from itertools import pairwise

import networkx as nx
import pytest
import torch
from area_helpers import areas_of, random_areas
from scipy.stats import spearmanr

from toumei.core.errors import ArgumentError


def counted(areas, category):
    """The edges of a category, counted text by text."""
    found = Counter()
    for text in areas.in_category(category).nonzero()[:, 0].tolist():
        path = [f"{layer}_{x}_{y}" for layer, (x, y) in enumerate(areas.cells[:, text].tolist())]
        found.update(pairwise(path))
    return found


@pytest.mark.parametrize("category", [None, "a", 1])
def test_weights_are_the_numbers_of_texts(category):
    areas = random_areas(texts=61)
    graph = areas.graph(category)
    assert dict(counted(areas, category)) == {(one, two): w for one, two, w in graph.edges(data="weight")}
    texts = int(areas.in_category(category).sum())
    for layer in range(3):
        nodes = [node for node, data in graph.nodes(data=True) if data["layer"] == layer]
        assert sum(graph.nodes[node]["texts"] for node in nodes) == texts
        leaving = sum(weight for _, weight in graph.out_degree(nodes, "weight"))
        arriving = sum(weight for _, weight in graph.in_degree(nodes, "weight"))
        assert leaving == (texts if layer < 2 else 0) and arriving == (texts if layer else 0)
    for node, data in graph.nodes(data=True):
        counts = areas.counts(data["layer"], category)
        assert data["texts"] == int(counts[data["y"], data["x"]]), node


def test_composed_graphs_keep_the_weights_of_both():
    areas = random_areas()
    both = areas.graph(["b", "a"])
    single = {name: areas.graph(name) for name in "ab"}
    assert both.graph["label_names"] == ["b", "a"]
    assert set(both.edges) == set(single["a"].edges) | set(single["b"].edges)
    for one, two, data in both.edges(data=True):
        weights = {name: (single[name].get_edge_data(one, two) or {"weight": 0})["weight"] for name in "ab"}
        assert data["weights"] == weights and data["weight"] == sum(weights.values())
        assert data["share"] == weights["a"] / data["weight"] and data["overlap"] == all(weights.values())
    assert any(data["overlap"] for *_, data in both.edges(data=True))


def test_categories_of_a_graph_are_one_or_two_different_ones():
    areas = random_areas()
    for wrong in (["a", "a"], ["a", "b", "a"], []):
        with pytest.raises(ArgumentError, match="one category or two different ones"):
            areas.graph(wrong)
    assert nx.utils.graphs_equal(areas.graph(["a"]), areas.graph("a"))
    assert nx.utils.graphs_equal(areas.graph([0, 1]), areas.graph(["a", "b"]))


def components(texts=50, count=3):
    """Coordinates of two layers: component 2 of the first is 0 of the next, 1 is 1 with the other sign."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, texts, count, generator=generator, dtype=torch.float64)
    second[:, 0], second[:, 1] = first[:, 2], -first[:, 1]
    return torch.stack([first, second])


def test_components_that_rise_together_have_an_edge_with_the_sign():
    areas = areas_of(components(), torch.arange(50) % 2)
    graph = areas.graph(threshold=0.6)
    assert set(graph.edges) == {("0_2", "1_0"), ("0_1", "1_1")} and len(graph) == 6
    assert graph.edges["0_2", "1_0"]["weights"] == {"all texts": pytest.approx(1.0)}
    edge = graph.edges["0_1", "1_1"]
    assert edge["weight"] == pytest.approx(1.0) and edge["weights"]["all texts"] == pytest.approx(-1.0)
    both = areas.graph(["a", "b"], threshold=0.6).edges["0_2", "1_0"]
    assert both["share"] == 0.5 and both["overlap"]


def test_correlations_are_those_of_scipy_also_with_ties():
    coordinates = components().mul(1.5).round()
    areas = areas_of(coordinates, torch.arange(50) % 2)
    chosen = areas.in_category("a")
    graph = areas.graph("a", threshold=0.0)
    for first in range(3):
        for second in range(3):
            rho = spearmanr(coordinates[0, chosen, first], coordinates[1, chosen, second]).statistic
            assert graph.edges[f"0_{first}", f"1_{second}"]["weights"]["a"] == pytest.approx(rho)


def test_too_few_texts_and_thresholds_that_are_none():
    areas = areas_of(components(5), [0, 0, 0, 1, 1])
    with pytest.raises(ArgumentError, match="'b' has 2 texts"):
        areas.graph("b")
    with pytest.raises(ArgumentError, match="threshold is a correlation"):
        areas.graph("a", threshold=1.5)
