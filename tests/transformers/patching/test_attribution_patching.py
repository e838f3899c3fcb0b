"""Attribution patching: exact where the model is linear, and honest about its error elsewhere."""

import pytest
import torch

from toumei.core.errors import ArgumentError
from toumei.models import InductionTransformer
from toumei.transformers import (
    AttributionPatching,
    HookedModel,
    activation_patching,
    attribution_patching,
    logit_difference,
)

CLEAN = torch.tensor([[5, 9, 33, 7, 12, 40], [8, 21, 3, 50, 17, 11]])
CORRUPT = torch.tensor([[5, 9, 30, 7, 12, 40], [8, 21, 3, 51, 17, 11]])
METRIC = logit_difference([7, 8], [9, 10])


@pytest.mark.parametrize("gradient_at", ["clean", "corrupt"])
def test_it_is_exact_where_the_rest_of_the_model_is_linear(gradient_at):
    """After the heads of the last layer comes a linear map only."""
    network = InductionTransformer(vocabulary=8, positions=8)
    clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
    model, metric = HookedModel(network), logit_difference(4, 5)
    for by in ("head", "head_position"):
        given = {"what": "z", "by": by, "layers": [1], "gradient_at": gradient_at}
        result = attribution_patching(model, clean, corrupt, metric, **given)
        direction = "denoising" if gradient_at == "corrupt" else "noising"
        exact = activation_patching(model, clean, corrupt, metric, "z", by, layers=[1], direction=direction)
        assert torch.allclose(result.values, exact.values, atol=1e-6) and result.error < 1e-6
        assert torch.allclose(result.estimate.raw, exact.raw, atol=1e-5)


@pytest.mark.parametrize(("what", "by"), [("z", "head"), ("mlp_out", "layer_position"), ("post", "neuron")])
@pytest.mark.parametrize("gradient_at", ["clean", "corrupt"])
def test_it_is_the_slope_of_exact_patching(language_model, what, by, gradient_at):
    """What a patch changes is shifted a little both ways in the run of the gradient."""
    model = HookedModel(language_model("gpt2"))
    result = attribution_patching(model, CLEAN, CORRUPT, METRIC, what, by, gradient_at=gradient_at, sample=6)
    base = CLEAN if gradient_at == "clean" else CORRUPT
    caches = [model.run_with_cache(ids, [(what, 1)])[1][what, 1].detach() for ids in (CLEAN, CORRUPT)]
    delta = (caches[0] - caches[1]) * (1 if gradient_at == "corrupt" else -1)
    place = (1, 4) if by == "layer_position" else (1, 2)
    places = {"head": (..., 2, slice(None)), "layer_position": (..., 4, slice(None)), "neuron": (..., 2)}
    index = places[by]
    step, values = 0.02, []
    for size in (-step, step):

        def shift(tensor, size=size):
            tensor[index] += size * delta[index]

        with model.edit({(what, 1): shift}):
            last = model(base).detach()[:, -1]
        values.append(float((last[0, 7] - last[0, 9] + last[1, 8] - last[1, 10]) / 2))
    slope = (values[1] - values[0]) / (2 * step) * (1 if gradient_at == "corrupt" else -1)
    expected = slope / (result.estimate.clean - result.estimate.corrupt)
    assert float(result.values[place]) == pytest.approx(expected, rel=0.05, abs=2e-3)


def test_the_sample_has_the_exact_effects_and_the_error_is_that_of_the_sample(language_model):
    model = HookedModel(language_model("llama"))
    result = attribution_patching(model, CLEAN, CORRUPT, METRIC, sample=8, seed=3)
    exact = activation_patching(model, CLEAN, CORRUPT, METRIC, "z", "head")
    assert len(set(result.places)) == 8
    for name, estimated, true in zip(result.places, result.estimated, result.exact, strict=True):
        assert float(true) == pytest.approx(exact[name], abs=1e-5)
        assert float(estimated) == pytest.approx(result.estimate[name], abs=1e-9)
    expected = (result.estimated - result.exact).square().mean().sqrt()
    assert result.error == pytest.approx(float(expected)) and -1 <= result.correlation <= 1


def test_results_are_kept_and_drawn(language_model, tmp_path):
    result = attribution_patching(HookedModel(language_model("gpt2")), CLEAN, CORRUPT, METRIC)
    result.save(tmp_path / "attribution.safetensors")
    loaded = AttributionPatching.load(tmp_path / "attribution.safetensors")
    assert torch.equal(loaded.values, result.values) and loaded.places == result.places
    assert "exact" in result.plot().get_ylabel() and len(repr(result)) <= 200
    assert "gradient at corrupt" in repr(result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gradient_at": "both"}, "gradient_at is one of"),
        ({"sample": 1}, "sample is a whole number from 2 on"),
        ({"corrupt": CLEAN}, "means nothing"),
        ({"what": "resid_pre"}, "has no heads"),
    ],
)
def test_what_makes_no_sense_is_refused(language_model, arguments, message):
    given = {"clean": CLEAN, "corrupt": CORRUPT, "metric": METRIC, **arguments}
    with pytest.raises(ArgumentError, match=message):
        attribution_patching(HookedModel(language_model("gpt2")), **given)
