"""Models with some of their edges: all and none, nodes cut as a whole, curves, criteria, discovery."""

import pytest
import torch
from plain_edges import ANSWERS, CLEAN, CORRUPT, WRONG
from plain_runs import WITH_HEADS

from toumei.core.errors import ArgumentError
from toumei.models import InductionTransformer
from toumei.transformers import HookedModel, kl_to_clean, logit_difference
from toumei.transformers.circuits import (
    CircuitChecks,
    FaithfulnessCurves,
    acdc,
    attribution_graph,
    circuit_checks,
    faithfulness_curves,
    run_circuit,
)
from toumei.transformers.circuits.recorded_run import RecordedRun
from toumei.transformers.circuits.wiring import Wiring

METRIC = logit_difference(ANSWERS, WRONG)
PAIR = CLEAN, CORRUPT, METRIC
INDUCTION = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]]), logit_difference(4, 5)
TRUE = ["embed->a0.0<v>", "a0.0->a1.0<k>", "a1.0->logits"]


@pytest.fixture
def wired():
    return HookedModel(InductionTransformer(vocabulary=8, positions=8))


def all_edges(model):
    return attribution_graph(model, *PAIR, "eap").prune(share=1.0)


@pytest.mark.parametrize("kind", [kind for kind in WITH_HEADS if kind not in ("cohere", "cohere2", "jamba")])
def test_all_edges_are_the_model_and_none_the_corrupt_run(language_model, kind):
    """Contributions sum to the stream wherever it is read, in each architecture."""
    model = HookedModel(language_model(kind))
    wiring = Wiring(model)
    names = [stage.stream for stage in wiring.stages]
    caches = [model.run_with_cache(one, names)[1] for one in (CLEAN, CORRUPT)]
    written = [RecordedRun(wiring, {"input_ids": one}).written() for one in (CLEAN, CORRUPT)]
    for stage in wiring.stages:
        change = caches[0][stage.stream] - caches[1][stage.stream]
        assert torch.allclose((written[0] - written[1])[: stage.sees].sum(0), change, atol=1e-4)
    circuit = all_edges(model)
    assert torch.allclose(run_circuit(model, circuit, CLEAN, CORRUPT), model(CLEAN)[:, -1], atol=1e-6)
    empty = run_circuit(model, circuit.with_edges([]), CLEAN, CORRUPT)
    assert torch.allclose(empty, model(CORRUPT)[:, -1], atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "mixtral"])
def test_a_node_without_edges_from_it_is_ablated(language_model, kind):
    model = HookedModel(language_model(kind))
    circuit = all_edges(model)
    other = model.run_with_cache(CORRUPT, ["z", "mlp_out"])[1]

    def put(tensor, name):
        tensor[:, :, 2] = other[name][:, :, 2]

    with model.edit({("z", 1): put, ("mlp_out", 0): lambda tensor, name: other[name]}):
        expected = model(CLEAN)[:, -1].detach()
    found = run_circuit(model, circuit.without(["a1.2", "m0"]), CLEAN, CORRUPT)
    assert torch.allclose(found, expected, atol=1e-4)
    with model.edit({("z", 1): zero_of_head(2), ("mlp_out", 0): torch.zeros_like}):
        expected = model(CLEAN)[:, -1].detach()
    found = run_circuit(model, circuit.without(["a1.2", "m0"]), CLEAN, CORRUPT, ablation="zero")
    assert torch.allclose(found, expected, atol=1e-4)


def zero_of_head(head):
    def zero(tensor):
        tensor[:, :, head] = 0

    return zero


def test_means_are_those_of_each_position(language_model):
    model = HookedModel(language_model("llama"))
    circuit = all_edges(model)
    mean = model.run_with_cache(CORRUPT, ["mlp_out"])[1]["mlp_out", 1].mean(0, keepdim=True)
    with model.edit({("mlp_out", 1): lambda tensor: mean.expand_as(tensor)}):
        expected = model(CLEAN)[:, -1].detach()
    for size in (None, 1):
        found = run_circuit(model, circuit.without("m1"), CLEAN, CORRUPT, ablation="mean", batch_size=size)
        assert torch.allclose(found, expected, atol=1e-4)


def test_curves_begin_at_nothing_and_end_at_the_model(wired, tmp_path):
    graphs = {name: attribution_graph(wired, *INDUCTION, name) for name in ("eap-ig", "exact")}
    shares = (0.0, 3 / 42, 0.5, 1.0)
    curves = faithfulness_curves(wired, graphs, *INDUCTION, shares=shares, random=3)
    assert curves.edges == (0, 3, 21, 42) and curves.methods == ("eap-ig", "exact", "random")
    assert torch.allclose(curves.values[:, 0], torch.zeros(3).double(), atol=1e-6)
    assert torch.allclose(curves.values[:, -1], torch.ones(3).double(), atol=1e-6)
    assert curves.at("exact", shares[1]) == pytest.approx(1) and curves.at("random", shares[1]) < 0.5
    area = (3 / 42) / 2 + 39 / 42  # a triangle, then 1
    assert curves.cpr["exact"] == pytest.approx(area) and curves.cmd["exact"] == pytest.approx(1 - area)
    curves.save(tmp_path / "curves.safetensors")
    assert str(FaithfulnessCurves.load(tmp_path / "curves.safetensors")) == str(curves)
    assert len(curves.plot().lines) == 4


def test_the_wired_circuit_is_faithful_complete_and_minimal(wired, tmp_path):
    graph = attribution_graph(wired, *INDUCTION, "exact")
    checks = circuit_checks(wired, graph.prune(edges=3), *INDUCTION, sets=4)
    assert checks.faithfulness == pytest.approx(1, abs=1e-6) and checks.incompleteness < 1e-6
    assert checks.nodes == ("a0.0", "a1.0") and torch.allclose(checks.minimality, torch.ones(2).double())
    assert bool((checks.random < 0.5).all())
    half = circuit_checks(wired, graph.prune(edges=3).without("a0.0"), *INDUCTION)
    assert half.faithfulness < 1e-6 and float(half.minimality.max()) < 1e-6
    checks.save(tmp_path / "checks.safetensors")
    assert str(CircuitChecks.load(tmp_path / "checks.safetensors")) == str(checks)
    checks.plot()


def test_discovery_leaves_the_wired_edges(wired):
    for metric in (INDUCTION[2], kl_to_clean()):
        circuit = acdc(wired, *INDUCTION[:2], metric, 0.01)
        assert set(circuit.edges) == set(TRUE)
    zero = acdc(wired, *INDUCTION, 0.01, ablation="zero")
    assert len(zero) == len(wired.model.edges)


def test_circuits_of_another_model_and_other_things_are_refused(wired, language_model):
    graph = attribution_graph(wired, *INDUCTION, "eap")
    other = HookedModel(language_model("llama"))
    for call, message in (
        (lambda: run_circuit(other, graph.prune(edges=2), CLEAN, CORRUPT), "found in another model"),
        (lambda: run_circuit(wired, graph, *INDUCTION[:2]), "expected a Circuit"),
        (
            lambda: run_circuit(wired, graph.prune(edges=2), INDUCTION[0], INDUCTION[1][:, :4]),
            "same number of tokens",
        ),
        (lambda: faithfulness_curves(other, {"eap": graph}, *PAIR), "found in another model"),
        (lambda: faithfulness_curves(wired, {}, *INDUCTION), "expected an AttributionGraph"),
        (lambda: faithfulness_curves(wired, {"random": graph}, *INDUCTION), "expected an AttributionGraph"),
        (lambda: faithfulness_curves(wired, {"a": graph}, *INDUCTION, shares=[0.5, 0.1]), "rising order"),
        (lambda: circuit_checks(wired, graph.prune(edges=0), *INDUCTION), "has no edges"),
        (lambda: acdc(wired, *INDUCTION, 0.0), "a threshold is positive"),
    ):
        with pytest.raises(ArgumentError, match=message):
            call()


def test_pictures_have_circuits_too():
    """A vision transformer, whose logits have no positions."""
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    network = ViTForImageClassification(ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=4)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    model = HookedModel(network)
    clean, corrupt = ({"pixel_values": torch.rand(2, 3, 16, 16, generator=generator)} for _ in range(2))
    circuit = attribution_graph(model, clean, corrupt, logit_difference(1, 2), "eap").prune(share=1.0)
    for kept, pictures in ((circuit, clean), (circuit.with_edges([]), corrupt)):
        assert torch.allclose(run_circuit(model, kept, clean, corrupt), model(pictures), atol=1e-4)
    run_circuit(model, circuit.without("a0.1"), clean, corrupt, ablation="zero")
