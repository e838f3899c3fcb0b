"""The network that ships adds modulo 113 by the algorithm of Nanda et al. 2023."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import toumei.models
from toumei.core import seeded
from toumei.core.errors import ArgumentError
from toumei.models import ModularAddition
from toumei.transformers import HookedModel

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
import train_modular_addition

WEIGHTS = Path(toumei.models.__file__).parent / "data" / "modular_addition.safetensors"


@pytest.fixture(scope="module")
def model():
    return ModularAddition(pretrained=True)


@pytest.fixture(scope="module")
def sums(model):
    """The logits (113, 113, 113) of all pairs."""
    with torch.no_grad():
        return model(model.pairs()[0]).logits[:, -1].unflatten(0, (113, 113))


def power(table):
    """The share of each frequency in the variance of a table over the numbers 0 to 112."""
    numbers = torch.arange(113).double()
    angles = 2 * torch.pi * numbers[1:57, None] * numbers / 113
    table = table.double() - table.double().mean(0)
    found = (angles.cos() @ table).square().sum(1) + (angles.sin() @ table).square().sum(1)
    return found / found.sum()


def test_it_is_right_on_all_pairs(sums):
    numbers = torch.arange(113)
    assert torch.equal(sums.argmax(2), (numbers[:, None] + numbers) % 113)


def test_the_same_few_frequencies_hold_the_embedding_and_the_map_from_neurons_to_logits(model):
    embedded = power(model.model.embed_tokens.weight[:113].detach())
    to_logits = power((model.lm_head.weight @ model.model.layers[0].mlp.down_proj.weight).detach())
    key = embedded.argsort(descending=True)[:6]
    assert embedded[key].sum() > 0.8 and to_logits[key].sum() > 0.9


def test_the_logits_are_sums_of_cosines_of_a_plus_b_minus_c(sums):
    """A function of a + b - c alone is the mean over all a, b, c with that difference."""
    numbers = torch.arange(113)
    differences = (numbers[:, None, None] + numbers[:, None] - numbers) % 113
    centred = (sums - sums.mean(2, keepdim=True)).double()
    wave = torch.stack([centred[differences == one].mean() for one in numbers])
    assert (centred - wave[differences]).square().sum() < 0.1 * centred.square().sum()
    shares = torch.fft.rfft(wave).abs().square()[1:]
    assert shares.sort(descending=True).values[:6].sum() > 0.95 * shares.sum()


def test_the_report_of_the_training_finds_the_same(model):
    found = train_modular_addition.algorithm(model)
    assert found.accuracy == 1 and found.embedding > 0.8 and found.neurons > 0.9 and found.logits > 0.9
    assert 3 <= len(found.frequencies) <= 8


def test_the_fast_logits_of_the_training_are_those_of_the_network():
    model = ModularAddition(prime=7)
    tokens = model.pairs()[0]
    expected = model(tokens).logits[:, -1]
    torch.testing.assert_close(train_modular_addition.answers(model, tokens), expected)


def test_training_writes_weights_that_load(tmp_path):
    path = tmp_path / "weights.safetensors"
    found = train_modular_addition.main(["--prime", "7", "--steps", "3", "--out", str(path)])
    assert 0 <= found.accuracy <= 1
    assert ModularAddition(path, 7).prime == 7


def test_it_is_read_under_the_names_of_transformerlens(model, sums):
    hooked = HookedModel(model)
    tokens = torch.tensor([[3, 5, 113]])
    logits, cache = hooked.run_with_cache(tokens, ["z", "post"])
    torch.testing.assert_close(logits[0, -1], sums[3, 5])
    assert cache["z", 0].shape == (1, 3, 4, 32) and cache["post", 0].shape == (1, 3, 512)


def test_the_file_is_small_and_in_half_precision():
    assert WEIGHTS.stat().st_size < 1_000_000
    assert {tensor.dtype for tensor in load_file(WEIGHTS).values()} == {torch.float16}


def test_random_weights_come_from_the_generator_and_shipped_ones_leave_it_alone():
    with seeded(3):
        first = ModularAddition(prime=5).lm_head.weight
    with seeded(3):
        ModularAddition(pretrained=True)
        assert torch.equal(first, ModularAddition(prime=5).lm_head.weight)


def test_wrong_weights_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match="for the prime 113, got 7"):
        ModularAddition(pretrained=True, prime=7)
    save_file({"lm_head.weight": torch.zeros(7, 128)}, tmp_path / "part.safetensors")
    with pytest.raises(ArgumentError, match="another network or prime than 7"):
        ModularAddition(tmp_path / "part.safetensors", 7)
