"""Losses after ablating heads: those of plain edited passes on every architecture, and known circuits."""

import math

import pytest
import torch
from plain_runs import WITH_HEADS, edited_logits, losses
from scipy import stats

from toumei.core.errors import ArchitectureError, ArgumentError
from toumei.models import InductionTransformer
from toumei.transformers import HeadAblation, HookedModel, ablation, head_ablation, logit_difference
from toumei.transformers.patching import sweep
from toumei.transformers.patching.base_run import BaseRun

ROWS = [[5, 9, 33, 7, 12, 40], [8, 21, 3, 50], [60, 4, 17, 9, 9, 30]]
EVEN = [row[:4] for row in ROWS]


def outputs_of_heads(model, rows, layer):
    """The outputs of a layer's heads for all tokens of some texts, one after the other."""
    each = [model.run_with_cache([row], [("z", layer)])[1]["z", layer][0].detach() for row in rows]
    return torch.cat(each)


@pytest.mark.parametrize(
    ("kind", "how"), [*((kind, "mean") for kind in WITH_HEADS), ("gpt2", "zero"), ("llama", "zero")]
)
def test_heads_cost_what_one_edited_pass_for_each_says(language_model, kind, how):
    model = HookedModel(language_model(kind))
    result = head_ablation(model, ROWS, how)
    before = torch.tensor(losses(model(ROWS).detach(), ROWS), dtype=torch.float64)
    assert torch.allclose(result.before, before, atol=1e-5)
    for place, layer in enumerate(map(int, result.layer_names)):
        mean = outputs_of_heads(model, ROWS, layer).mean(0)
        head = (result.by_text.shape[2] - 1) * (place % 2)  # the first or the last one
        new = torch.zeros_like(mean) if how == "zero" else mean

        def put(tensor, head=head, new=new):
            tensor[:, :, head] = new[head]

        with model.edit({("z", layer): put}):
            after = losses(model(ROWS).detach(), ROWS)
        expected = torch.tensor(after, dtype=torch.float64) - before
        assert torch.allclose(result.by_text[:, place, head], expected, atol=1e-5)
    assert result.by_text.abs().max() > 0.01


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mixtral"])
def test_resampled_heads_have_the_outputs_of_the_text_before(language_model, kind):
    model = HookedModel(language_model(kind))
    result = head_ablation(model, EVEN, "resample", layers=[1])
    new = model.run_with_cache(EVEN, [("z", 1)])[1]["z", 1].detach()[[2, 0, 1]]
    before = torch.tensor(losses(model(EVEN).detach(), EVEN))
    for head in range(model.heads):
        index = (slice(None), slice(None), head)
        after = torch.tensor(losses(edited_logits(model, EVEN, ("z", 1), index, new), EVEN))
        assert torch.allclose(result.by_text[:, 0, head].float(), after - before, atol=1e-5)


def test_means_of_positions_leave_equal_texts_as_they_are(language_model):
    model = HookedModel(language_model("gpt2"))
    result = head_ablation(model, [ROWS[0]] * 3, "mean", pooled=False)
    assert result.by_text.abs().max() < 1e-6
    other = head_ablation(model, [ROWS[0]] * 3, "mean", pooled=False, reference=[ROWS[2]])
    assert other.by_text.abs().max() > 0.01


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_number_of_rows_that_run_at_once_does_not_matter(language_model, size, monkeypatch):
    model = HookedModel(language_model("llama"))
    expected = head_ablation(model, ROWS).by_text
    assert torch.allclose(head_ablation(model, ROWS, batch_size=size).by_text, expected, atol=1e-5)
    monkeypatch.setattr(sweep, "LOGITS_AT_ONCE", 1)
    assert torch.allclose(head_ablation(model, ROWS).by_text, expected, atol=1e-5)


def test_blocks_below_the_ablated_one_do_not_run_and_its_attention_runs_once(language_model, monkeypatch):
    """Four heads a layer: those of the first go through two more blocks, those of the last through none."""
    most, call = {}, BaseRun.call

    def counting(self, layer, vectors, block=None):
        most[layer] = max(most.get(layer, 0), len(vectors))
        return call(self, layer, vectors, block)

    monkeypatch.setattr(BaseRun, "call", counting)
    head_ablation(HookedModel(language_model("gpt2")), ROWS)
    assert most == {0: 1, 1: 4, 2: 8}


def test_the_previous_token_head_and_the_induction_head_are_the_circuit():
    network = InductionTransformer()
    tokens = network.sequences(6, 10)
    result = head_ablation(HookedModel(network), tokens)
    needed = {name for name, difference in result.top(4) if abs(difference) > 1e-6}
    assert needed == set(network.circuit)
    without = [math.log(32)] * 6  # without the induction head all logits are zero
    assert torch.allclose(result.by_text[:, 1, 0] + result.before, torch.tensor(without).double(), atol=1e-5)


def test_intervals_are_those_of_students_t(language_model):
    result = head_ablation(HookedModel(language_model("gpt2")), ROWS, confidence=0.9)
    sample = result.by_text[:, 2, 1]
    expected = stats.t.interval(0.9, 2, loc=sample.mean(), scale=stats.sem(sample))
    assert torch.allclose(result.intervals[2, 1], torch.tensor(expected, dtype=torch.float64))
    alone = head_ablation(HookedModel(language_model("gpt2")), ROWS[:1])
    assert alone.intervals.isnan().all() and alone.values.isfinite().all()


@pytest.mark.parametrize("how", ["zero", "mean", "resample"])
def test_a_metric_falls_as_far_as_in_edited_passes(language_model, how):
    model = HookedModel(language_model("llama"))
    metric = logit_difference([7, 8, 9], [10, 11, 12])
    result = head_ablation(model, EVEN, how, metric=metric, pooled=False)

    def difference(logits):
        last = logits[:, -1].detach().double()
        return torch.stack([last[row, 7 + row] - last[row, 10 + row] for row in range(3)])

    for layer, head in ((0, 1), (1, 3), (2, 0)):
        with model.edit({("z", layer): ablation(how, heads=[head])}):
            fall = result.before - difference(model(EVEN))
        assert torch.allclose(result.by_text[:, layer, head], fall, atol=1e-5)
    assert result.measure == "logit difference" and torch.allclose(result.before, difference(model(EVEN)))
    with pytest.raises(ArgumentError, match="one length"):
        head_ablation(model, ROWS, metric=metric)


def test_results_are_kept_and_drawn(language_model, tmp_path):
    result = head_ablation(HookedModel(language_model("gpt2")), ROWS, layers=[2, 0])
    result.save(tmp_path / "heads.safetensors")
    loaded = HeadAblation.load(tmp_path / "heads.safetensors")
    assert torch.equal(loaded.by_text, result.by_text) and loaded.layer_names == ("0", "2")
    axes = result.plot()
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0", "2"]
    assert len(repr(result)) <= 200 and "zero ablation of 8 heads over 3 texts" in str(result)
    assert "loss" in str(result)
    strongest, value = result.top(1)[0]
    layer, head = strongest.split(".")
    assert result.values[["0", "2"].index(layer), int(head)] == value == result.values.max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": [[3]]}, "no next one"),
        ({"kind": "noise"}, "kind is one of"),
        ({"kind": "resample"}, "lengths \\[4, 6\\]"),
        ({"kind": "mean", "pooled": False}, "pooled=True"),
        ({"layers": [3]}, "layers with attention are \\[0, 1, 2\\]"),
        ({"layers": []}, "layers with attention"),
        ({"confidence": 1.0}, "between 0 and 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"metric": "loss"}, "Metric"),
        ({"texts": torch.zeros(1, 3)}, "expected token ids"),
        ({"texts": [[3, 64]]}, "from 0 to 63"),
    ],
)
def test_what_makes_no_sense_is_refused(language_model, arguments, message):
    model = HookedModel(language_model("gpt2"))
    with pytest.raises(ArgumentError, match=message):
        head_ablation(model, **{"texts": ROWS, **arguments})


def test_a_model_that_sees_the_next_token_has_no_next_token_loss():
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    model = HookedModel(BertForMaskedLM(BertConfig(vocab_size=64, **sizes)).eval())
    with pytest.raises(ArchitectureError, match="come next"):
        head_ablation(model, ROWS)
