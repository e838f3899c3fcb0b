"""Causal tracing: what a cell means, by a restatement with hooks of its own, and every way to compute it."""

import copy

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES
from tokenizers import processors

from toumei.core.errors import ArgumentError
from toumei.transformers.rome.tracing import CausalTracer, EmbeddingNoise, TraceSettings
from toumei.transformers.rome.tracing import tracer as tracer_module

PROMPT, SUBJECT = "w3 w5 w7 w11 w4 w6", "w5 w7"

WAYS = {
    "hidden": {},
    "mlp": {"kind": "mlp", "window": 2},
    "attn": {"kind": "attn", "window": 3},
    "sever mlp": {"sever": "mlp"},
    "sever attn": {"sever": "attn"},
}

STATE_SPACE = {"mamba", "mamba2", "jamba"}
SEVERED = {"gpt2", "llama", "gptj", "falcon", "mixtral"}  # elsewhere the same parts as in "mlp" and "attn"


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
def test_a_cell_is_what_the_code_of_the_paper_computes(tracer_of, way):
    tracer = tracer_of()
    trace = tracer.trace(PROMPT, SUBJECT, samples=4, **WAYS[way])
    options = {"samples": 4, "answer": trace.answer_id}
    for token in range(6):
        for layer in range(3):
            expected = restated(tracer.model, token, layer, way, WAYS[way].get("window", 1), **options)
            assert trace.scores[token, layer].item() == pytest.approx(expected, abs=1e-5)
    assert trace.low == pytest.approx(restated(tracer.model, None, 0, **options), abs=1e-5)
    assert trace.scores.std() > 0.01


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_the_fastest_way_agrees_with_the_plainest(tracer_of, kind):
    tracer = tracer_of(kind)
    for way, options in WAYS.items():
        if (kind in STATE_SPACE and way != "hidden") or ("sever" in options and kind not in SEVERED):
            continue
        fast = tracer.trace("w5 w7 w11", SUBJECT, samples=2, **options)
        plain = tracer.trace("w5 w7 w11", SUBJECT, samples=2, method="plain", **options)
        assert fast.method == ("rows" if kind in STATE_SPACE else "suffix"), way
        torch.testing.assert_close(fast.scores, plain.scores, rtol=0, atol=1e-5, msg=way)
        assert fast.low == pytest.approx(plain.low, abs=1e-5)
        assert fast.high == plain.high
        assert plain.scores.std() > 1e-4, "nothing would be seen to differ"


def test_a_leak_is_traced_with_whole_rows_and_from_the_restored_token_on(tracer_of, monkeypatch):
    """Cells that cannot matter are computed too then, and come out as corrupted."""
    tracer = tracer_of()
    for options in WAYS.values():
        expected = tracer.trace(PROMPT, SUBJECT, samples=2, **options)
        with monkeypatch.context() as patched:
            patched.setattr(tracer_module, "leaks", lambda inputs: True)
            tracer._known_leaks.clear()
            for method in ("suffix", "rows"):
                found = tracer.trace(PROMPT, SUBJECT, samples=2, method=method, **options)
                torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
        tracer._known_leaks.clear()


def test_a_trace_is_the_same_in_inference_mode(tracer_of):
    tracer = tracer_of("llama")
    expected = tracer.trace(PROMPT, SUBJECT, samples=2, kind="mlp", window=2)
    with torch.inference_mode():
        found = tracer.trace(PROMPT, SUBJECT, samples=2, kind="mlp", window=2)
    assert torch.equal(found.scores, expected.scores)


def test_braces_stand_for_the_subject(tracer_of):
    tracer = tracer_of()
    assert torch.equal(
        tracer.trace("w3 {} w11 w4 w6", SUBJECT, samples=2).scores,
        tracer.trace(PROMPT, SUBJECT, samples=2).scores,
    )
    later = tracer.trace("w5 w6 w8 {} w7", "w5", samples=2)
    assert later.subject_range == (3, 4) and later.prompt == "w5 w6 w8 w5 w7"


def test_a_prompt_is_traced_without_the_end_token_that_a_tokenizer_adds(tracer_of, tokenizer):
    ending = copy.deepcopy(tokenizer)
    ending._tokenizer.post_processor = processors.TemplateProcessing(
        single="w1 $A w2", special_tokens=[("w1", 1), ("w2", 2)]
    )
    trace = CausalTracer(tracer_of().model, ending).trace(PROMPT, SUBJECT, samples=2)
    assert trace.ids == (1, 3, 5, 7, 11, 4, 6) and trace.subject_range == (2, 4)


@pytest.mark.parametrize("way", ["hidden", "attn", "sever mlp"])
@pytest.mark.parametrize("batch_size", [2, 7])
def test_the_size_of_batches_and_whole_rows_change_nothing(tracer_of, way, batch_size):
    tracer = tracer_of("llama")
    expected = tracer.trace(PROMPT, SUBJECT, samples=3, **WAYS[way])
    for method in ("suffix", "rows", "plain"):
        options = {"samples": 3, "batch_size": batch_size, "method": method, **WAYS[way]}
        trace = tracer.trace(PROMPT, SUBJECT, **options)
        torch.testing.assert_close(trace.scores, expected.scores, rtol=0, atol=1e-5)


def test_no_pass_has_more_rows_than_asked_for(tracer_of, monkeypatch):
    tracer = tracer_of("llama")
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
def test_a_subject_at_the_very_start_or_end(tracer_of, subject):
    tracer = tracer_of()
    for way in ("hidden", "mlp"):
        fast = tracer.trace(PROMPT, subject, samples=2, **WAYS[way])
        plain = tracer.trace(PROMPT, subject, samples=2, method="plain", **WAYS[way])
        torch.testing.assert_close(fast.scores, plain.scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prompt", ["w3", "w3 w5"])
def test_prompts_of_one_and_two_tokens(tracer_of, prompt):
    for options in WAYS.values():
        fast = tracer_of().trace(prompt, "w3", samples=2, **options)
        plain = tracer_of().trace(prompt, "w3", samples=2, method="plain", **options)
        torch.testing.assert_close(fast.scores, plain.scores, rtol=0, atol=1e-5)


def test_what_is_known_without_computing(tracer_of):
    trace = tracer_of().trace(PROMPT, SUBJECT)
    first, _ = trace.subject_range
    assert torch.allclose(trace.scores[:first], torch.tensor(trace.low), atol=1e-6)
    assert torch.allclose(trace.scores[:-1, -1], torch.tensor(trace.low), atol=1e-6)
    assert trace.scores[-1, -1].item() == pytest.approx(trace.high)
    assert trace.high == pytest.approx(trace.probability)


def test_all_windows_over_all_layers_are_one(tracer_of):
    trace = tracer_of().trace(PROMPT, SUBJECT, kind="mlp", window=10)
    torch.testing.assert_close(trace.scores, trace.scores[:, :1].expand(-1, 3), rtol=0, atol=1e-6)


def test_one_seed_one_result(tracer_of):
    tracer = tracer_of()
    first, again, other = (tracer.trace(PROMPT, SUBJECT, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.scores, again.scores)
    assert not torch.equal(first.scores, other.scores)


def test_an_answer_and_a_foil_are_measured(tracer_of):
    tracer = tracer_of()
    given = tracer.trace(PROMPT, SUBJECT, answer="w9")
    assert (given.answer, given.answer_id) == ("w9", 9)
    logits = tracer.model(torch.tensor([given.ids])).logits[0, -1]
    assert given.probability == pytest.approx(logits.softmax(-1)[9].item())
    against = tracer.trace(PROMPT, SUBJECT, answer=9, foil="w10")
    assert against.foil == "w10"
    assert against.high == pytest.approx((logits[9] - logits[10]).item(), rel=1e-5)
    reverse = tracer.trace(PROMPT, SUBJECT, answer="w10", foil=9, method="plain")
    torch.testing.assert_close(against.scores, -reverse.scores, rtol=0, atol=1e-4)


def test_severing_takes_away_what_the_severed_modules_bring(tracer_of):
    tracer = tracer_of()
    whole = tracer.trace(PROMPT, SUBJECT)
    for part in ("mlp", "attn"):
        severed = tracer.trace(PROMPT, SUBJECT, sever=part)
        torch.testing.assert_close(severed.scores[:, -1], whole.scores[:, -1], rtol=0, atol=1e-6)
        assert (severed.scores[:, 0] - whole.scores[:, 0]).abs().max() > 1e-3


def test_bad_arguments_say_what_was_given_and_what_exists(tracer_of):
    trace = tracer_of().trace
    with pytest.raises(ArgumentError, match=r"'w9'.*'w3 w5 w7 w11 w4 w6'.*\['w3', 'w5'"):
        trace(PROMPT, "w9")
    with pytest.raises(ArgumentError, match="kind is one of 'hidden', 'mlp', 'attn', got 'states'"):
        trace(PROMPT, SUBJECT, kind="states")
    with pytest.raises(ArgumentError, match="sever is one of 'mlp', 'attn' or None, got 'head'"):
        trace(PROMPT, SUBJECT, sever="head")
    with pytest.raises(ArgumentError, match="severed tracing restores hidden states"):
        trace(PROMPT, SUBJECT, kind="mlp", sever="mlp")
    with pytest.raises(ArgumentError, match="no method 'fast'.* suffix, rows, plain"):
        trace(PROMPT, SUBJECT, method="fast")
    for name in ("samples", "window", "batch_size"):
        with pytest.raises(ArgumentError, match=f"{name} (must be|is) a whole number from 1 on, (not|got) 0"):
            trace(PROMPT, SUBJECT, **{name: 0})
    for noise in (0, -1.0, float("nan"), "strong"):
        with pytest.raises(ArgumentError, match="positive strength of the noise|noise is a number"):
            trace(PROMPT, SUBJECT, noise=noise)
    with pytest.raises(ArgumentError, match="shape is one of .*, got 'pink'"):
        EmbeddingNoise(3, "pink")
    with pytest.raises(ArgumentError, match="give scale"):
        EmbeddingNoise(shape="multivariate", level=1)
    with pytest.raises(ArgumentError, match="a text or one of the 64 tokens, got 64"):
        trace(PROMPT, SUBJECT, answer=64)
    with pytest.raises(ArgumentError, match="begin with the same token"):
        trace(PROMPT, SUBJECT, answer="w1", foil="w1")


def test_progress_is_shown_only_on_request(tracer_of, capsys):
    for method in ("suffix", "plain"):
        tracer_of().trace(PROMPT, SUBJECT, samples=1, method=method)
        assert capsys.readouterr().err == ""
        tracer_of().trace(PROMPT, SUBJECT, samples=1, method=method, verbose=True)
        assert "100%" in capsys.readouterr().err


def test_settings_that_were_made_before_give_the_same_trace(tracer_of):
    tracer = tracer_of()
    settings = TraceSettings(kind="mlp", window=2, samples=2, noise=EmbeddingNoise(2.0), seed=3)
    expected = tracer.trace(PROMPT, SUBJECT, samples=2, noise=2.0, kind="mlp", window=2, seed=3)
    found = tracer.trace_with(settings, PROMPT, SUBJECT)
    assert torch.equal(found.scores, expected.scores) and repr(found) == repr(expected)
