"""Plots, tests and profiles beside experiments: what they show is what the model does."""

import importlib.util
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from matplotlib import pyplot

from toumei.bench import Bench, HypothesisTest, PlotSpec, Profile, profile_call
from toumei.bench.panels import panels_of
from toumei.bench.plot_specs import PLOT_TYPES
from toumei.core.errors import ArgumentError, LayerError, MissingDependencyError, NonFiniteError, ToumeiError
from toumei.models import InductionTransformer, facts_gpt
from toumei.transformers import HookedModel

TEXT = "The town where Yara Castell lives is"


@pytest.fixture(scope="module")
def facts():
    model, tokenizer, _ = facts_gpt()
    return HookedModel(model, tokenizer)


@pytest.fixture
def bench(facts, tmp_path):
    yield Bench(tmp_path, facts)
    pyplot.close("all")


def panels(model, given, kind, key=(), **options):
    return panels_of(model, given, PlotSpec(kind, key, **options))


def test_attention_panels_are_the_patterns_of_the_layer_however_it_is_named(facts):
    cache = facts.run_with_cache([TEXT, TEXT], ["pattern"])[1]
    for key in (2, "2", "blocks.2.attn.hook_pattern", ("pattern", 2), "transformer.h.2.attn"):
        found = panels(facts, [TEXT, TEXT], "attention", key, text=1)
        assert [panel.title for panel in found] == [f"head 2.{head}" for head in range(4)]
        assert torch.equal(torch.stack([panel.values for panel in found]), cache["pattern", 2][1])
    assert found[0].columns == tuple(facts.to_str_tokens(TEXT))


def test_products_of_queries_and_keys_are_empty_where_the_model_must_not_look(facts):
    found = panels(facts, TEXT, "qk_dot_product", 1)[0].values
    assert bool(found.triu(1).masked_select(torch.ones_like(found).triu(1).bool()).isnan().all())
    assert torch.equal(
        found.nan_to_num(-torch.inf).softmax(-1), panels(facts, TEXT, "attention", 1)[0].values
    )


def test_an_induction_head_is_seen_as_one():
    model = HookedModel(InductionTransformer(vocabulary=8, positions=16))
    induction, previous = panels(model, torch.arange(8)[None], "induction_heads")
    assert induction.values[1].max() > 0.6 and previous.values[0].max() > 0.6 > previous.values[1].max()


def test_neurons_are_the_strongest_and_lines_the_lengths_of_vectors(facts):
    cache = facts.run_with_cache(TEXT, ["post", "resid_post", "blocks.2.ln2.hook_scale"])[1]
    activations = cache["post", 3][0]
    strongest = activations.abs().mean(0).argmax()
    spread = panels(facts, TEXT, "neuron_activation", 3, count=2)[0]
    lines = panels(facts, TEXT, "neuron_activation_trajectories", "blocks.3.mlp.hook_post", count=2)[0]
    assert spread.rows[0] == str(int(strongest)) and torch.equal(lines.values, spread.values)
    assert torch.equal(spread.values[0], activations[:, strongest])
    stream = panels(facts, TEXT, "residual_stream")[0]
    assert stream.rows == ("stream", "attention adds", "MLP adds")
    for layer in range(6):
        assert stream.values[0, layer] == cache["resid_post", layer].norm(dim=-1).mean()
    norms = panels(facts, TEXT, "layer_norms")[0]
    assert norms.values[1, 2] == cache["scale", 2, "ln2"].mean()


def test_statistics_of_attention_are_those_of_its_weights(facts):
    entropy, distance, first = panels(facts, TEXT, "attention_stats")
    pattern = facts.run_with_cache(TEXT, ["pattern"])[1]["pattern", 4][0]
    assert first.values[4].tolist() == pytest.approx(pattern[..., 0].mean(-1).tolist(), abs=1e-5)
    expected = -(pattern * pattern.clamp_min(1e-30).log()).sum(-1).mean(-1)
    assert entropy.values[4].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert distance.values.shape == (6, 4)


@pytest.mark.parametrize("library", ["matplotlib", "plotly"])
def test_each_type_is_drawn_by_each_library(bench, library):
    if library == "plotly" and importlib.util.find_spec("plotly") is None:
        pytest.skip("plotly is not installed")
    bench.set_plotting_lib(library)

    @bench.log_experiment
    @bench.plot_results(*(PlotSpec(kind, 1, title=f"the {kind}") for kind in PLOT_TYPES), input_ids=TEXT)
    def drawn(fig=None):
        return fig

    assert len(drawn()) == len(PLOT_TYPES)
    run = bench.runs("drawn")[0]
    assert not run.record["unkept"]
    assert len(run.figures) >= len(PLOT_TYPES) or library == "plotly"


def test_plotly_is_asked_for_where_it_is_missing(bench):
    if importlib.util.find_spec("plotly") is not None:
        pytest.skip("plotly is installed")
    bench.set_plotting_lib("plotly")
    with pytest.raises(MissingDependencyError, match="pip install plotly"):
        bench.plot_results(PlotSpec("attention", 0), input_ids=TEXT)(lambda fig=None: fig)()


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (lambda: PlotSpec("attentions", 1), "plot_type is one of 'attention'"),
        (lambda: PlotSpec("attention"), "needs a layer"),
        (lambda: PlotSpec("attention", "pattern"), "data_keys is a layer"),
        (lambda: PlotSpec("attention", 6), "layers are from 0 to 5"),
        (lambda: PlotSpec("attention", 1, text=3), "text is from 0 to 0"),
        (lambda: PlotSpec("neuron_activation", "blocks.1.mlp.hook_pots"), "hook_post"),
        (lambda: PlotSpec("neuron_activation", 1, count=0), "count is a whole number from 1 on"),
    ],
)
def test_plots_of_what_is_not_there_are_refused(facts, spec, error):
    with pytest.raises((ArgumentError, LayerError), match=error):
        panels_of(facts, TEXT, spec())


def test_decorators_refuse_what_makes_no_sense(bench, tmp_path):
    with pytest.raises(ArgumentError, match="no argument 'fig': add fig=None"):
        bench.plot_results(PlotSpec("attention", 0), input_ids=TEXT)(lambda: None)
    with pytest.raises(ArgumentError, match="plots are PlotSpec"):
        bench.plot_results(input_ids=TEXT)
    with pytest.raises(ArgumentError, match="a plotting library is 'matplotlib' or 'plotly'"):
        bench.set_plotting_lib("ggplot")
    with pytest.raises(ArgumentError, match="granularity is one of"):
        bench.profile_model("layer")
    with pytest.raises(ArgumentError, match="give the bench one"):
        Bench(tmp_path / "none").profile_model()
    with pytest.raises(ArgumentError, match="n_samples is a whole number from 2 on"):
        bench.test_hypothesis(lambda: 1, lambda: 2, n_samples=1)
    with pytest.raises(ArgumentError, match="returns a number, a sample"):
        bench.test_hypothesis(lambda: "x", lambda: 2)(lambda: None)()


def test_pairs_of_samples_have_the_same_random_numbers(bench):
    def null(shift):
        return torch.randn(()).item()

    def alternative(shift):
        return torch.randn(()).item() + shift + 0.01 * torch.randn(()).item()

    found = bench.test_hypothesis(null, alternative, 10, method="paired")(lambda shift: "x")(1.0)
    assert found["result"] == "x"
    test = found["hypothesis_test"]
    assert torch.allclose(test.second - test.first, torch.ones(10).double(), atol=0.06)
    assert test.p_value < 1e-6 and test.effect > 10


def test_the_tests_of_a_family_are_adjusted_for_their_number(bench):
    def null(effect):
        return torch.randn(()).item()

    def alternative(effect):
        return torch.randn(()).item() + effect

    @bench.log_experiment(seed=0)
    @bench.test_hypothesis(null, alternative, 15, family="heads")
    def head(effect):
        return {}

    for effect in (0.0, 0.9, 3.0, 3.0):  # the last one twice: one test
        head(effect)
    family = bench.family("heads")
    assert family.names == ("head(effect=0.0)", "head(effect=0.9)", "head(effect=3.0)")
    assert family.holm.argmin() == 2 and family.holm[2] == pytest.approx(3 * family.p_values[2].item())
    assert isinstance(bench.runs("head")[0].result()["hypothesis_test"], HypothesisTest)
    with pytest.raises(ArgumentError, match=r"family 'layers'; there are \['heads'\]"):
        bench.family("layers")


def test_flops_of_a_transformer_are_those_of_its_matrices(facts):
    tokens = torch.zeros(2, 10, dtype=torch.long)
    _, found = profile_call(facts.model, lambda: facts.model(tokens, use_cache=False))
    width, vocabulary, layers = 128, facts.model.config.vocab_size, 6
    matrices = layers * 12 * width**2 + width * vocabulary
    attention = layers * 2 * 2 * 10 * 10 * width * 2
    assert found.whole.flops == 2 * 20 * matrices + attention
    assert found["transformer.h.0.mlp"].flops == 2 * 20 * 8 * width**2
    assert found["transformer.h.0.mlp"].self_flops == 0
    assert int(found.self_flop_counts.sum()) == found.whole.flops


def test_times_add_up_and_each_module_counts_its_calls(facts, tmp_path):
    calls = []
    result, found = profile_call(facts.model, lambda: calls.append(1) or facts(TEXT))
    assert len(calls) == 2 and result.shape[0] == 1
    assert found.whole.calls == 1 and found["transformer.h.5"].calls == 1
    assert float(found.self_seconds.sum()) == pytest.approx(found.whole.seconds, rel=1e-3)
    assert bool((found.self_seconds >= -1e-9).all())
    assert found.self_seconds.tolist() == sorted(found.self_seconds.tolist(), reverse=True)
    found.save_trace(tmp_path / "trace.json.gz")
    found.save(tmp_path / "profile.safetensors")
    again = Profile.load(tmp_path / "profile.safetensors")
    assert str(again) == str(found) and "share" in found._repr_html_()
    assert len(found.plot(count=5).patches) == 5
    pyplot.close("all")


def test_operations_have_the_names_and_lines_of_the_graph(facts, tmp_path):
    _, found = profile_call(facts.model, lambda: facts(TEXT), "operation")
    assert found["lm_head/linear#0"].flops > 0
    lines = dict(zip(found.names, found.lines, strict=True))
    assert lines["lm_head/linear#0"].startswith("modeling_gpt2.py:")
    assert found.whole.flops == int(found.flop_counts.sum()) - found.whole.flops


def test_slow_modules_are_on_top():
    class Slow(torch.nn.Module):
        def forward(self, x):
            time.sleep(0.1)
            return 2 * x

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), Slow(), torch.nn.Linear(2, 2))
    _, found = profile_call(model, lambda: model(torch.ones(1, 2)))
    assert found.names[0] == "1" and 0.1 <= found["1"].self_seconds <= found.whole.seconds
    with pytest.raises(LayerError, match="'9' did not run; the longest is '1'"):
        found["9"]
    with pytest.raises(ArgumentError, match="saved as .json.gz"):
        found.save_trace("trace.json")
    with pytest.raises(ArgumentError, match="does not run the model"):
        profile_call(model, lambda: None)
    assert np.isfinite(found.seconds.numpy()).all() and issubclass(LayerError, ToumeiError)


def test_one_profile_is_made_at_a_time_and_times_do_not_make_a_result_another_one(bench, facts):
    def inside():
        return profile_call(facts, lambda: facts(TEXT))

    with pytest.raises(ArgumentError, match="another profile is being made"):
        profile_call(facts, inside)
    with torch.profiler.profile(), pytest.raises(ArgumentError, match="another profile is being made"):
        inside()
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: inside()[1], range(3)))
    assert len({one.whole.flops for one in found}) == 1

    @bench.log_experiment
    @bench.profile_model()
    def profiled():
        return {"logit": facts(TEXT)[0, -1, 0]}

    profiled()
    again = bench.rerun(bench.list_versions("profiled")[0])
    assert again.exact and again.not_compared == ("result.profiling",)


def test_a_test_that_is_refused_does_not_cost_the_result(bench):
    @bench.log_experiment
    @bench.test_hypothesis(lambda: 1.0, lambda: float("nan"), 2)
    def measured():
        return {"loss": torch.ones(3)}

    with pytest.raises(NonFiniteError, match="second has a sample that is NaN"):
        measured()
    run = bench.runs("measured")[0]
    assert run.status == "failed" and run.error["type"] == "NonFiniteError"
    assert torch.equal(run.result()["loss"], torch.ones(3)) and run.result()["samples"][0] == [1.0, 1.0]


def test_several_layers_are_drawn_one_after_the_other(facts):
    for kind in ("attention", "qk_dot_product", "neuron_activation", "neuron_activation_trajectories"):
        alone = [panels(facts, TEXT, kind, key) for key in (2, 0)]
        for keys in ([2, 0], (2, 0), ("blocks.2", "blocks.0")):
            found = panels(facts, TEXT, kind, keys)
            assert [panel.title for panel in found] == [panel.title for part in alone for panel in part]
            for one, two in zip(found, [panel for part in alone for panel in part], strict=True):
                assert torch.equal(one.values.nan_to_num(), two.values.nan_to_num())
    with pytest.raises(ArgumentError, match="data_keys has layers or names"):
        PlotSpec("attention", [(1, 2)])


def test_figures_that_the_bench_draws_are_kept_and_closed(bench):
    @bench.log_experiment
    @bench.plot_results(PlotSpec("layer_norms"), input_ids=TEXT)
    def drawn(fails, fig=None):
        if fails:
            raise ValueError("no")

    drawn(False)
    with pytest.raises(ValueError, match="no"):
        drawn(True)
    assert not pyplot.get_fignums() and len(bench.runs("drawn")[0].figures) == 1
