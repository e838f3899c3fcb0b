"""Training of dictionaries: known features are found, gradients are right, and it goes on bit for bit."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from toumei.core.errors import ArgumentError, NonFiniteError
from toumei.transformers.features import (
    DictionarySettings,
    DictionaryTraining,
    SparseAutoencoder,
    SyntheticFeatures,
    match_features,
    reconstruction,
    train_dictionary,
)
from toumei.transformers.features.initialization import begin_again, geometric_median, initial_weights
from toumei.transformers.features.objective import Weights, batch_loss

WORLD = SyntheticFeatures(features=40, width=20, active=2)
SETTINGS = DictionarySettings(
    features=40, k=2, tokens=40_000, batch_size=160, learning_rate=5e-3, buffer=4000, dead_after=4000
)
FEW = replace(SETTINGS, tokens=3200)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"activation": "batch_topk"},
        {"activation": "jump_relu", "penalty": 0.3},
        {"activation": "relu", "penalty": 1.0, "tokens": 80_000},
    ],
    ids=lambda changed: changed.get("activation", "topk"),
)
def test_known_features_are_recovered(changed):
    found = train_dictionary(WORLD, replace(SETTINGS, **changed), verbose=False)
    matches = match_features(found.dictionary.W_dec, WORLD.directions)
    assert matches.share_above(0.95) >= 0.95, matches
    values = {"activations": WORLD.sample(2000, seed=9)[0]}
    result = reconstruction(found.dictionary, values)
    assert result.unexplained < 0.3 and result.dead == 0 and result.active < 8
    torch.testing.assert_close(found.dictionary.W_dec.norm(dim=1), torch.ones(40))


def test_a_transcoder_finds_what_its_output_is_made_of():
    generator = torch.Generator().manual_seed(0)
    outputs = F.normalize(torch.randn(24, 16, generator=generator), dim=1)
    world = SyntheticFeatures(features=24, width=20, active=2)
    values, magnitudes = world.sample(20_000)
    given = {"x": values * 7, "y": magnitudes @ outputs * 3 + 1}
    settings = replace(SETTINGS, features=24)
    found = train_dictionary(given, settings, reads="x", writes="y", verbose=False).dictionary
    assert found.is_transcoder and (found.width, found.output_width) == (20, 16)
    assert match_features(found.W_dec, outputs).mean > 0.9
    assert reconstruction(found, given).unexplained < 0.3


@pytest.mark.parametrize("activation", ["topk", "batch_topk"])
def test_sparse_gradients_are_those_of_the_dense_formula(activation):
    torch.manual_seed(0)
    settings = DictionarySettings(
        features=12, k=3, tokens=100, batch_size=100, buffer=100, activation=activation
    )
    shapes = {"encoder": (12, 5), "encoder_bias": (12,), "decoder": (12, 5), "decoder_bias": (5,)}
    given = {name: torch.randn(shape, requires_grad=True) for name, shape in shapes.items()}
    weights = Weights(**given, thresholds=torch.zeros(12), subtract_bias=True)
    inputs = torch.randn(9, 5)
    dead = torch.zeros(12, dtype=torch.bool)
    loss = batch_loss(weights, inputs, inputs, dead, settings)
    before = (inputs - given["decoder_bias"]) @ given["encoder"].T + given["encoder_bias"]
    number = 27 if activation == "batch_topk" else 3
    flat = before if activation == "topk" else before.reshape(1, -1)
    best = flat.topk(number, dim=1)
    kept = torch.zeros_like(flat).scatter(1, best.indices, best.values.relu()).reshape(before.shape)
    dense = (inputs - kept @ given["decoder"] - given["decoder_bias"]).square().mean()
    torch.testing.assert_close(loss.loss, dense)
    ours = torch.autograd.grad(loss.loss, list(given.values()), retain_graph=True)
    theirs = torch.autograd.grad(dense, list(given.values()))
    for name, one, other in zip(given, ours, theirs, strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_dead_features_learn_from_the_error():
    torch.manual_seed(0)
    settings = DictionarySettings(features=6, k=1, tokens=100, batch_size=100, buffer=100)
    weights = Weights(
        encoder=torch.randn(6, 4).requires_grad_(),
        encoder_bias=torch.tensor([0.0, 0, 0, -99, -99, -99]).requires_grad_(),
        decoder=torch.randn(6, 4).requires_grad_(),
        decoder_bias=torch.zeros(4, requires_grad=True),
        thresholds=torch.zeros(6),
        subtract_bias=True,
    )
    weights.encoder_bias.data[3:] = -1.0
    inputs = torch.randn(50, 4)
    for dead, moved in ((torch.zeros(6, dtype=torch.bool), False), (torch.arange(6) > 4, True)):
        weights.encoder.grad = None
        loss = batch_loss(weights, inputs, inputs, dead, settings)
        loss.loss.backward()
        never = ~loss.fired
        assert bool(weights.encoder.grad[5].abs().sum() > 0) is (moved or not bool(never[5]))


def test_thresholds_of_jumps_get_the_estimated_gradients():
    """Rajamanoharan et al. (2024), equations 11 and 12, in plain loops."""
    from toumei.transformers.features.sparse_functions import JumpReLU

    before = torch.tensor([[0.1, 0.52], [0.49, 0.9], [0.55, 0.4]], requires_grad=True)
    thresholds = torch.tensor([0.5, 0.5], requires_grad=True)
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    numbers, counts = JumpReLU.apply(before, thresholds, 0.25)
    assert counts.tolist() == [1, 2]
    torch.testing.assert_close(numbers, before * (before > 0.5))
    of_numbers, of_both = torch.autograd.grad(
        (numbers * weights).sum() + 7 * counts.sum() / 3, [thresholds, before]
    )
    for column in range(2):
        near = [row for row in range(3) if abs(before.tolist()[row][column] - 0.5) < 0.125]
        expected = -sum(0.5 * float(weights[row, column]) + 7 / 3 for row in near) / 0.25
        assert float(of_numbers[column]) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(of_both, weights * (before > 0.5))


def test_features_that_begin_again_point_to_bad_inputs():
    encoder = torch.cat([torch.eye(3), torch.eye(3)])[:4].clone()
    weights = Weights(
        encoder=encoder,
        encoder_bias=torch.ones(4),
        decoder=encoder.clone(),
        decoder_bias=torch.tensor([0.0, 0.0, 1.0]),
        thresholds=torch.zeros(4),
        subtract_bias=True,
    )
    inputs, error = torch.tensor([[1.0, 0, 0], [0, 3.0, 5.0]]), torch.tensor([[0.0, 0, 0], [0, 1.0, 0]])
    dead = torch.tensor([False, False, False, True])
    generator = torch.Generator().manual_seed(0)
    begin_again(weights, torch.optim.Adam([encoder]), inputs, error, dead, generator)
    towards = torch.tensor([0.0, 0.6, 0.8])
    torch.testing.assert_close(weights.decoder[3], towards)
    torch.testing.assert_close(weights.encoder[3], 0.2 * towards)
    assert float(weights.encoder_bias[3]) == 0 and torch.equal(weights.encoder[:3], torch.eye(3))


@pytest.mark.parametrize("activation", ["topk", "batch_topk", "relu"])
def test_dead_features_are_revived(activation, monkeypatch):
    """Half of the features begin so weak that they are never among the largest, or below 0."""
    from toumei.transformers.features import training

    def half_dead(*args):
        weights = initial_weights(*args)
        weights.encoder[::2] *= 0.05
        weights.encoder_bias[::2] = -30.0 if activation == "relu" else 0.0
        return weights

    monkeypatch.setattr(training, "initial_weights", half_dead)
    settings = replace(SETTINGS, activation=activation, dead_after=2000)
    found = train_dictionary(WORLD, settings, verbose=False)
    assert 0.4 <= float(found.dead[12]) <= 0.5 and float(found.dead[-1]) <= 0.05
    assert match_features(found.dictionary.W_dec, WORLD.directions).share_above(0.9) > 0.7
    if activation != "relu":
        off = train_dictionary(WORLD, replace(settings, aux_weight=0.0, tokens=20_000), verbose=False)
        assert float(off.dead[-1]) >= 0.4


def test_a_seed_gives_one_result_and_scales_do_not_matter():
    one, again = (train_dictionary(WORLD, FEW, verbose=False) for _ in range(2))
    assert torch.equal(one.dictionary.W_dec, again.dictionary.W_dec) and torch.equal(one.losses, again.losses)
    other = train_dictionary(WORLD, replace(FEW, seed=1), verbose=False)
    assert not torch.equal(one.dictionary.W_dec, other.dictionary.W_dec)
    values = WORLD.sample(3000)[0]
    small, large = (train_dictionary(values * scale, FEW, verbose=False).dictionary for scale in (1.0, 64.0))
    torch.testing.assert_close(small.W_dec, large.W_dec, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(small(values) * 64, large(values * 64), atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("activation", ["topk", "batch_topk", "jump_relu", "relu"])
def test_a_killed_training_goes_on_bit_for_bit(activation, tmp_path, monkeypatch):
    from toumei.transformers.features import training

    settings = replace(FEW, activation=activation, dead_after=400)
    whole = train_dictionary(WORLD, settings, verbose=False)
    path = tmp_path / "state.safetensors"
    step, count = training.Training.step, 0

    def dying(self, *args):
        nonlocal count
        count += 1
        if count == 12:
            raise RuntimeError("killed")
        return step(self, *args)

    monkeypatch.setattr(training.Training, "step", dying)
    with pytest.raises(RuntimeError, match="killed"):
        train_dictionary(WORLD, settings, checkpoint=path, verbose=False)
    found = train_dictionary(WORLD, settings, checkpoint=path, verbose=False)
    assert count == 12 + 20 - 11
    for name in ("W_enc", "b_enc", "W_dec", "b_dec", "thresholds"):
        assert torch.equal(getattr(found.dictionary, name), getattr(whole.dictionary, name)), name
    assert torch.equal(found.losses, whole.losses) and torch.equal(found.dead, whole.dead)
    with pytest.raises(ArgumentError, match="settings"):
        train_dictionary(WORLD, replace(settings, seed=5), checkpoint=path, verbose=False)
    with pytest.raises(ArgumentError, match="other activations"):
        others = SyntheticFeatures(40, 20, 2, seed=8)
        train_dictionary(others, settings, checkpoint=path, verbose=False)
    path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(ArgumentError, match="damaged"):
        train_dictionary(WORLD, settings, checkpoint=path, verbose=False)


def test_a_corpus_that_ends_is_an_error():
    class Once:
        names, fingerprint, read = ("x",), "", False

        def blocks(self, seed):
            if self.read:
                raise ArgumentError("the corpus is exhausted")
            self.read = True
            yield {"x": WORLD.sample(1000)[0]}

    with pytest.raises(ArgumentError, match="exhausted"):
        train_dictionary(Once(), FEW, verbose=False)


def test_numbers_that_are_not_finite_are_refused():
    values = WORLD.sample(1000)[0]
    values[3, 4] = torch.inf
    with pytest.raises(NonFiniteError):
        train_dictionary(values, FEW, verbose=False)
    with pytest.raises(ArgumentError, match="all 0"):
        train_dictionary(torch.zeros(1000, 3), FEW, verbose=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 41},
        {"k": 0},
        {"features": 0},
        {"activation": "gelu"},
        {"tokens": 10},
        {"buffer": 10},
        {"learning_rate": -1.0},
        {"penalty": -1.0},
        {"warm_up": 0.9, "decay": 0.9},
        {"bandwidth": 0.0},
        {"aux_weight": float("nan")},
        {"seed": "a"},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ArgumentError):
        replace(SETTINGS, **wrong)


def test_a_result_is_saved_and_drawn(tmp_path):
    found = train_dictionary(WORLD, FEW, verbose=False)
    found.save(tmp_path / "found.safetensors")
    again = DictionaryTraining.load(tmp_path / "found.safetensors")
    assert again.settings == FEW and torch.equal(again.dictionary.W_enc, found.dictionary.W_enc)
    ax = found.plot()
    assert ax.get_lines()[0].get_xdata()[-1] == FEW.tokens
    assert isinstance(again.dictionary, SparseAutoencoder)


def test_the_geometric_median_minimizes_the_sum_of_distances():
    values = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([1.0, 2.0, 3.0])
    values[:5] += 1000
    median = geometric_median(values)

    def cost(point):
        return float((values - point).norm(dim=1).sum())

    for step in torch.eye(3) * 0.05:
        assert cost(median) < min(cost(median + step), cost(median - step))
