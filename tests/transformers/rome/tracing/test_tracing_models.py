"""Causal tracing of models of every precision, state and kind."""

import pytest
import torch
from architectures import build
from torch import nn
from transformers import RwkvConfig, RwkvForCausalLM

from toumei.core.errors import ArchitectureError
from toumei.transformers.rome.tracing import CausalTracer, strategies

PROMPT, SUBJECT = "w3 w5 w7 w11 w4 w6", "w5 w7"


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


def test_models_without_the_part_say_so_before_anything_runs(tracer_of):
    for kind in ("mlp", "attn"):
        with pytest.raises(ArchitectureError, match="mamba.* has no .*state-space mixer"):
            tracer_of("mamba").trace(PROMPT, SUBJECT, kind=kind)


def test_running_out_of_memory_is_not_taken_for_a_model_that_cannot(tracer_of, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(strategies.LayerSweep, "check", full)
    with pytest.raises(torch.OutOfMemoryError):
        tracer_of().trace(PROMPT, SUBJECT)
