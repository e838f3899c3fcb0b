"""Numbers of graphs against NetworkX, SciPy and pandas' formulas."""

import networkx as nx
import numpy as np
import pytest
from area_helpers import random_areas
from scipy.stats import kurtosis, skew

from toumei.core.errors import ArgumentError
from toumei.transformers.areas import Metrics, graph_metrics


@pytest.mark.parametrize("category", ["a", ["a", "b"]])
def test_numbers_are_those_of_networkx_and_scipy(category):
    graph = random_areas(texts=90).graph(category)
    plain = graph.to_undirected()
    found = graph_metrics(graph)
    for name, weight in (("degree", None), ("strength", "weight")):
        numbers = [value for _, value in plain.degree(weight=weight)]
        assert found[f"mean_{name}"] == pytest.approx(np.mean(numbers))
        assert found[f"var_{name}"] == pytest.approx(np.var(numbers, ddof=1))
        assert found[f"skew_{name}"] == pytest.approx(skew(numbers, bias=False))
        assert found[f"kurt_{name}"] == pytest.approx(kurtosis(numbers, bias=False))
    assert found["density"] == pytest.approx(nx.density(plain))
    expected = nx.degree_assortativity_coefficient(plain, weight="weight")
    assert found["assortativity"] == pytest.approx(expected)
    layers = [data["layer"] for _, data in graph.nodes(data=True)]
    assert found["center_of_mass"] == pytest.approx(np.mean(layers) - 1)


def test_the_centre_of_strength_is_where_strengths_differ():
    graph = nx.DiGraph(layers=("0", "1", "2"))
    graph.add_weighted_edges_from([("0_0_0", "1_0_0", 5), ("0_0_0", "1_0_1", 5)])
    graph.add_weighted_edges_from([("1_0_0", "2_0_0", 1), ("1_0_1", "2_0_1", 9)])
    # within layers the strengths are 10; 6 and 14; 1 and 9: equal spreads of 4 in layers 1 and 2
    assert graph_metrics(graph)["center_of_strength"] == pytest.approx(0.5)


def test_what_is_not_defined_is_nan_without_a_warning():
    graph = nx.DiGraph(layers=("0", "1"))
    graph.add_edge("0_0_0", "1_0_0", weight=2)
    found = graph_metrics(graph)
    assert found["density"] == 1 and found["mean_strength"] == 2
    assert np.isnan([found[name] for name in ("assortativity", "skew_degree", "center_of_strength")]).all()
    assert all(np.isnan(value) for value in graph_metrics(nx.DiGraph(layers=("0",))).values() if value)


def test_metrics_under_the_names_of_llm_mri():
    graph = random_areas().graph("a")
    found = Metrics(graph, "gpt2", "a").get_basic_metrics()
    assert found.pop("model_name") == "gpt2" and found.pop("label") == "a"
    assert found == pytest.approx(graph_metrics(graph))
    with pytest.raises(ArgumentError, match="expected a graph of get_graph"):
        Metrics(nx.path_graph(3), "gpt2", "a")
