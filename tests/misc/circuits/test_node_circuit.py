"""Circuits of nodes as results: pruned, compared with known ones, drawn, kept."""

import pytest
import torch

from toumei.core.errors import ArgumentError
from toumei.misc.circuits import Faithfulness, NodeCircuit


@pytest.fixture
def circuit():
    return NodeCircuit(
        nodes=("0.0", "0.1", "mlp.0", "1.0"),
        values=torch.tensor([[1.0, 0.0, -4.0, 0.5], [3.0, 0.0, -2.0, 0.5]]),
        sites=("heads 0", "heads 0", "mlp.0", "heads 1"),
        full=torch.tensor([2.0, 3.0]),
        empty=torch.tensor([4.5, 1.5]),
        edges=(("0.0", "mlp.0"), ("mlp.0", "1.0"), ("mlp.0", "output")),
        weights=torch.tensor([2.0, -1.0, -3.0]),
        method="deep_lift",
        complete=True,
        passes=4.0,
        backward_passes=1.0,
    )


def test_the_strongest_nodes_come_first_whatever_their_sign(circuit):
    assert circuit.order == ("mlp.0", "0.0", "1.0", "0.1") and circuit["mlp.0"] == -3
    assert circuit.gap.tolist() == [0, 0]


def test_pruning_keeps_the_order_of_the_pass_and_the_edges_between_what_is_kept(circuit):
    small = circuit.prune(2)
    assert small.nodes == ("0.0", "mlp.0") and small.edges == (("0.0", "mlp.0"), ("mlp.0", "output"))
    assert small.weights.tolist() == [2, -3] and small.gap is None and len(circuit) == 4


def test_pruning_by_site_keeps_the_strongest_of_each(circuit):
    assert circuit.prune(1, by_site=True).nodes == ("0.0", "mlp.0", "1.0")


def test_auroc_counts_the_pairs_in_the_right_order(circuit):
    assert circuit.auroc(["mlp.0", "0.0"]) == 1
    assert circuit.auroc(["mlp.0", "0.1"]) == 0.5
    for wrong, message in ((["9.9"], "no node '9.9'"), ([], "got 0"), (circuit.nodes, "got 4")):
        with pytest.raises(ArgumentError, match=message):
            circuit.auroc(wrong)


def test_the_graph_and_the_picture_have_all_nodes_and_edges(circuit):
    graph = circuit.to_networkx()
    assert graph["mlp.0"]["output"]["weight"] == -3 and graph.nodes["0.0"] == {"score": 2, "site": "heads 0"}
    axes = circuit.plot()
    assert {"0.0", "mlp.0", "output"} <= {text.get_text() for text in axes.texts}
    (edges,) = (one for one in axes.collections if hasattr(one, "get_segments"))
    assert len(edges.get_segments()) == 3


def test_what_is_saved_comes_back(circuit, tmp_path):
    circuit.save(tmp_path / "circuit.safetensors")
    again = NodeCircuit.load(tmp_path / "circuit.safetensors")
    assert again.edges == circuit.edges and torch.equal(again.values, circuit.values)


def test_areas_under_faithfulness_are_those_of_the_curves():
    curve = Faithfulness(
        sizes=torch.tensor([0, 1, 2]),
        values=torch.tensor([0.0, 1.5, 1.0]),
        random=torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]]),
        nodes=2,
        method="deep_lift",
    )
    assert curve.cpr == 1.0 and curve.cmd == 0.5 and curve.random_cpr == 0.5
    assert len(curve.plot().lines) == 3
