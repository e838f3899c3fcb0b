"""Dictionaries: their formulas, what they do to a model, and the files of SAELens."""

import json

import pytest
import torch
from architectures import build
from safetensors.torch import load_file, save_file

from toumei.core.errors import ArgumentError, LayerError, ShapeError
from toumei.transformers import HookedModel
from toumei.transformers.features import (
    SparseAutoencoder,
    ablate_features,
    evaluate_dictionary,
    load_saelens,
    match_features,
    reconstruction,
    save_saelens,
    spliced,
    steer_by_feature,
)
from toumei.transformers.features.evaluation import closest_cosines

NAME = "blocks.1.hook_resid_post"
TOKENS = torch.tensor([[5, 9, 33, 21, 9, 2], [7, 7, 12, 60, 3, 22]])


def dictionary(width=32, features=50, activation="topk", out=None, seed=0, **changed):
    draw = torch.Generator().manual_seed(seed)
    out = width if out is None else out
    fields = {
        "W_enc": torch.randn(width, features, generator=draw),
        "b_enc": torch.randn(features, generator=draw),
        "W_dec": torch.randn(features, out, generator=draw),
        "b_dec": torch.randn(out, generator=draw),
        "thresholds": torch.rand(features, generator=draw)
        if "j" in activation or "b" in activation
        else torch.zeros(features),
        "activation": activation,
        "k": 4,
        "subtract_bias": True,
        "normalization": "none",
        "reads": NAME,
        "writes": NAME,
    }
    return SparseAutoencoder(**{**fields, **changed})


@pytest.fixture
def model(watched, tokenizer):
    return HookedModel(watched(build("gpt2")), tokenizer)


@pytest.mark.parametrize("activation", ["relu", "topk", "batch_topk", "jump_relu"])
def test_features_are_those_of_the_formula(activation):
    ours = dictionary(activation=activation)
    x = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(1))
    before = (x - ours.b_dec) @ ours.W_enc + ours.b_enc
    expected = before.relu()
    if activation == "topk":
        least = expected.sort(dim=-1, descending=True).values[..., 3:4]
        expected = expected * (expected >= least)
    elif activation != "relu":
        expected = expected * (before > ours.thresholds)
    torch.testing.assert_close(ours.encode(x), expected)
    torch.testing.assert_close(ours(x), expected @ ours.W_dec + ours.b_dec)
    part = [3, 7, 41]
    torch.testing.assert_close(ours.written(x, part), expected[..., part] @ ours.W_dec[part])


@pytest.mark.parametrize("normalization", ["layer_norm", "constant_norm"])
def test_a_normalization_is_undone(normalization):
    ours = dictionary(normalization=normalization)
    x = torch.randn(6, 32) * 9 + 2
    torch.testing.assert_close(ours(3 * x), 3 * ours(x), atol=1e-2, rtol=1e-4)
    torch.testing.assert_close(ours(x), ours.decode(ours.encode(x), x))
    whole = ours.written(x, list(range(50)))
    nothing = ours.decode(torch.zeros(6, 50), x)
    torch.testing.assert_close(whole + nothing, ours(x), atol=1e-3, rtol=1e-4)
    with pytest.raises(ArgumentError, match="inputs"):
        ours.decode(ours.encode(x))


def test_an_exact_dictionary_leaves_the_model_as_it_is_and_features_add_up(model):
    exact = SparseAutoencoder.of_directions(torch.cat([torch.eye(32), -torch.eye(32)]), reads=NAME)
    with torch.no_grad():
        plain = model(TOKENS)
        with spliced(model, exact):
            torch.testing.assert_close(model(TOKENS), plain)
        ours = dictionary()
        with spliced(model, ours):
            changed = model(TOKENS)
        _, cache = model.run_with_cache(TOKENS, [NAME])
        with model.edit({NAME: lambda stream: ours(stream)}):
            torch.testing.assert_close(changed, model(TOKENS))
        active = ours.encode(cache[NAME])
        feature = int(active.sum((0, 1)).argmax())
        with ablate_features(model, ours, [feature]):
            ablated = model(TOKENS)
        taken = active[..., feature, None] * ours.W_dec[feature]
        with model.edit({NAME: lambda stream: stream - taken}):
            torch.testing.assert_close(ablated, model(TOKENS))
        with steer_by_feature(model, ours, feature, 2.5):
            steered = model(TOKENS)
        with model.edit({NAME: lambda stream: stream + 2.5 * ours.W_dec[feature]}):
            torch.testing.assert_close(steered, model(TOKENS))
        assert torch.equal(model(TOKENS), plain)


def test_directions_are_of_the_activation_that_they_name(model):
    named = SparseAutoencoder.of_directions(torch.eye(32), reads=NAME)
    assert (named.reads, named.writes, named.is_transcoder) == (NAME, NAME, False)
    positive = model.edit({NAME: torch.relu})
    with torch.no_grad(), positive:
        expected = model(TOKENS)
    with torch.no_grad(), spliced(model, named):
        assert torch.equal(model(TOKENS), expected)
    unnamed = SparseAutoencoder.of_directions(torch.eye(32))
    with pytest.raises(ArgumentError, match=r"of_directions\(..., reads=...\)"), spliced(model, unnamed):
        pass
    with pytest.raises(LayerError), spliced(model, SparseAutoencoder.of_directions(torch.eye(32), reads="a")):
        pass
    for wrong in (3, None, ("resid_post", 1)):
        with pytest.raises(ArgumentError, match="reads is a string"):
            SparseAutoencoder.of_directions(torch.eye(32), reads=wrong)


@pytest.mark.parametrize("reads", ["blocks.1.ln2.hook_normalized", "blocks.1.hook_resid_mid"])
def test_a_transcoder_takes_the_place_of_a_layer(model, reads):
    writes = "blocks.1.hook_mlp_out"
    ours = dictionary(subtract_bias=False, reads=reads, writes=writes)
    with torch.no_grad():
        _, cache = model.run_with_cache(TOKENS, [reads])
        with spliced(model, ours):
            found = model(TOKENS)
        with model.edit({writes: lambda out: ours(cache[reads])}):
            torch.testing.assert_close(found, model(TOKENS))
        with ablate_features(model, ours, list(range(50))):
            ablated = model(TOKENS)
        with model.edit({writes: lambda out: out - ours(cache[reads]) + ours.b_dec}):
            torch.testing.assert_close(ablated, model(TOKENS), atol=1e-4, rtol=1e-4)


def test_heads_are_read_as_one_vector(model):
    name = "blocks.0.attn.hook_z"
    ours = dictionary(reads=name, writes=name)
    with torch.no_grad():
        _, cache = model.run_with_cache(TOKENS, [name])
        with spliced(model, ours):
            found = model(TOKENS)
        value = ours(cache[name].flatten(2)).view_as(cache[name])
        with model.edit({name: lambda z: value}):
            torch.testing.assert_close(found, model(TOKENS))


def test_an_error_leaves_nothing_on_the_model(model):
    plain = model(TOKENS)
    with pytest.raises(ZeroDivisionError), ablate_features(model, dictionary(), [0]):
        raise ZeroDivisionError
    assert torch.equal(model(TOKENS), plain)


def test_sums_are_kept_apart_over_all_tokens():
    ours = dictionary(features=40)
    x = torch.randn(300, 32, generator=torch.Generator().manual_seed(2)) + 50
    found = reconstruction(ours, {NAME: x})
    exact, made, active = x.double(), ours(x).double(), ours.encode(x)
    assert found.unexplained == pytest.approx(
        float((exact - made).square().sum() / (exact - exact.mean(0)).square().sum()), rel=1e-6
    )
    assert found.active == pytest.approx(float((active > 0).sum() / 300))
    assert found.shrinkage == pytest.approx(float((made.norm(dim=1) / exact.norm(dim=1)).mean()), rel=1e-6)
    torch.testing.assert_close(found.rates, (active > 0).float().mean(0))
    torch.testing.assert_close(found.largest, active.amax(0))
    assert found.dead == float(((active > 0).sum(0) == 0).float().mean())

    class Parts:
        names, fingerprint = (NAME,), ""

        def blocks(self, seed):
            yield from ({NAME: part} for part in x.split([7, 1, 200, 92]))

    assert reconstruction(ours, Parts()).unexplained == pytest.approx(found.unexplained, rel=1e-9)
    assert reconstruction(ours, Parts(), max_tokens=100).tokens == 100


def test_what_the_model_loses_is_measured_by_plain_passes(model):
    texts = ["w5 w9 w33 w21 w9 w2", "w7 w7 w12"]
    ours = dictionary()
    found = evaluate_dictionary(ours, model, texts, verbose=False)
    sums = torch.zeros(4)
    with torch.no_grad():
        for text in texts:
            ids = model.to_tokens(text)[0]
            first = torch.zeros(1, len(ids), dtype=torch.bool)
            first[:, 0] = True

            def here(stream, first=first):
                return torch.where(first[..., None], stream, ours(stream))

            def zero(stream, first=first):
                return torch.where(first[..., None], stream, torch.zeros_like(stream))

            logs = [
                model.run_with_hooks(text, [(NAME, change)])[0].log_softmax(-1) for change in (here, zero)
            ]
            clean = model(text)[0].log_softmax(-1)
            for place, one in enumerate((clean, *logs)):
                sums[place] -= one[:-1].gather(1, ids[1:, None]).sum()
            sums[3] += (clean.exp() * (clean - logs[0]))[:-1].sum()
    expected = (sums / 7).tolist()
    assert [found.clean, found.spliced, found.zeroed, found.divergence] == pytest.approx(expected, abs=1e-4)
    share = (expected[2] - expected[1]) / (expected[2] - expected[0])
    assert found.recovered == pytest.approx(share, rel=1e-2) and found.predictions == 7
    assert found.recovered_divergence == pytest.approx(1 - found.divergence / found.zeroed_divergence)


def test_dictionaries_of_other_widths_layers_and_models_are_refused(model, watched):
    for wrong in (
        dictionary(width=16),
        dictionary(reads="blocks.9.hook_resid_post", writes="blocks.9.hook_resid_post"),
    ):
        with pytest.raises((ArgumentError, KeyError)), spliced(model, wrong):
            pass
    with pytest.raises(ArgumentError, match="names it"):
        evaluate_dictionary(SparseAutoencoder.of_directions(torch.eye(32)), model, ["w1 w2"], verbose=False)
    with pytest.raises(ArgumentError, match="needs activations"):
        reconstruction(dictionary(), {"blocks.0.hook_resid_post": torch.rand(5, 32)})
    with pytest.raises(ShapeError, match="another layer"):
        reconstruction(dictionary(), {NAME: torch.rand(5, 31)})
    with pytest.raises(ArgumentError, match="features are"), ablate_features(model, dictionary(), [50]):
        pass
    with pytest.raises(ArgumentError), steer_by_feature(model, dictionary(), -1, 1.0):
        pass


@pytest.mark.parametrize(
    "changed",
    [
        {"k": 0},
        {"k": 51},
        {"activation": "gelu"},
        {"normalization": "batch"},
        {"writes": "y", "normalization": "layer_norm"},
    ],
    ids=str,
)
def test_settings_that_do_not_agree_are_refused(changed):
    with pytest.raises(ArgumentError):
        dictionary(**changed)
    with pytest.raises(ArgumentError, match="subtracted"):
        dictionary(out=16)


@pytest.mark.parametrize(
    "given",
    [
        dictionary(activation="relu", k=0),
        dictionary(activation="topk", subtract_bias=False),
        dictionary(activation="jump_relu", k=0, normalization="layer_norm"),
        dictionary(activation="relu", k=0, normalization="constant_norm"),
        dictionary(activation="jump_relu", k=0, out=16, subtract_bias=False, writes="blocks.1.hook_mlp_out"),
    ],
    ids=lambda one: f"{one.activation} {one.normalization}",
)
def test_a_dictionary_comes_back_from_the_files_of_saelens(given, tmp_path):
    save_saelens(given, tmp_path / "new")
    found = load_saelens(tmp_path / "new")
    for name, value in vars(given).items():
        same = getattr(found, name)
        assert torch.equal(same, value) if isinstance(value, torch.Tensor) else same == value, name
    keys = set(load_file(tmp_path / "new" / "sae_weights.safetensors"))
    assert keys == {"W_enc", "b_enc", "W_dec", "b_dec"} | (
        {"threshold"} if given.activation == "jump_relu" else set()
    )


def test_norms_of_the_decoder_count_as_in_saelens(tmp_path):
    """SAELens multiplies what the encoder gives with the decoder's norms, and divides in the decoder."""
    given = dictionary(subtract_bias=False)
    save_saelens(given, tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**config, "rescale_acts_by_decoder_norm": True}))
    found, x = load_saelens(tmp_path), torch.randn(9, 32)
    lengths = given.W_dec.norm(dim=1)
    best = ((x @ given.W_enc + given.b_enc) * lengths).topk(4, dim=1)
    active = torch.zeros(9, 50).scatter(1, best.indices, best.values.relu())
    torch.testing.assert_close(found.encode(x), active)
    torch.testing.assert_close(found(x), (active / lengths) @ given.W_dec + given.b_dec, atol=1e-4, rtol=1e-4)


def test_configurations_of_before_version_6_are_read(tmp_path):
    given = dictionary()
    save_saelens(given, tmp_path)
    old = {"d_in": 32, "d_sae": 50, "hook_point": NAME, "normalize_activations": False}
    old |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}, "apply_b_dec_to_input": True}
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    found, x = load_saelens(tmp_path), torch.randn(5, 32)
    assert (found.activation, found.k, found.reads) == ("topk", 4, NAME)
    assert torch.equal(found(x), given(x))
    (tmp_path / "cfg.json").write_text(json.dumps({**old, "normalize_activations": True}))
    with pytest.warns(UserWarning, match="activations scaled alike"):
        load_saelens(tmp_path)
    for changed, match in (
        ({"activation_fn_str": "tanh-relu"}, "tanh-relu"),
        ({"activation_fn_kwargs": {}}, "k is"),
    ):
        (tmp_path / "cfg.json").write_text(json.dumps({**old, **changed}))
        with pytest.raises(ArgumentError, match=match):
            load_saelens(tmp_path)


def test_damaged_files_of_saelens_are_one_kind_of_error(tmp_path):
    def refused(match):
        with pytest.raises(ArgumentError, match=match):
            load_saelens(tmp_path)

    refused("cfg.json")
    save_saelens(dictionary(), tmp_path)
    path, config = tmp_path / "sae_weights.safetensors", tmp_path / "cfg.json"
    text = config.read_text()
    weights = {name: one.clone() for name, one in load_file(path).items()}  # the file itself changes below
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    refused("cut short or damaged")
    path.unlink()
    refused("missing")
    for changed, match in (
        ({name: value for name, value in weights.items() if name != "b_enc"}, "b_enc"),
        ({**weights, "W_dec": weights["W_dec"][:, :5].contiguous()}, "W_dec is"),
        ({**weights, "b_dec": weights["b_dec"] * torch.nan}, "NaN"),
        ({**weights, "b_enc": weights["b_enc"].int()}, r"b_enc is of torch.int32"),
    ):
        save_file(changed, path)
        refused(match)
    save_file(weights, path)
    for key, value, match in (
        ("architecture", "gated", "architecture"),
        ("normalize_activations", "whitening", "normalize"),
        ("d_in", 31, "W_enc is"),
        ("k", None, "k is from"),
        ("k", "many", "its k should be a number"),
        ("d_sae", "fifty", "its d_sae should be a number"),
        ("metadata", [1], "its metadata should be a JSON object"),
        ("architecture", {"a": 1}, "architecture is {'a': 1}"),
        ("normalize_activations", [1], "normalize_activations is"),
    ):
        config.write_text(json.dumps({**json.loads(text), key: value}))
        refused(match)
    for broken in ("{", "[]", "{}"):
        config.write_text(broken)
        refused("JSON|d_in")
    with pytest.raises(ArgumentError, match="topk"):
        save_saelens(dictionary(writes="y", subtract_bias=False), tmp_path)


def test_matches_are_one_to_one():
    known = torch.eye(4)[:3]
    given = torch.stack([known[0], known[0] + 0.1 * known[1], known[2] * 9, known[1] + known[0]])
    found = match_features(given, known)
    assert found.matches.tolist() == [0, 3, 2]
    assert found.cosines.tolist() == pytest.approx([1.0, 2**-0.5, 1.0])
    assert found.share_above() == pytest.approx(2 / 3)
    with pytest.raises(ShapeError):
        match_features(known, given)
    directions = torch.randn(50, 7)
    unit = directions / directions.norm(dim=1, keepdim=True)
    cosines = (unit @ unit.T).fill_diagonal_(-1)
    torch.testing.assert_close(closest_cosines(directions, at_once=8), cosines.amax(1))
