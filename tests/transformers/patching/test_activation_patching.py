"""Activation patching: plain edited passes on every architecture, known circuits, identities, refusals."""

import pytest
import torch
from plain_runs import WITH_HEADS, edited_logits

from toumei.core.errors import ArchitectureError, ArgumentError, LayerError
from toumei.models import InductionTransformer, facts_gpt
from toumei.transformers import (
    HookedModel,
    PatchingResult,
    activation_patching,
    kl_to_clean,
    logit_difference,
    probability,
)

CLEAN = torch.tensor([[5, 9, 33, 7, 12, 40], [8, 21, 3, 50, 17, 11]])
CORRUPT = torch.tensor([[5, 9, 30, 7, 12, 40], [8, 21, 3, 51, 17, 11]])
METRIC = logit_difference([7, 8], [9, 10])
KINDS = [
    ("resid_pre", "layer_position"),
    ("resid_mid", "layer_position"),
    ("resid_post", "layer"),
    ("attn_out", "layer_position"),
    ("mlp_out", "layer"),
    ("z", "head"),
    ("z", "head_position"),
    ("q", "head"),
    ("k", "head_position"),
    ("v", "head"),
    ("pattern", "head_position"),
    ("attn_scores", "head"),
    ("pre", "layer_position"),
    ("post", "neuron"),
]


def value(logits):
    last = logits[:, -1]
    return float((last[0, 7] - last[0, 9] + last[1, 8] - last[1, 10]) / 2)


def index_of(result, place, heads_first):
    """The index of what a place of a result replaces, in the layout of the activation."""
    index = [slice(None)] * 4
    for axis, at in zip(result.axes[1:], place[1:], strict=True):
        positions = (2, 1) if heads_first else (1, 2)
        index[{"position": positions[0], "head": positions[1], "neuron": 2}[axis]] = at
    return tuple(index)


def check_against_plain_passes(model, what, by, direction, count=4):
    """Raises an AssertionError unless some patches have the metric of plain passes."""
    result = activation_patching(model, CLEAN, CORRUPT, METRIC, what, by, direction=direction)
    base, source = (CORRUPT, CLEAN) if direction == "denoising" else (CLEAN, CORRUPT)
    cache = model.run_with_cache(source, [(what, int(layer)) for layer in result.layer_names])[1]
    places = result.raw.isfinite().nonzero().tolist()
    strongest = sorted(places, key=lambda place: -abs(float(result.values[tuple(place)])))
    for place in {tuple(one) for one in (*strongest[:2], *places[:: max(1, len(places) // count)])}:
        layer = int(result.layer_names[place[0]])
        new = cache[what, layer].detach()
        index = index_of(result, place, what in ("pattern", "attn_scores"))[: new.dim()]
        found = value(edited_logits(model, base, (what, layer), index, new))
        assert abs(found - float(result.raw[place])) < 1e-5
    assert result.clean == pytest.approx(value(model(CLEAN).detach()), abs=1e-5)
    assert result.corrupt == pytest.approx(value(model(CORRUPT).detach()), abs=1e-5)
    return result


@pytest.mark.parametrize("kind", WITH_HEADS)
def test_heads_and_streams_of_every_architecture_are_those_of_plain_passes(language_model, kind):
    model = HookedModel(language_model(kind))
    check_against_plain_passes(model, "z", "head_position", "denoising", count=2)
    check_against_plain_passes(model, "attn_out", "layer", "noising", count=1)


@pytest.mark.parametrize(("what", "by"), KINDS)
@pytest.mark.parametrize(("kind", "direction"), [("gpt2", "denoising"), ("llama", "noising")])
def test_every_kind_of_patch_is_a_plain_edited_pass(language_model, kind, direction, what, by):
    result = check_against_plain_passes(HookedModel(language_model(kind)), what, by, direction)
    sign = 1 if direction == "denoising" else -1
    low = result.corrupt if direction == "denoising" else result.clean
    expected = sign * (result.raw - low) / (result.clean - result.corrupt)
    assert torch.allclose(result.values, expected)


def test_all_of_the_stream_restores_everything(language_model):
    model = HookedModel(language_model("gpt2"))
    whole = activation_patching(model, CLEAN, CORRUPT, METRIC, "resid_pre", "layer")
    assert torch.allclose(whole.values, torch.ones(3).double(), atol=1e-4)
    by_position = activation_patching(model, CLEAN, CORRUPT, METRIC, "resid_post")
    assert by_position["2.5"] == pytest.approx(1, abs=1e-4)  # of the last block only the last position counts
    assert by_position.values[2, :5].abs().max() < 1e-5
    assert by_position.values[:, :2].abs().max() < 1e-5  # nothing differs before position 2


def test_restored_and_lost_shares_of_the_whole_are_the_same_in_a_linear_end(language_model):
    """The last block's stream goes into the logits of the same position: both directions are the gap."""
    model = HookedModel(language_model("llama"))
    lost = activation_patching(model, CLEAN, CORRUPT, METRIC, "resid_post", "layer", direction="noising")
    assert torch.allclose(lost.values, torch.ones(3).double(), atol=1e-4)


def test_the_circuit_of_the_induction_transformer_and_nothing_else_is_found():
    network = InductionTransformer(vocabulary=8, positions=8)
    clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
    model, metric = HookedModel(network), logit_difference(4, 5)
    heads = activation_patching(model, clean, corrupt, metric, "z", "head")
    true = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(heads.values, true, atol=1e-6)
    places = activation_patching(model, clean, corrupt, metric, "z", "head_position")
    assert [name for name, effect in places.top(3) if abs(effect) > 1e-6] == ["0.0.3", "1.0.5"]
    keys = activation_patching(model, clean, corrupt, metric, "k", "head")
    assert keys["1.0"] == pytest.approx(1, abs=1e-6) and keys.values[0].abs().max() < 1e-6
    values = activation_patching(model, clean, corrupt, metric, "v", "head")
    assert values["0.0"] == pytest.approx(1, abs=1e-6) and values.values[1].abs().max() < 1e-6
    queries = activation_patching(model, clean, corrupt, metric, "q", "head")
    assert queries.values.abs().max() < 1e-6


def test_facts_are_carried_by_the_name_and_then_by_the_last_token():
    network, tokenizer, world = facts_gpt()
    model = HookedModel(network, tokenizer)
    fact = world.facts[0]
    other = next(
        one
        for one in world.facts
        if one.target != fact.target
        and one.text.replace(one.subject, "") == fact.text.replace(fact.subject, "")
        and len(tokenizer(one.text).input_ids) == len(tokenizer(fact.text).input_ids)
    )
    metric = logit_difference(fact.target, other.target)
    result = activation_patching(model, fact.text, other.text, metric)
    assert result.clean > 1 and result.corrupt < -1
    early, late = result.values[0], result.values[-1]
    assert early[-1].abs() < 1e-6 and late[-1] > 0.5
    assert result.tokens[-1] == tokenizer.decode(tokenizer(fact.text).input_ids[-1])


def test_metrics_are_what_their_names_say(language_model):
    model = HookedModel(language_model("gpt2"))
    clean, corrupt = (model(ids).detach()[:, -1].log_softmax(-1) for ids in (CLEAN, CORRUPT))
    likely = activation_patching(model, CLEAN, CORRUPT, probability([7, 8]), "resid_pre", "layer")
    assert likely.clean == pytest.approx(float(clean.exp()[[0, 1], [7, 8]].mean()), abs=1e-6)
    distance = activation_patching(model, CLEAN, CORRUPT, kl_to_clean(), "resid_pre", "layer")
    expected = torch.nn.functional.kl_div(corrupt, clean, reduction="batchmean", log_target=True)
    assert distance.clean == 0 and distance.corrupt == pytest.approx(float(expected), abs=1e-5)
    assert torch.allclose(distance.values, torch.ones(3).double(), atol=1e-4)


def test_answers_are_texts_or_tokens(language_model, tokenizer):
    model = HookedModel(language_model("gpt2"), tokenizer)
    by_text = activation_patching(model, CLEAN, CORRUPT, logit_difference(["w7", "w8"], ["w9", "w10"]))
    assert torch.equal(by_text.raw, activation_patching(model, CLEAN, CORRUPT, METRIC).raw)
    assert by_text.tokens[1:3] == ("(w9)", "(w33)")


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_number_of_rows_that_run_at_once_does_not_matter(language_model, size):
    model = HookedModel(language_model("llama"))
    expected = activation_patching(model, CLEAN, CORRUPT, METRIC, "z", "head_position").raw
    found = activation_patching(model, CLEAN, CORRUPT, METRIC, "z", "head_position", batch_size=size).raw
    assert torch.allclose(found, expected, atol=1e-5)


def test_models_that_are_no_decoders_are_patched_by_plain_passes():
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=3,
        initializer_range=0.5,
    )
    model = HookedModel(ViTForImageClassification(config).eval())
    clean, corrupt = torch.rand(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    result = activation_patching(model, clean, corrupt, logit_difference(0, 1), "z", "head")
    new = model.run_with_cache(clean, [("z", 0)])[1]["z", 0].detach()
    found = edited_logits(model, corrupt, ("z", 0), (slice(None), slice(None), 1), new)[0]
    assert result.raw[0, 1] == pytest.approx(float(found[0] - found[1]), abs=1e-5)


def test_a_model_without_a_head_gives_no_logits(language_model):
    with pytest.raises(ArchitectureError, match="gives no logits"):
        activation_patching(HookedModel(language_model("gpt2").transformer), CLEAN, CORRUPT, METRIC)


def test_results_are_kept_drawn_and_read_by_name(language_model, tmp_path):
    model = HookedModel(language_model("gpt2"))
    for what, by in (("z", "head_position"), ("resid_pre", "layer_position"), ("z", "layer")):
        result = activation_patching(model, CLEAN, CORRUPT, METRIC, what, by)
        result.save(tmp_path / "patches.safetensors")
        loaded = PatchingResult.load(tmp_path / "patches.safetensors")
        assert torch.equal(loaded.values, result.values) and loaded.axes == result.axes
        name, effect = result.top(1)[0]
        assert result[name] == effect == float(result.values.max())
        assert what in result.plot().get_title() and len(repr(result)) <= 200
        assert "logit difference" in str(result)
    with pytest.raises(ArgumentError, match="there is no place"):
        result["9"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"corrupt": CORRUPT[:, :5]}, ArgumentError, "same number of tokens"),
        ({"corrupt": CORRUPT[:1]}, ArgumentError, "same number of tokens"),
        ({"clean": [[5, 9, 33], [8, 21]]}, ArgumentError, "same number of tokens"),
        ({"corrupt": CLEAN}, ArgumentError, "so small a gap means nothing"),
        ({"metric": logit_difference(7, 7)}, ArgumentError, "same token 7"),
        ({"metric": logit_difference([7], 8)}, ArgumentError, "each of 2 prompts, got 1"),
        ({"metric": logit_difference(7, 64)}, ArgumentError, "from 0 to 63, got 64"),
        ({"metric": logit_difference("a", "b")}, ArgumentError, "no tokenizer"),
        ({"metric": torch.sum}, ArgumentError, "a number for each text"),
        ({"what": "resid_pre", "by": "head"}, ArgumentError, "has no heads"),
        ({"what": "z", "by": "neuron"}, ArgumentError, "has no neurons"),
        ({"what": "zz"}, LayerError, "no activation"),
        ({"by": "token"}, ArgumentError, "by is one of"),
        ({"direction": "both"}, ArgumentError, "direction is one of"),
        ({"layers": [7]}, ArgumentError, "got \\[7\\]"),
    ],
)
def test_what_makes_no_sense_is_refused(language_model, arguments, error, message):
    given = {"clean": CLEAN, "corrupt": CORRUPT, "metric": METRIC, **arguments}
    with pytest.raises(error, match=message):
        activation_patching(HookedModel(language_model("gpt2")), **given)


def test_what_an_architecture_lacks_is_said(language_model):
    with pytest.raises(LayerError, match="added to the stream together"):
        activation_patching(HookedModel(language_model("gptj")), CLEAN, CORRUPT, METRIC, "resid_mid")
