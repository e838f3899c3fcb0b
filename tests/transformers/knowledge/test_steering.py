"""Steering adds the difference of two means, everywhere and only in its block, and its cost is measured."""

import pytest
import torch
from architectures import build
from matplotlib import pyplot

from toumei.core.errors import ArgumentError, LayerError
from toumei.transformers import HookedModel, logit_difference
from toumei.transformers.knowledge import SteeringSweep, SteeringVector, steering_sweep, steering_vector

POSITIVE, NEGATIVE = [[5, 6, 7], [8, 9, 10]], [[11, 12, 13], [20, 21]]
NAME = ("resid_post", 1)


@pytest.fixture
def hooked(language_model, tokenizer):
    return HookedModel(language_model("llama"), tokenizer)


def stream(hooked, row):
    with torch.no_grad():
        return hooked.run_with_cache([row], [NAME])[1][NAME][0]


def test_the_vector_is_the_difference_of_the_means(hooked):
    vector = steering_vector(hooked, POSITIVE, NEGATIVE, NAME)
    means = [torch.stack([stream(hooked, row)[-1] for row in rows]).mean(0) for rows in (POSITIVE, NEGATIVE)]
    assert torch.allclose(vector.vector, means[0] - means[1], atol=1e-5)
    assert vector.texts == (2, 2) and vector.name == "blocks.1.hook_resid_post"
    mean = steering_vector(hooked, POSITIVE[:1], NEGATIVE[1:], NAME, position="mean")
    expected = stream(hooked, POSITIVE[0]).mean(0) - stream(hooked, NEGATIVE[1]).mean(0)
    assert torch.allclose(mean.vector, expected, atol=1e-5)


def test_every_position_is_moved_and_only_in_the_block(hooked):
    vector, row = steering_vector(hooked, POSITIVE, NEGATIVE, NAME), [30, 31, 32]
    before = stream(hooked, row)
    with vector.steering(hooked, -1.5):
        moved = stream(hooked, row)
    assert torch.allclose(moved - before, (-1.5 * vector.vector).expand(3, -1), atol=1e-4)
    assert torch.equal(stream(hooked, row), before)
    with vector.steering(hooked, 0):
        assert torch.equal(stream(hooked, row), before)


def test_generation_is_steered_at_each_step(hooked):
    vector = steering_vector(hooked, POSITIVE, NEGATIVE, NAME)
    with vector.steering(hooked, 3.0):
        options = {"max_new_tokens": 5, "min_new_tokens": 5}
        one, other = (hooked.generate([30, 31], use_cache=use, **options) for use in (True, False))
    assert one == other != hooked.generate([30, 31], **options)


@pytest.mark.parametrize("metric", [logit_difference(7, 9), lambda logits: logits[:, 7] - logits[:, 9]])
def test_the_sweep_measures_metric_and_loss(hooked, metric):
    vector = steering_vector(hooked, POSITIVE, NEGATIVE, NAME)
    texts = ["w5 w9 w30 w31 w7 w8 w12 w40"] * 2
    found = steering_sweep(hooked, vector, [[30, 31], [5, 6]], metric, texts, strengths=[2, -2], length=4)
    assert found.strengths.tolist() == [-2, 0, 2] and found.values.shape == (3, 2)
    assert found.costs[1] == 0 and found.losses.shape == (3, 4)
    for row, strength in enumerate(found.strengths.tolist()):
        with torch.no_grad(), vector.steering(hooked, strength):
            logits = hooked([[30, 31], [5, 6]])[:, -1]
            loss = hooked.model(torch.tensor([[5, 9, 30, 31]]), labels=torch.tensor([[5, 9, 30, 31]])).loss
        assert torch.allclose(found.values[row], (logits[:, 7] - logits[:, 9]).double(), atol=1e-5)
        assert float(found.losses[row, 0]) == pytest.approx(float(loss), abs=1e-4)
    assert (
        found.within(-1.0) in found.strengths and found.within(1e9) == found.strengths[found.means.argmax()]
    )


def test_results_are_kept_and_drawn(hooked, tmp_path):
    vector = steering_vector(hooked, POSITIVE, NEGATIVE, NAME)
    vector.save(tmp_path / "vector.safetensors")
    loaded = SteeringVector.load(tmp_path / "vector.safetensors")
    assert torch.equal(loaded.vector, vector.vector) and repr(loaded) == repr(vector) and len(vector) == 32
    found = steering_sweep(hooked, vector, [[30]], logit_difference(7, 9), ["w5 w6 w7 w8"], length=4)
    found.save(tmp_path / "sweep.safetensors")
    assert str(SteeringSweep.load(tmp_path / "sweep.safetensors")) == str(found)
    assert found.plot().lines[0].get_xdata().tolist() == found.strengths.tolist()
    pyplot.close("all")


def test_bad_input(hooked, tokenizer):
    with pytest.raises(ArgumentError, match="same activation"):
        steering_vector(hooked, POSITIVE, POSITIVE, NAME)
    with pytest.raises(ArgumentError, match="one activation, got 3"):
        steering_vector(hooked, POSITIVE, NEGATIVE, "resid_post")
    with pytest.raises(ArgumentError, match="several texts"):
        steering_vector(hooked, [], NEGATIVE, NAME)
    with pytest.raises(ArgumentError, match="position"):
        steering_vector(hooked, POSITIVE, NEGATIVE, NAME, position="token")
    with pytest.raises(LayerError):
        steering_vector(hooked, POSITIVE, NEGATIVE, ("resid_post", 9))
    vector = steering_vector(hooked, POSITIVE, NEGATIVE, NAME)
    for strength in ("1", float("nan"), float("inf"), True):
        with pytest.raises(ArgumentError, match="strength"), vector.steering(hooked, strength):
            pass
    wide = SteeringVector(name=vector.name, vector=torch.ones(5), size=1.0, texts=(1, 1), position="last")
    with pytest.raises(ArgumentError, match="32 numbers"), wide.steering(hooked):
        hooked([[5]])
    with pytest.raises(ArgumentError, match="one length"):
        steering_sweep(hooked, vector, [[5], [6, 7]], logit_difference(7, 9), ["w5 w6"], length=2)
    with pytest.raises(ArgumentError, match="no chunk"):
        steering_sweep(hooked, vector, [[5]], logit_difference(7, 9), ["w5 w6"], length=9)
    with pytest.raises(ArgumentError, match="tokenizer"):
        steering_sweep(HookedModel(build("llama")), vector, [[5]], logit_difference(7, 9), ["w5"], length=2)
