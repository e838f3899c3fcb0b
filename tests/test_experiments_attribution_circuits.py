"""The comparison of attribution methods on known circuits runs, and finds what its page says."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import attribution_circuits


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("circuits") / "circuits.png"
    networks = ["induction", "redundant channels"]
    found = attribution_circuits.main(["--networks", *networks, "--inputs", "2", "--out", str(out)])
    assert out.stat().st_size > 10_000
    return found


def test_every_method_finds_the_heads_of_induction(found):
    assert {row.auroc for row in found["induction"].values()} == {1.0}


def test_methods_that_change_one_node_at_a_time_miss_a_redundant_circuit(found):
    rows = found["redundant channels"]
    for name in ("integrated gradients", "DeepLift", "Shapley"):
        assert rows[name].auroc == 1 and rows[name].curve.cpr > rows[name].curve.random_cpr
    for name in ("gradient", "ablation"):
        assert rows[name].auroc < 0.7


def test_shapley_values_cost_far_more_than_deep_lift(found):
    rows = found["redundant channels"]
    assert rows["Shapley"].circuit.passes > 20 * rows["DeepLift"].circuit.passes


@pytest.mark.parametrize("name", ["facts", "addition", "shapes"])
def test_the_other_networks_are_asked_a_question_that_the_baseline_answers_otherwise(name):
    case = attribution_circuits.CASES[name](attribution_circuits._arguments(["--inputs", "2"]))
    circuit = attribution_circuits.CircuitDetector(case.model, case.nodes, "gradient")(*case.data)
    assert circuit.full.mean() > circuit.empty.mean() + 1 and set(case.known) <= set(circuit.nodes)
