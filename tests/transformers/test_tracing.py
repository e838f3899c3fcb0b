"""Causal tracing: what a cell means, by a restatement with hooks of its own, and every way to compute it."""

import copy
from dataclasses import fields

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, build
from matplotlib import pyplot
from tokenizers import processors
from torch import nn
from transformers import RwkvConfig, RwkvForCausalLM

from toumei.core.errors import ArchitectureError, ArgumentError
from toumei.transformers.model.families import anatomy
from toumei.transformers.rome.tracing import CausalTrace, CausalTracer, EmbeddingNoise, strategies
from toumei.transformers.rome.tracing import tracer as tracer_module
from toumei.transformers.rome.tracing.noise import draw_noise

PROMPT, SUBJECT = "w3 w5 w7 w11 w4 w6", "w5 w7"
WAYS = {
    "hidden": {},
    "mlp": {"kind": "mlp", "window": 2},
    "attn": {"kind": "attn", "window": 3},
    "sever mlp": {"sever": "mlp"},
    "sever attn": {"sever": "attn"},
}
STATE_SPACE = {"mamba", "mamba2", "jamba"}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


@pytest.fixture
def tracer(language_model, tokenizer):
    """From the name of an architecture to a tracer of a tiny random model of it."""
    return lambda kind="gpt2": CausalTracer(language_model(kind), tokenizer)


def restated(model, token, layer, kind="hidden", window=1, samples=4, answer=None):
    """The score of one cell of GPT-2 as the paper's code computes it: a clean row in front of noisy ones."""
    ids = torch.tensor([[3, 5, 7, 11, 4, 6]])
    embeddings = model.transformer.wte.weight[ids[0, 1:3]]
    noise = np.random.RandomState(1).randn(samples, 2, 32) * 3 * embeddings.double().std().item()
    layers = range(max(0, layer - window // 2), min(3, layer + (window + 1) // 2))
    places = {"hidden": lambda block: block, "mlp": lambda block: block.mlp, "attn": lambda block: block.attn}

    def corrupt(module, inputs, output):
        output[1:, 1:3] += torch.tensor(noise, dtype=torch.float32)
        return output

    def restore(module, inputs, output):
        states = output[0] if isinstance(output, tuple) else output
        states[1:, token] = states[0, token]
        return output

    handles = [model.transformer.wte.register_forward_hook(corrupt)]
    if token is not None:
        modules = [places[kind](model.transformer.h[index]) for index in layers]
        handles += [module.register_forward_hook(restore) for module in modules]
    with torch.no_grad():
        probabilities = model(ids.expand(samples + 1, -1)).logits[:, -1].softmax(-1)
    for handle in handles:
        handle.remove()
    return probabilities[1:, answer].mean().item()


@pytest.mark.parametrize("way", ["hidden", "mlp", "attn"])
def test_a_cell_is_what_the_code_of_the_paper_computes(tracer, way):
    tracer = tracer()
    trace = tracer.trace(PROMPT, SUBJECT, samples=4, **WAYS[way])
    options = {"samples": 4, "answer": trace.answer_id}
    for token in range(6):
        for layer in range(3):
            expected = restated(tracer.model, token, layer, way, WAYS[way].get("window", 1), **options)
            assert trace.scores[token, layer].item() == pytest.approx(expected, abs=1e-5)
    assert trace.low == pytest.approx(restated(tracer.model, None, 0, **options), abs=1e-5)
    assert trace.scores.std() > 0.01


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_the_fastest_way_agrees_with_the_plainest(tracer, kind):
    tracer = tracer(kind)
    ways = {"hidden": {}} if kind in STATE_SPACE else WAYS
    for way, options in ways.items():
        fast = tracer.trace(PROMPT, SUBJECT, samples=3, **options)
        plain = tracer.trace(PROMPT, SUBJECT, samples=3, method="plain", **options)
        assert fast.method == ("rows" if kind in STATE_SPACE else "suffix"), way
        torch.testing.assert_close(fast.scores, plain.scores, rtol=0, atol=1e-5, msg=way)
        assert fast.low == pytest.approx(plain.low, abs=1e-5)
        assert fast.high == plain.high
        assert plain.scores.std() > 1e-4, "nothing would be seen to differ"


def test_tokens_that_meet_behind_the_last_attention_are_not_passed_over(tokenizer, watched):
    """The feed-forward layer of RWKV looks at the token before, so the last block's attention matters."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "attention_hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    model = RwkvForCausalLM(RwkvConfig(vocab_size=64, context_length=64, **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 1.5 * parameter.shape[-1] ** -0.5)
    tracer = CausalTracer(watched(model), tokenizer)
    for kind in ("attn", "mlp"):
        options = {"kind": kind, "window": 1, "samples": 2}
        fast = tracer.trace(PROMPT, SUBJECT, **options)
        plain = tracer.trace(PROMPT, SUBJECT, method="plain", **options)
        torch.testing.assert_close(fast.scores, plain.scores, rtol=0, atol=1e-5)
        assert fast.method != "plain"
    moved = tracer.trace(PROMPT, SUBJECT, kind="attn", window=1, samples=2).effects[-2, -1]
    assert abs(float(moved)) > 1e-4
    with pytest.raises(ArchitectureError, match=r"it has 2 maps to the residual stream \(feed_forward"):
        tracer.parts.down(0)


def test_a_leak_is_traced_with_whole_rows_and_from_the_restored_token_on(tracer, monkeypatch):
    """Cells that cannot matter are computed too then, and come out as corrupted."""
    tracer = tracer()
    for options in WAYS.values():
        expected = tracer.trace(PROMPT, SUBJECT, samples=2, **options)
        with monkeypatch.context() as patched:
            patched.setattr(tracer_module, "leaks", lambda inputs: True)
            tracer._known_leaks.clear()
            for method in ("suffix", "rows"):
                found = tracer.trace(PROMPT, SUBJECT, samples=2, method=method, **options)
                torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
        tracer._known_leaks.clear()


def test_a_trace_is_the_same_in_inference_mode(tracer):
    tracer = tracer("llama")
    expected = tracer.trace(PROMPT, SUBJECT, samples=2, kind="mlp", window=2)
    with torch.inference_mode():
        found = tracer.trace(PROMPT, SUBJECT, samples=2, kind="mlp", window=2)
    assert torch.equal(found.scores, expected.scores)


def test_braces_stand_for_the_subject(tracer):
    tracer = tracer()
    assert torch.equal(
        tracer.trace("w3 {} w11 w4 w6", SUBJECT, samples=2).scores,
        tracer.trace(PROMPT, SUBJECT, samples=2).scores,
    )
    later = tracer.trace("w5 w6 w8 {} w7", "w5", samples=2)
    assert later.subject_range == (3, 4) and later.prompt == "w5 w6 w8 w5 w7"


def test_a_prompt_is_traced_without_the_end_token_that_a_tokenizer_adds(tracer, tokenizer):
    ending = copy.deepcopy(tokenizer)
    ending._tokenizer.post_processor = processors.TemplateProcessing(
        single="w1 $A w2", special_tokens=[("w1", 1), ("w2", 2)]
    )
    trace = CausalTracer(tracer().model, ending).trace(PROMPT, SUBJECT, samples=2)
    assert trace.ids == (1, 3, 5, 7, 11, 4, 6) and trace.subject_range == (2, 4)


@pytest.mark.parametrize("way", ["hidden", "attn", "sever mlp"])
@pytest.mark.parametrize("batch_size", [2, 7])
def test_the_size_of_batches_and_whole_rows_change_nothing(tracer, way, batch_size):
    tracer = tracer("llama")
    expected = tracer.trace(PROMPT, SUBJECT, samples=3, **WAYS[way])
    for method in ("suffix", "rows", "plain"):
        options = {"samples": 3, "batch_size": batch_size, "method": method, **WAYS[way]}
        trace = tracer.trace(PROMPT, SUBJECT, **options)
        torch.testing.assert_close(trace.scores, expected.scores, rtol=0, atol=1e-5)


def test_no_pass_has_more_rows_than_asked_for(tracer, monkeypatch):
    tracer = tracer("llama")
    seen = []
    block = type(tracer.model.model.layers[0])
    forward = block.forward

    def counted(self, states, *args, **kwargs):
        seen.append(len(states))
        return forward(self, states, *args, **kwargs)

    monkeypatch.setattr(block, "forward", counted)
    for method in ("suffix", "rows", "plain"):
        for way in ("hidden", "mlp"):
            tracer.trace(PROMPT, SUBJECT, samples=5, batch_size=4, method=method, **WAYS[way])
        assert max(seen) == 4


@pytest.mark.parametrize("subject", ["w3", "w4 w6", PROMPT])
def test_a_subject_at_the_very_start_or_end(tracer, subject):
    tracer = tracer()
    for way in ("hidden", "mlp"):
        fast = tracer.trace(PROMPT, subject, samples=2, **WAYS[way])
        plain = tracer.trace(PROMPT, subject, samples=2, method="plain", **WAYS[way])
        torch.testing.assert_close(fast.scores, plain.scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prompt", ["w3", "w3 w5"])
def test_prompts_of_one_and_two_tokens(tracer, prompt):
    for options in WAYS.values():
        fast = tracer().trace(prompt, "w3", samples=2, **options)
        plain = tracer().trace(prompt, "w3", samples=2, method="plain", **options)
        torch.testing.assert_close(fast.scores, plain.scores, rtol=0, atol=1e-5)


def test_what_is_known_without_computing(tracer):
    trace = tracer().trace(PROMPT, SUBJECT)
    first, _ = trace.subject_range
    assert torch.allclose(trace.scores[:first], torch.tensor(trace.low), atol=1e-6)
    assert torch.allclose(trace.scores[:-1, -1], torch.tensor(trace.low), atol=1e-6)
    assert trace.scores[-1, -1].item() == pytest.approx(trace.high)
    assert trace.high == pytest.approx(trace.probability)


def test_all_windows_over_all_layers_are_one(tracer):
    trace = tracer().trace(PROMPT, SUBJECT, kind="mlp", window=10)
    torch.testing.assert_close(trace.scores, trace.scores[:, :1].expand(-1, 3), rtol=0, atol=1e-6)


def test_one_seed_one_result(tracer):
    tracer = tracer()
    first, again, other = (tracer.trace(PROMPT, SUBJECT, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.scores, again.scores)
    assert not torch.equal(first.scores, other.scores)


def test_an_answer_and_a_foil_are_measured(tracer):
    tracer = tracer()
    given = tracer.trace(PROMPT, SUBJECT, answer="w9")
    assert (given.answer, given.answer_id) == ("w9", 9)
    logits = tracer.model(torch.tensor([given.ids])).logits[0, -1]
    assert given.probability == pytest.approx(logits.softmax(-1)[9].item())
    against = tracer.trace(PROMPT, SUBJECT, answer=9, foil="w10")
    assert against.foil == "w10"
    assert against.high == pytest.approx((logits[9] - logits[10]).item(), rel=1e-5)
    reverse = tracer.trace(PROMPT, SUBJECT, answer="w10", foil=9, method="plain")
    torch.testing.assert_close(against.scores, -reverse.scores, rtol=0, atol=1e-4)


def test_severing_takes_away_what_the_severed_modules_bring(tracer):
    tracer = tracer()
    whole = tracer.trace(PROMPT, SUBJECT)
    for part in ("mlp", "attn"):
        severed = tracer.trace(PROMPT, SUBJECT, sever=part)
        torch.testing.assert_close(severed.scores[:, -1], whole.scores[:, -1], rtol=0, atol=1e-6)
        assert (severed.scores[:, 0] - whole.scores[:, 0]).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_precision(tokenizer, watched, dtype):
    model = watched(type(build("llama"))(build("llama").config).to(dtype))
    tracer = CausalTracer(model, tokenizer)
    fast = tracer.trace(PROMPT, SUBJECT, samples=2)
    plain = tracer.trace(PROMPT, SUBJECT, samples=2, method="plain")
    assert fast.method == "suffix" and fast.scores.dtype == torch.float32
    torch.testing.assert_close(fast.scores, plain.scores, rtol=0, atol=10 * torch.finfo(dtype).eps)


def test_a_model_that_was_training_and_has_dropout_still_is(tokenizer, watched):
    model = type(build("gpt2"))(build("gpt2").config).train()
    assert model.config.resid_pdrop > 0
    traces = [CausalTracer(watched(model), tokenizer).trace(PROMPT, SUBJECT, samples=2) for _ in range(2)]
    assert torch.equal(traces[0].scores, traces[1].scores)


def test_eager_attention_and_heads_that_are_not_tied(tokenizer, watched):
    model = type(build("llama"))(build("llama").config)
    model.set_attn_implementation("eager")
    tracer = CausalTracer(watched(model), tokenizer)
    fast, plain = (tracer.trace(PROMPT, SUBJECT, samples=2, method=method) for method in (None, "plain"))
    assert fast.method == "suffix"
    torch.testing.assert_close(fast.scores, plain.scores, rtol=0, atol=1e-6)


def test_a_model_spread_by_hooks_on_its_modules(tokenizer):
    """Accelerate binds `forward` of every module to a wrapper that moves the inputs."""
    model = type(build("llama"))(build("llama").config)
    expected = CausalTracer(model, tokenizer).trace(PROMPT, SUBJECT, samples=2)
    called = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList):
            continue

        def moved(*args, _forward=module.forward, _name=name, **kwargs):
            called.append(_name)
            return _forward(*args, **kwargs)

        module.forward = moved
    trace = CausalTracer(model, tokenizer).trace(PROMPT, SUBJECT, samples=2)
    assert trace.method == "suffix"
    torch.testing.assert_close(trace.scores, expected.scores, atol=1e-6, rtol=0)  # up to where memory lies
    assert {"model.layers.1", "lm_head", "model.norm"} <= set(called)


def test_blocks_that_only_work_inside_of_their_model_are_traced_plainly(tokenizer, watched):
    model = type(build("gpt2"))(build("gpt2").config)
    expected = CausalTracer(model, tokenizer).trace(PROMPT, SUBJECT, samples=2)

    plain = type(model.transformer.h[1])

    class Inside(plain):
        """A block that computes something else when it is called outside of its model."""

        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            return output if model.inside else output + 1

    class Model(type(model)):
        """A model that says when it runs."""

        def forward(self, *args, **kwargs):
            self.inside = True
            try:
                return super().forward(*args, **kwargs)
            finally:
                self.inside = False

    model.inside, model.__class__, model.transformer.h[1].__class__ = False, Model, Inside
    trace = CausalTracer(watched(model), tokenizer).trace(PROMPT, SUBJECT, samples=2)
    assert trace.method == "plain"
    torch.testing.assert_close(trace.scores, expected.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "noise",
    [
        0.5,
        EmbeddingNoise(2, "uniform"),
        EmbeddingNoise(1, "multivariate"),
        EmbeddingNoise(level=0.3),
        EmbeddingNoise(replace=True),
        EmbeddingNoise(2, "uniform", replace=True),
    ],
    ids=repr,
)
def test_every_noise_is_swept_as_plainly(tracer, noise):
    tracer = tracer()
    fast, plain = (
        tracer.trace(PROMPT, SUBJECT, samples=3, noise=noise, method=method) for method in ("suffix", "plain")
    )
    torch.testing.assert_close(fast.scores, plain.scores, rtol=0, atol=1e-5)
    assert fast.low != fast.high


def test_noise_has_the_strength_and_shape_that_were_asked_for(language_model):
    parts = anatomy(language_model("gpt2"))
    ids = torch.tensor([[3, 5, 7]])
    weight = parts.module(parts.embedding).weight.double()

    def drawn(noise):
        return draw_noise(parts, ids, (1, 3), noise, 4000, 0).values.double()

    std = weight[ids[0, 1:3]].std().item()
    assert drawn(EmbeddingNoise(3)).std().item() == pytest.approx(3 * std, rel=0.01)
    assert drawn(EmbeddingNoise(level=0.2)).std().item() == pytest.approx(0.2, rel=0.01)
    uniform = drawn(EmbeddingNoise(2, "uniform"))
    assert uniform.abs().max().item() == pytest.approx(2 * std, rel=0.01)
    assert uniform.std().item() == pytest.approx(2 * std / 3**0.5, rel=0.01)
    covariance = torch.cov(drawn(EmbeddingNoise(2, "multivariate")).flatten(0, 1).T)
    expected = 4 * torch.cov(weight.detach().T)
    assert (covariance - expected).abs().max() < 0.1 * expected.abs().max()


def test_bad_arguments_say_what_was_given_and_what_exists(tracer):
    trace = tracer().trace
    with pytest.raises(ArgumentError, match=r"'w9'.*'w3 w5 w7 w11 w4 w6'.*\['w3', 'w5'"):
        trace(PROMPT, "w9")
    with pytest.raises(ArgumentError, match="no kind 'states'.* hidden, mlp and attn"):
        trace(PROMPT, SUBJECT, kind="states")
    with pytest.raises(ArgumentError, match="cannot sever 'head'.* mlp and attn"):
        trace(PROMPT, SUBJECT, sever="head")
    with pytest.raises(ArgumentError, match="severed tracing restores hidden states"):
        trace(PROMPT, SUBJECT, kind="mlp", sever="mlp")
    with pytest.raises(ArgumentError, match="no method 'fast'.* suffix, rows, plain"):
        trace(PROMPT, SUBJECT, method="fast")
    for name in ("samples", "window", "batch_size"):
        with pytest.raises(ArgumentError, match=f"{name} must be a whole number from 1 on, not 0"):
            trace(PROMPT, SUBJECT, **{name: 0})
    for noise in (0, -1.0, float("nan"), "strong"):
        with pytest.raises(ArgumentError, match="positive strength of the noise"):
            trace(PROMPT, SUBJECT, noise=noise)
    with pytest.raises(ArgumentError, match="no noise of the shape 'pink'"):
        EmbeddingNoise(3, "pink")
    with pytest.raises(ArgumentError, match="give scale"):
        EmbeddingNoise(shape="multivariate", level=1)
    with pytest.raises(ArgumentError, match="a text or one of the 64 tokens, got 64"):
        trace(PROMPT, SUBJECT, answer=64)
    with pytest.raises(ArgumentError, match="begin with the same token"):
        trace(PROMPT, SUBJECT, answer="w1", foil="w1")


def test_models_without_the_part_say_so_before_anything_runs(tracer):
    for kind in ("mlp", "attn"):
        with pytest.raises(ArchitectureError, match="mamba.* has no .*state-space mixer"):
            tracer("mamba").trace(PROMPT, SUBJECT, kind=kind)


def test_fields_are_found_by_their_old_names(tracer):
    trace = tracer().trace(PROMPT, SUBJECT)
    assert trace["scores"] is trace.scores
    assert trace["low_score"] == trace["worst_score"] == trace.low
    assert trace["high_score"] == trace["best_score"] == trace.high
    assert trace["input_tokens"] == tuple(PROMPT.split())
    with pytest.raises(ArgumentError, match="a trace has no 'score': it has scores"):
        trace["score"]


def test_what_is_saved_is_loaded(tracer, tmp_path):
    trace = tracer().trace(PROMPT, SUBJECT, kind="mlp", window=2, foil="w1")
    trace.save(tmp_path / "new" / "trace.safetensors")
    loaded = CausalTrace.load(tmp_path / "new" / "trace.safetensors")
    assert torch.equal(loaded.scores, trace.scores)
    names = [field.name for field in fields(trace) if field.name != "scores"]
    assert [getattr(loaded, name) for name in names] == [getattr(trace, name) for name in names]
    assert repr(loaded) == repr(trace)


def test_other_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"scores": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "short.safetensors").write_bytes(b"12")
    with pytest.raises(ArgumentError, match="is no saved CausalTrace"):
        CausalTrace.load(tmp_path / "other.safetensors")
    with pytest.raises(ArgumentError, match="cannot be read"):
        CausalTrace.load(tmp_path / "short.safetensors")


def test_the_plot_shows_tokens_layers_and_scores(tracer):
    trace = tracer().trace(PROMPT, SUBJECT, sever="mlp")
    axes = trace.plot()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["w3", "w5*", "w7*", "w11", "w4", "w6"]
    shown = axes.collections[0].get_array().reshape(6, 3)
    assert np.allclose(shown, trace.scores)
    assert "severed" in axes.get_title()
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first token is on top"
    again = pyplot.subplots()[1]
    assert trace.plot(again) is again


def test_the_best_layer_is_that_of_the_last_subject_token(tracer):
    trace = tracer().trace(PROMPT, SUBJECT)
    assert trace.best_layer == trace.scores[2].argmax().item()
    assert torch.equal(trace.effects, trace.scores - trace.low)


def test_progress_is_shown_only_on_request(tracer, capsys):
    for method in ("suffix", "plain"):
        tracer().trace(PROMPT, SUBJECT, samples=1, method=method)
        assert capsys.readouterr().err == ""
        tracer().trace(PROMPT, SUBJECT, samples=1, method=method, verbose=True)
        assert "100%" in capsys.readouterr().err


def test_running_out_of_memory_is_not_taken_for_a_model_that_cannot(tracer, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(strategies.LayerSweep, "check", full)
    with pytest.raises(torch.OutOfMemoryError):
        tracer().trace(PROMPT, SUBJECT)
