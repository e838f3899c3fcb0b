"""Scores of edges: plain patches, sums, derivatives, the true edges of a wired network, refusals."""

from copy import deepcopy

import plain_edges as plain
import pytest
import torch

from toumei.core.errors import ArchitectureError, ArgumentError
from toumei.models import InductionTransformer
from toumei.transformers import HookedModel, kl_to_clean, logit_difference
from toumei.transformers.circuits import AttributionGraph, attribution_graph
from toumei.transformers.circuits.alternatives import Chunks
from toumei.transformers.circuits.recorded_run import RecordedRun
from toumei.transformers.circuits.wiring import Wiring

METRIC = logit_difference(plain.ANSWERS, plain.WRONG)
PAIR = plain.CLEAN, plain.CORRUPT, METRIC


@pytest.fixture
def doubled(language_model):
    """From the name of an architecture to a tiny model in float64."""

    def build(kind):
        return HookedModel(deepcopy(language_model(kind)).double())

    return build


EDGES = ["embed->m0", "a0.1->m2", "m1->logits", "a1.3->logits", "a0.2->a1.0<q>", "m0->a2.3<q>"]


@pytest.mark.parametrize("direction", ["noising", "denoising"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_patch_of_an_edge_is_a_run_with_hooks(language_model, kind, direction):
    network = language_model(kind)
    keys = ["a0.1->a2.2<k>", "m0->a1.0<v>"] if kind == "gpt2" else ["a0.1->a2.2-3<k>", "m0->a1.0-1<v>"]
    model, edges = plain.PlainModel(network), [*EDGES, *keys]
    result = attribution_graph(HookedModel(network), *PAIR, "exact", edges=edges, direction=direction)
    assert len(result) == len(edges)
    base, other = (plain.CLEAN, plain.CORRUPT)[:: 1 if direction == "noising" else -1]
    with torch.no_grad():
        before = plain.metric(network(base).logits)
        for edge in edges:
            writer, reader = edge.split("->")
            change = model.written(other, writer) - model.written(base, writer)
            with model.reading(reader, change):
                after = plain.metric(network(base).logits)
            expected = float(before - after) if direction == "noising" else float(after - before)
            assert result[edge] == pytest.approx(expected, abs=2e-5), edge


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_edges_into_an_input_sum_to_its_change_times_its_gradient(language_model, kind):
    network = language_model(kind)
    model, hooked = plain.PlainModel(network), HookedModel(network)
    graph = attribution_graph(hooked, *PAIR, "eap")
    streams = [hooked.run_with_cache(tokens)[1] for tokens in PAIR[:2]]
    names = {"m1": ("resid_mid", 1), "logits": ("resid_post", 2), "a2.1<q>": ("resid_pre", 2)}
    for reader, name in names.items():
        added = torch.zeros_like(streams[0][name]).requires_grad_()
        with model.reading(reader, added):
            (gradient,) = torch.autograd.grad(plain.metric(network(plain.CLEAN).logits), added)
        change = streams[0][name] - streams[1][name]
        assert graph.into[reader] == pytest.approx(float((change * gradient).sum()), abs=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "gemma2", "olmo2", "granite", "phi"])
def test_gradients_are_what_small_patches_show(doubled, kind, monkeypatch):
    """In each architecture, at edges into each kind of input, by the central difference of two patches."""
    model, whole = doubled(kind), Chunks.replaced
    graph = attribution_graph(model, *PAIR, "eap")
    clean = RecordedRun(Wiring(model), {"input_ids": plain.CLEAN}).written()
    found = []
    for share in (0.01, -0.01):
        monkeypatch.setattr(Chunks, "replaced", lambda *given, by=share: clean + by * (whole(*given) - clean))
        patched = attribution_graph(model, *PAIR, "exact", sample=40, batch_size=80)
        found.append(patched.scores / share / 2)
    known = found[0].isfinite()
    difference = (sum(found) - graph.scores)[known].abs().max()
    assert difference < 2e-3 * graph.scores[known].abs().max()


@pytest.fixture
def linear():
    """Two layers of attention with random values, and logits that are linear in the stream: no norm."""
    network = InductionTransformer(vocabulary=8, positions=8, sharpness=2.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return HookedModel(network)


INDUCTION = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]]), logit_difference(4, 5)


@pytest.mark.parametrize("method", ["eap", "exact", "eap-ig"])
def test_what_linear_logits_read_sums_to_the_gap(linear, method):
    graph = attribution_graph(linear, *INDUCTION, method)
    assert graph.into["logits"] == pytest.approx(graph.clean - graph.corrupt, abs=1e-5)
    if method == "exact":
        other = attribution_graph(linear, *INDUCTION, method, direction="denoising")
        assert torch.allclose(graph.scores[-1], other.scores[-1], atol=1e-6)


def test_integrated_gradients_are_complete_with_many_steps(linear):
    few, many = (attribution_graph(linear, *INDUCTION, "eap-ig", steps=steps) for steps in (1, 20))
    for graph in (few, many):
        total = graph.out_of["embed"] + graph.out_of["pos_embed"]
        assert total - (graph.clean - graph.corrupt) == pytest.approx(graph.completeness_error, abs=1e-5)
    assert abs(many.completeness_error) < abs(few.completeness_error) / 50


def true_edges(network):
    pairs = [(one.sender if "embed" in one.sender else f"a{one.sender}", one) for one in network.edges]
    return [
        f"{writer}->a{one.receiver}<{one.kind}>" if one.kind else f"{writer}->logits" for writer, one in pairs
    ]


@pytest.mark.parametrize("method", ["exact", "eap-ig"])
def test_the_wired_edges_are_found(method):
    """Zero ablation finds all of them; of those, prompts that differ in one token find what differs."""
    model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
    graph = attribution_graph(model, *INDUCTION, method, ablation="zero")
    true = true_edges(model.model)
    assert graph.auroc(true) == 1 and set(graph.prune(edges=7).edges) == set(true)
    assert all(abs(graph[edge]) > 0.1 for edge in true)
    differing = ["embed->a0.0<v>", "a0.0->a1.0<k>", "a1.0->logits"]
    graph = attribution_graph(model, *INDUCTION, method)
    assert graph.auroc(differing) == 1 and set(graph.prune(threshold=0.1).edges) == set(differing)


def test_saturated_attention_hides_edges_from_the_gradient_of_one_run():
    model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
    scores = {
        method: attribution_graph(model, *INDUCTION, method)["a0.0->a1.0<k>"] for method in ("eap", "exact")
    }
    assert abs(scores["eap"]) < 1e-6 and scores["exact"] > 16


def test_some_prompts_at_a_time_give_the_same(language_model):
    model = HookedModel(language_model("llama"))
    for options in (
        {"method": "eap"},
        {"method": "eap-ig", "ablation": "mean"},
        {"method": "exact", "sample": 9},
    ):
        one, all_ = (attribution_graph(model, *PAIR, **options, batch_size=size) for size in (1, None))
        assert torch.allclose(one.scores, all_.scores, atol=1e-5, equal_nan=True)
        assert one.clean == pytest.approx(all_.clean, rel=1e-5)


def test_the_divergence_from_the_clean_run_is_a_metric(linear):
    graph = attribution_graph(linear, INDUCTION[0], INDUCTION[1], kl_to_clean(), "exact")
    assert graph["a1.0->logits"] < 0  # a positive divergence is a loss


def test_a_stream_with_other_parts_than_heads_and_mlps_is_refused(language_model):
    with pytest.raises(ArchitectureError, match="other parts than heads and MLPs"):
        attribution_graph(HookedModel(language_model("jamba")), *PAIR)


def test_norms_in_the_stream_are_refused():
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    with pytest.raises(ArchitectureError, match="norms stand in the residual stream"):
        attribution_graph(HookedModel(BertForMaskedLM(config).eval()), *PAIR)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "eap-gi"}, "method is one of 'eap', 'eap-ig', 'exact'"),
        ({"ablation": "noise"}, "ablation is one of"),
        ({"direction": "denoising", "method": "eap-ig"}, "have no direction"),
        ({"direction": "denoising", "method": "eap", "ablation": "zero"}, "has no such run"),
        ({"corrupt": plain.CORRUPT[:, :5]}, "same number of tokens"),
        ({"corrupt": plain.CORRUPT[:1]}, "same number of tokens"),
        ({"corrupt": plain.CLEAN}, "so small a gap"),
        ({"metric": lambda logits: logits.sum()}, "a number for each text"),
        ({"method": "eap", "edges": ["embed->m0"]}, "edges and sample are of 'exact'"),
        ({"method": "exact", "edges": ["m2->m0"]}, "no edge from 'm2' to 'm0'"),
        ({"method": "exact", "edges": ["embed->m9"]}, "no node 'm9' reads the stream"),
        ({"method": "exact", "edges": ["embed m0"]}, "an edge is 'a0.1->m2'"),
        ({"steps": 0}, "steps is a whole number from 1 on"),
        ({"method": "exact", "sample": 0}, "sample is a whole number from 1 on"),
    ],
)
def test_what_cannot_be_scored_is_refused(language_model, change, message):
    given = {"clean": plain.CLEAN, "corrupt": plain.CORRUPT, "metric": METRIC, **change}
    with pytest.raises(ArgumentError, match=message):
        attribution_graph(HookedModel(language_model("gpt2")), **given)


def test_gradients_need_autograd(language_model):
    model = HookedModel(language_model("gpt2"))
    with torch.inference_mode(), pytest.raises(ArgumentError, match="outside of that block"):
        attribution_graph(model, *PAIR)


def test_results_are_kept_and_name_their_edges(linear, tmp_path):
    graph = attribution_graph(linear, *INDUCTION, "eap-ig")
    graph.save(tmp_path / "graph.safetensors")
    loaded = AttributionGraph.load(tmp_path / "graph.safetensors")
    assert torch.equal(loaded.scores.nan_to_num(9), graph.scores.nan_to_num(9))
    assert str(loaded) == str(graph) and loaded.direction == loaded.gradient_at == "path"
    name, score = graph.top(1)[0]
    assert graph[name] == score and len(graph) == 42
    for wrong in ({}, {"edges": 1, "share": 0.5}, {"share": 1.5}, {"threshold": -1.0}, {"edges": -1}):
        with pytest.raises(ArgumentError):
            graph.prune(**wrong)
    with pytest.raises(ArgumentError, match="some of the edges to be true"):
        graph.auroc([])
