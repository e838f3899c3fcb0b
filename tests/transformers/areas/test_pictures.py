"""Pictures say what the numbers are."""

import networkx as nx
import pytest
import torch
from area_helpers import areas_of, random_areas
from matplotlib.collections import LineCollection

from toumei.core.errors import ArgumentError
from toumei.transformers.areas import plot_graph


def test_maps_write_the_number_of_texts_into_cells_y_upwards():
    areas = areas_of(torch.tensor([[[0.0, 0.0], [0.0, 0.0], [9.0, 9.0], [9.0, 0.0]]]), [0, 0, 0, 1])
    axes = areas.plot(0, "a")
    assert axes.get_title() == "a in layer 0, embedding: 3 texts"
    written = {(text.get_position(), text.get_text()) for text in axes.texts}
    assert written == {((0.5, 0.5), "2"), ((3.5, 3.5), "1")}
    low, high = axes.get_ylim()
    assert low < high


def test_points_are_those_of_each_category():
    areas = random_areas()
    axes = areas.plot_points("first")
    drawn = [torch.tensor(one.get_offsets().tolist()) for one in axes.collections]
    assert [len(one) for one in drawn] == [30, 30]
    assert torch.allclose(drawn[1].double(), areas.coordinates[1, areas.labels == 1], atol=1e-5)
    assert random_areas(components=3).plot_points().get_title() == "second, pca"


@pytest.mark.parametrize("fixed", [True, False])
def test_graphs_have_a_line_for_each_edge_wider_for_more_texts(fixed):
    graph = random_areas().graph(["a", "b"])
    axes = plot_graph(graph, fix_node_positions=fixed)
    (lines,) = (one for one in axes.collections if isinstance(one, LineCollection))
    weights = sorted(weight for *_, weight in graph.edges(data="weight"))
    widths = lines.get_linewidths()
    assert len(widths) == len(weights) and list(widths) == sorted(widths)
    assert widths[-1] / widths[0] > weights[-1] / weights[0] / 2
    layers = {round(x) for segment in lines.get_segments() for x, _ in segment}
    assert layers == {0, 1, 2}


def test_each_cell_has_one_place_in_all_graphs():
    areas = random_areas()
    first, second = (plot_graph(areas.graph(name)) for name in "ab")
    assert first.get_ylim() == second.get_ylim() and first.get_xlim() == second.get_xlim()
    nodes = {name: areas.graph(name) for name in "ab"}
    places = {}
    for name, axes in (("a", first), ("b", second)):
        offsets = axes.collections[1].get_offsets().tolist()
        places[name] = dict(zip(nodes[name], map(tuple, offsets), strict=True))
    shared = set(places["a"]) & set(places["b"])
    assert shared and all(places["a"][node] == places["b"][node] for node in shared)


def test_curves_of_comparisons():
    found = random_areas().compare("a", "b", permutations=9)
    axes = found.plot()
    assert torch.allclose(torch.tensor(axes.lines[1].get_ydata()), found.distances)


def test_what_cannot_be_drawn():
    graph = random_areas().graph("a")
    with pytest.raises(ArgumentError, match="no colour map 'cool-warm'"):
        plot_graph(graph, "cool-warm")
    with pytest.raises(ArgumentError, match="a graph of get_graph"):
        plot_graph(nx.DiGraph())
    with pytest.raises(ArgumentError, match="no edges to draw"):
        plot_graph(random_areas(layers=1).graph("a"))
