"""Clusterings, their quality and null models: published numbers, networkx, and planted modules."""

import sys
from itertools import pairwise

import networkx as nx
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch import nn

from toumei.core.errors import ArgumentError, MissingDependencyError, ShapeError
from toumei.misc import CNNGraph, MLPGraph, ModelGraph
from toumei.misc.modularity import (
    Block,
    NullTest,
    WeightGraph,
    chain,
    correlation_graph,
    in_out_ratio,
    laplacian_eigenpairs,
    lesion_test,
    modularity,
    modularity_by_cluster,
    ncut,
    ncut_by_cluster,
    null_test,
    spectral_partition,
)
from toumei.models import SimpleCNN, SimpleMLP


def glorot(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = []
    for before, after in pairwise(sizes):
        weight = torch.empty(after, before)
        nn.init.xavier_uniform_(weight, generator=generator)
        weights.append(weight)
    return weights


def modular(sizes, modules, cross, seed=0):
    """Random weights in diagonal blocks, those between modules times `cross`, and the module of each unit."""
    owners = [torch.arange(size) * modules // size for size in sizes]
    weights = [
        weight * torch.where(after[:, None] == before, 1.0, cross)
        for weight, before, after in zip(glorot(sizes, seed), owners[:-1], owners[1:], strict=True)
    ]
    return chain(map(str, range(len(sizes))), weights), torch.cat(owners)


def graph_of(matrix):
    matrix = torch.as_tensor(matrix, dtype=torch.float64)
    return WeightGraph(("nodes",), (len(matrix),), (Block(0, 0, matrix),))


def random_graph(seed=0):
    graph = chain("abc", glorot((7, 6, 5), seed)).to(torch.float64)
    return graph, torch.randint(3, (18,), generator=torch.Generator().manual_seed(seed))


def test_a_barbell_has_the_modularity_of_the_textbook():
    graph = graph_of(nx.to_numpy_array(nx.barbell_graph(3, 0)))
    assert modularity(graph, [0, 0, 0, 1, 1, 1]) == pytest.approx(5 / 14, abs=1e-12)


@pytest.mark.parametrize("resolution", [0.5, 1.0, 2.0])
def test_quality_agrees_with_networkx(resolution):
    graph, labels = random_graph()
    network = nx.from_numpy_array(graph.adjacency().numpy())
    clusters = [set((labels == label).nonzero().flatten().tolist()) for label in range(3)]
    expected = nx.community.modularity(network, clusters, resolution=resolution)
    assert modularity(graph, labels, resolution) == pytest.approx(expected, abs=1e-12)
    cuts = [
        nx.cut_size(network, members, weight="weight") / nx.volume(network, members, weight="weight")
        for members in clusters
    ]
    assert ncut(graph, labels) == pytest.approx(sum(cuts), abs=1e-12)
    torch.testing.assert_close(ncut_by_cluster(graph, labels), torch.tensor(cuts, dtype=torch.float64))
    assert float(modularity_by_cluster(graph, labels, resolution).sum()) == pytest.approx(expected, abs=1e-12)


def test_two_clusters_have_the_normalized_cut_of_networkx():
    graph, labels = random_graph()
    labels = labels.clamp(max=1)
    members = set((labels == 0).nonzero().flatten().tolist())
    expected = nx.normalized_cut_size(
        nx.from_numpy_array(graph.adjacency().numpy()), members, weight="weight"
    )
    assert ncut(graph, labels) == pytest.approx(expected, abs=1e-12)


def test_the_in_out_ratio_follows_from_the_cut():
    graph, labels = random_graph()
    n, k = ncut(graph, labels), 3
    assert in_out_ratio(graph, labels) == pytest.approx((1 - n / k) / (2 * n / k))


def test_modules_without_connections_are_not_cut():
    graph, owners = modular((12, 8, 4), 2, 0.0)
    assert ncut(graph, owners) == pytest.approx(0, abs=1e-12)
    assert in_out_ratio(graph, owners) > 1e10


def test_isolated_units_change_nothing():
    graph, labels = random_graph()
    wider = WeightGraph(
        (*graph.layers, "dead"), (*graph.sizes, 2), (*graph.blocks, Block(2, 3, torch.zeros(2, 5).double()))
    )
    padded = torch.cat([labels, torch.tensor([-1, -1])])
    assert ncut(wider, padded) == pytest.approx(ncut(graph, labels))
    assert modularity(wider, padded) == pytest.approx(modularity(graph, labels))
    found = spectral_partition(wider, 3)
    assert found.isolated == ["dead:0", "dead:1"] and found.labels[-2:].tolist() == [-1, -1]
    assert torch.equal(found.labels[:-2], spectral_partition(graph, 3).labels)


@pytest.mark.parametrize("sizes", [(40, 30, 20), (200, 150, 100)], ids=["dense", "iterative"])
def test_eigenvalues_are_those_of_the_laplacian(sizes):
    graph = chain("abc", glorot(sizes, 1)).to(torch.float64)
    matrix = graph.adjacency()
    root = matrix.sum(0).rsqrt()
    laplacian = torch.eye(len(matrix)) - root[:, None] * matrix * root
    values, vectors = laplacian_eigenpairs(graph, 6)
    torch.testing.assert_close(values, torch.linalg.eigvalsh(laplacian)[:6], atol=1e-6, rtol=0)
    torch.testing.assert_close(laplacian @ vectors, vectors * values, atol=2e-5, rtol=0)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(6).double(), atol=1e-8, rtol=0)


def test_eigenvalues_of_several_graphs_at_once_are_those_of_each():
    graphs = [chain("abc", glorot((200, 150, 100), seed)) for seed in range(3)]
    blocks = tuple(
        Block(one.source, one.target, torch.stack([graph.blocks[index].weight for graph in graphs]))
        for index, one in enumerate(graphs[0].blocks)
    )
    together, _ = laplacian_eigenpairs(WeightGraph(graphs[0].layers, graphs[0].sizes, blocks), 5)
    for graph, values in zip(graphs, together, strict=True):
        torch.testing.assert_close(values, laplacian_eigenpairs(graph, 5)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("modules", [2, 3, 4])
@pytest.mark.parametrize("sizes", [(24, 24, 24, 24), (120, 120, 96, 60)], ids=["dense", "iterative"])
def test_known_modules_are_found(modules, sizes):
    graph, owners = modular(sizes, modules, 0.0)
    assert adjusted_rand_score(owners, spectral_partition(graph, modules).labels) == 1
    assert spectral_partition(graph).n_clusters == modules
    graph, owners = modular(sizes, modules, 0.1)
    assert adjusted_rand_score(owners, spectral_partition(graph, modules).labels) >= 0.95
    assert null_test(graph, modules, samples=10).z < -5


def test_random_networks_are_as_modular_as_chance():
    scores = [null_test(chain("abcd", glorot((16, 16, 16, 8), s)), 3, samples=12, seed=s).z for s in range(8)]
    assert sum(abs(z) < 3 for z in scores) >= 7


def test_a_published_cut_of_untrained_networks():
    """Filan et al. (2021): 10.295 +- 0.032 for Glorot-uniform 784-256x4-10 and 12 clusters."""
    cuts = []
    for seed in range(4):
        graph = chain("abcdef", glorot((784, 256, 256, 256, 256, 10), seed))
        cuts.append(ncut(graph, spectral_partition(graph, 12, seed).labels))
    assert sum(cuts) / 4 == pytest.approx(10.295, abs=0.06)


def test_a_null_test_shuffles_and_counts():
    graph, _ = modular((12, 12, 12), 2, 0.05)
    result = null_test(graph, 2, samples=30, seed=3)
    assert result.value == pytest.approx(ncut(graph, spectral_partition(graph, 2, 3).labels))
    assert result.p == pytest.approx((int((result.samples <= result.value).sum()) + 1) / 31)
    assert torch.equal(result.samples, null_test(graph, 2, samples=30, seed=3).samples)
    assert null_test(graph, 2, samples=10, measure="modularity").z > 3


def test_holes_stay_where_they_are_when_only_nonzero_weights_are_shuffled():
    graph, _ = modular((12, 12, 12), 2, 0.0)
    everywhere = null_test(graph, 2, samples=10)
    in_place = null_test(graph, 2, samples=10, shuffle="layer-nonzero")
    assert in_place.samples.max() < 1e-6 < everywhere.samples.min()


def test_a_null_test_is_saved_and_drawn(tmp_path):
    graph, _ = modular((12, 12), 2, 0.1)
    result = null_test(graph, 2, samples=5)
    result.save(tmp_path / "new" / "null.safetensors")
    loaded = NullTest.load(tmp_path / "new" / "null.safetensors")
    assert torch.equal(loaded.samples, result.samples) and repr(loaded) == repr(result)
    axes = result.plot()
    assert axes.get_xlabel() == "normalized cut" and axes.get_title().startswith(result.verdict)


@pytest.mark.parametrize(("value", "words"), [(0.5, "more modular"), (1.5, "not more modular")])
def test_a_null_test_says_in_words_what_it_found(value, words):
    result = NullTest("ncut", value, torch.linspace(1, 2, 50), 2)
    assert result.verdict == f"{words} than shuffled" and f" {words} than" in f" {result!r}"


def test_a_notebook_shows_the_weights_of_a_graph():
    graph = WeightGraph.from_model(SimpleMLP(4, 8, 2))
    assert graph._drawn().get_title() == "" and len(graph._drawn().images) == 2
    assert "data:image/png" in graph._repr_html_() and "14 units" in graph._repr_html_()
    several = WeightGraph(("a", "b"), (2, 4), (Block(0, 1, torch.ones(3, 4, 2)),))
    assert "data:image/png" not in several._repr_html_()


def test_correlations_are_those_of_scipy():
    from scipy.stats import spearmanr

    torch.manual_seed(0)
    model = SimpleMLP(5, 4, 3)
    inputs = torch.randn(60, 5)
    graph = correlation_graph(model, ["fc0", "fc1"], inputs)
    hidden = model.fc0(inputs)
    values = torch.cat([hidden, model.fc1(hidden.relu())], 1).detach().numpy()
    expected = torch.as_tensor(spearmanr(values).statistic).square().fill_diagonal_(0)
    torch.testing.assert_close(graph.adjacency().double(), expected)


def planted_network(watched):
    """Two halves; each decides between two of four classes, on other inputs than the other half."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        for layer in (model[0], model[2], model[4]):
            layer.bias.zero_()
            out, into = layer.weight.shape
            layer.weight.copy_(torch.eye(4).repeat_interleave(out // 4, 0).repeat_interleave(into // 4, 1))
    return watched(model)


def test_lesions_of_what_decides_hurt_and_are_told_from_random_ones(watched):
    model = planted_network(watched)
    inputs = torch.eye(4).repeat(50, 1) + 0.01 * torch.rand(200, 4)
    targets = torch.arange(4).repeat(50)
    graph = WeightGraph.from_model(model)
    labels = spectral_partition(graph, 4).labels
    result = lesion_test(model, graph, labels, inputs, targets, samples=50)
    assert result.score == 1
    assert {lesion.layer for lesion in result.lesions} == {"0", "2"} and len(result.lesions) == 8
    for lesion in result.lesions:
        assert lesion.units == 2 and lesion.drop == pytest.approx(0.25)
        assert lesion.random_mean < lesion.drop and lesion.p < 0.5
    assert result.p < 0.05
    nothing = lesion_test(
        model, graph, labels, inputs, targets, samples=10, score=lambda o, t: torch.ones(len(o))
    )
    assert all(lesion.drop == 0 and lesion.p == 1 for lesion in nothing.lesions)


def test_graphs_are_real_networkx_graphs():
    graph = MLPGraph(SimpleMLP(4, 3, 2))
    assert graph.number_of_nodes() == 9 and graph.number_of_edges() == 4 * 3 + 3 * 2
    assert set(graph.neighbors("fc0:1")) == {f"input:{i}" for i in range(4)} | {"fc1:0", "fc1:1"}
    copy = graph.copy()
    assert isinstance(copy, MLPGraph) and nx.utils.graphs_equal(copy, graph)
    part = graph.subgraph(["fc0:0", "fc1:0", "fc1:1"])
    assert part.number_of_edges() == 2
    copy.remove_node("fc0:0")
    assert copy.number_of_edges() == graph.number_of_edges() - 6
    assert len(nx.multipartite_layout(graph)) == 9 and nx.is_connected(graph)
    assert nx.community.louvain_communities(graph, seed=0)


def test_edges_are_the_weights_of_the_model():
    model = SimpleMLP(4, 3, 2)
    edges = {(u, v): weight for u, v, weight in MLPGraph(model).edges(data="weight")}
    for i in range(3):
        for j in range(4):
            value = edges.get((f"input:{j}", f"fc0:{i}"), edges.get((f"fc0:{i}", f"input:{j}")))
            assert value == pytest.approx(abs(model.fc0.weight[i, j].item()))


@pytest.mark.parametrize("method", ["spectral", "louvain", "greedy", "leiden"])
def test_every_method_finds_planted_communities(method):
    if method == "leiden":
        pytest.importorskip("igraph", reason="the Leiden method is an extra: pip install toumei[leiden]")
    weights, owners = modular((12, 12, 12), 3, 0.02)
    graph = ModelGraph(weights)
    found = graph.get_model_modularity(method=method)
    planted = {
        frozenset(n for n, owner in zip(weights.nodes(), owners, strict=True) if owner == c) for c in range(3)
    }
    assert set(map(frozenset, found.communities)) == planted
    assert found.modularity == pytest.approx(nx.community.modularity(graph, found.communities))


def test_leiden_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "igraph", None)
    with pytest.raises(MissingDependencyError, match="pip install igraph"):
        MLPGraph(SimpleMLP(4, 4)).get_model_modularity(method="leiden")


def test_a_changed_graph_is_the_one_that_is_measured():
    weights, _ = modular((12, 12, 12), 3, 0.0)
    graph = ModelGraph(weights)
    whole = graph.get_model_modularity()
    graph.remove_nodes_from(whole.communities[0])
    assert len(graph.get_model_modularity().communities) == 2


def test_the_first_lines_of_a_user():
    for graph in (MLPGraph(SimpleMLP(4, 4)), CNNGraph(SimpleCNN(1, 10))):
        quality = graph.get_model_modularity()
        communities = quality.communities
        assert -0.5 <= quality <= 1 and 0 <= quality.ncut <= len(communities)
        assert set().union(*communities) == set(graph)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (
            lambda: spectral_partition(chain("ab", [torch.ones(3, 2)]), 6),
            "from 1 to 5, the units with edges, got 6",
        ),
        (
            lambda: ncut(chain("ab", [torch.ones(3, 2)]), [0, 0, 0, 0, -1]),
            "'b:2' has edges, but belongs to no",
        ),
        (lambda: null_test(chain("ab", [torch.ones(3, 2)]), 2, samples=1), "at least 2 samples, got 1"),
        (lambda: null_test(chain("ab", [torch.ones(3, 2)]), 2, shuffle="all"), "shuffle is one of"),
        (lambda: MLPGraph(SimpleCNN(1, 2)), "'conv0' is a convolution"),
        (lambda: CNNGraph(SimpleMLP(2, 2)), "needs at least two convolutions"),
        (lambda: MLPGraph(SimpleMLP(2, 2)).get_model_modularity(method="metis"), "method is one of"),
        (lambda: MLPGraph(SimpleMLP(2, 2)).get_model_modularity(3, "louvain"), "chooses the number"),
        (lambda: correlation_graph(SimpleMLP(2, 2), ["fc0"], torch.ones(2, 2)), "at least 3 inputs"),
    ],
)
def test_bad_arguments_say_what_is_wrong(action, message):
    with pytest.raises(ArgumentError, match=message):
        action()


def test_labels_must_fit():
    with pytest.raises(ShapeError, match="a label for each of 5 nodes, got"):
        ncut(chain("ab", [torch.ones(3, 2)]), [0, 1])


def test_a_graph_in_two_pieces_is_cut_between_them():
    graph, owners = modular((6, 6), 2, 0.0)
    values, _ = laplacian_eigenpairs(graph, 3)
    assert values[1] < 1e-6 < values[2]
    assert adjusted_rand_score(owners, spectral_partition(graph, 2).labels) == 1
