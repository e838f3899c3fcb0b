"""Average indirect effects over many facts."""

import math
import pickle
from copy import deepcopy

import pytest
import torch

from toumei.core.errors import ArgumentError
from toumei.transformers.model.tokens import ROLES, token_roles
from toumei.transformers.rome.tracing import AverageEffects, CausalTracer, TraceSettings, read_facts
from toumei.transformers.rome.tracing.noise import EmbeddingNoise, embedding_std
from toumei.transformers.rome.tracing.tracer import FactItem, FactTask

FACTS = [
    ("{} w11 w4 w6", "w5 w7"),
    ("w3 {} w9", "w8"),
    ("w3 {} w11 w2 w1 w6", "w5 w7 w8 w9"),
]


@pytest.fixture
def tracer(language_model, tokenizer):
    return CausalTracer(language_model("llama"), tokenizer)


@pytest.mark.parametrize("options", [{}, {"kind": "mlp", "window": 2}, {"sever": "attn"}], ids=repr)
def test_averages_are_those_of_the_single_traces(tracer, options):
    average = tracer.trace_many(FACTS, samples=2, **options)
    facts = read_facts(FACTS)
    pairs = [(fact.prompt, fact.subject) for fact in facts]
    noise = EmbeddingNoise(level=3 * embedding_std(tracer.parts, tracer.tokenizer, pairs))
    sums, counts = torch.zeros(len(ROLES), 3), torch.zeros(len(ROLES), dtype=torch.long)
    for prompt, subject in pairs:
        trace = tracer.trace(prompt, subject, samples=2, noise=noise, **options)
        names = token_roles(len(trace.tokens), trace.subject_range)
        for index, role in enumerate(ROLES):
            mine = [token for token, name in enumerate(names) if name == role]
            if mine:
                sums[index] += (trace.scores - trace.low)[mine].mean(0)
                counts[index] += 1
    assert average.counts.tolist() == counts.tolist() == [2, 2, 1, 3, 2, 2, 3]
    torch.testing.assert_close(average.mean, sums / counts[:, None])


def test_the_noise_is_scaled_by_the_embeddings_of_all_subjects(tracer):
    weight = tracer.model.get_input_embeddings().weight[[5, 7, 8]]
    pairs = [("w1 w5 w7", "w5 w7"), ("w8 w2", "w8")]
    found = embedding_std(tracer.parts, tracer.tokenizer, pairs)
    assert found == pytest.approx(weight.std().item(), rel=1e-6)


def test_confidence_intervals_are_1_96_standard_errors():
    effects = torch.rand(6, len(ROLES), 2, generator=torch.Generator().manual_seed(0))
    effects[1:, 2] = torch.nan
    effects[:2, 3] = torch.nan
    effects[:, 4] = torch.nan
    average = AverageEffects(effects, torch.zeros(6), torch.arange(6.0), "hidden", 1)
    expected = 1.96 * effects[:, 0].std(0) / math.sqrt(6)
    torch.testing.assert_close(average.half_width[0], expected)
    torch.testing.assert_close(average.half_width[3], 1.96 * effects[2:, 3].std(0) / 2)
    assert average.half_width[2].isnan().all(), "one value has no spread"
    assert average.mean[4].isnan().all() and average.counts[4] == 0
    mean, width = average.total
    assert mean == 2.5 and width == pytest.approx(1.96 * torch.arange(6.0).std().item() / math.sqrt(6))
    for plot in (average.plot, average.plot_heatmap):
        axes = plot()
        assert "6 facts" in axes.get_title()
    lines = average.plot().get_lines()
    assert [line.get_label() for line in lines[:-1]] == [role for role in ROLES if role != ROLES[4]]
    words = [text.get_text() for text in average.plot().get_legend().get_texts()]
    assert words[-1] == "95 % interval" and len(words) == len(ROLES)


def test_facts_that_the_model_does_not_know_are_left_out(tracer):
    ids = torch.tensor([[3, 8, 9]])
    known = f"w{tracer.model(ids).logits[0, -1].argmax().item()}"
    wrong = "w1" if known != "w1" else "w2"
    average = tracer.trace_many([("w3 {} w9", "w8", known), ("w3 {} w9", "w8", wrong)], samples=1)
    assert len(average.effects) == 1 and average.skipped == 1
    with pytest.raises(ArgumentError, match="the answer of none of the 1 fact"):
        tracer.trace_many([("w3 {} w9", "w8", wrong)], samples=1)


def test_a_fact_that_cannot_be_understood_is_named_before_the_first_is_traced(tracer, tmp_path, monkeypatch):
    monkeypatch.setattr(CausalTracer, "trace_with", lambda *args, **options: pytest.fail("traced"))
    for bad in (("w1 w2", "w9", "w3"), ("w1 w2", "w2", "unknown")):
        with pytest.raises(ArgumentError, match=f"fact {len(FACTS)}: "):
            tracer.trace_many([*FACTS, bad], folder=tmp_path)


def test_facts_come_in_many_forms():
    class Named:
        prompt, subject, target = "{} is in", "Ann", "Rome"

    same = [
        ("{} is in", "Ann", "Rome"),
        {"prompt": "{} is in", "subject": "Ann", "attribute": "Rome", "known_id": 3},
        {"prompt": "{} is in", "subject": "Ann", "answer": "Rome"},
        Named(),
    ]
    assert len(set(read_facts(same))) == 1
    for bad in (["Ann is in"], [("Ann",)], [{"prompt": "Ann"}], [3]):
        with pytest.raises(ArgumentError, match="expected a fact as"):
            read_facts(bad)
    with pytest.raises(ArgumentError, match="at least one fact"):
        read_facts([])


def test_a_killed_run_goes_on_where_it_was(tracer, tmp_path, monkeypatch):
    expected = tracer.trace_many(FACTS, samples=1)
    traced, trace = [], CausalTracer.trace_with

    def counted(self, settings, prompt, *args, **kwargs):
        traced.append(prompt)
        if len(traced) == 3:
            raise KeyboardInterrupt
        return trace(self, settings, prompt, *args, **kwargs)

    monkeypatch.setattr(CausalTracer, "trace_with", counted)
    with pytest.raises(KeyboardInterrupt):
        tracer.trace_many(FACTS, samples=1, folder=tmp_path)
    average = tracer.trace_many(FACTS, samples=1, folder=tmp_path)
    assert len(traced) == 4, "the two finished facts are read back"
    torch.testing.assert_close(average.effects, expected.effects, equal_nan=True)
    tracer.trace_many(FACTS, samples=2, folder=tmp_path)
    assert len(traced) == 7, "other settings are other results"


def test_another_forward_pass_with_the_same_weights_has_other_effects(tracer, tmp_path):
    class Halved(type(tracer.parts.model)):
        """The model with other code."""

        def forward(self, *args, **kwargs):
            found = super().forward(*args, **kwargs)
            found.logits = found.logits / 2
            return found

    Halved.__name__ = type(tracer.parts.model).__name__
    model = deepcopy(tracer.parts.model)
    model.__class__ = Halved
    first = tracer.trace_many(FACTS, samples=1, folder=tmp_path)
    other = CausalTracer(model, tracer.tokenizer).trace_many(FACTS, samples=1, folder=tmp_path)
    assert not torch.equal(first.high, other.high)


def test_the_work_on_a_fact_can_be_sent_to_another_process(tracer):
    item = FactItem(read_facts(FACTS)[0], TraceSettings(samples=1))
    task = FactTask(tracer)
    there, here = pickle.loads(pickle.dumps(task))(item), task(item)
    torch.testing.assert_close(there["effects"], here["effects"], equal_nan=True)


def test_averages_are_saved_and_loaded(tracer, tmp_path):
    average = tracer.trace_many(FACTS, samples=1, kind="attn", window=2)
    average.save(tmp_path / "new" / "average.safetensors")
    loaded = AverageEffects.load(tmp_path / "new" / "average.safetensors")
    assert torch.equal(loaded.effects.nan_to_num(7), average.effects.nan_to_num(7))
    assert repr(loaded) == repr(average) and "attn in windows of 2" in repr(loaded)
    with pytest.raises(ArgumentError, match="is no saved AverageEffects"):
        tracer.trace(*("w3 w4 w5", "w3"), samples=1).save(tmp_path / "trace.safetensors")
        AverageEffects.load(tmp_path / "trace.safetensors")


def test_progress_over_facts(tracer, capsys):
    tracer.trace_many(FACTS[:1], samples=1)
    assert capsys.readouterr().err == ""
    tracer.trace_many(FACTS[:1], samples=1, verbose=True)
    assert "1/1" in capsys.readouterr().err
