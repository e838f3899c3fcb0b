"""Baselines: their values, their samples, and baselines that do not fit."""

import numpy as np
import pytest
import torch
from torch import nn

from toumei.attribution import (
    Blur,
    Constant,
    FromData,
    Gaussian,
    Inpaint,
    MaxDistance,
    Mean,
    Occlusion,
    Uniform,
)
from toumei.attribution.base.baseline_samples import BaselineSamples, as_baselines
from toumei.attribution.base.baselines import Fixed
from toumei.attribution.base.problem_arguments import make_problem
from toumei.core.errors import ArgumentError, ShapeError

ALL = [Constant(0.2), Mean(), Blur(2.0), MaxDistance(), Uniform(), Gaussian(), Inpaint()]


def seed(number=0):
    return torch.Generator().manual_seed(number)


@pytest.mark.parametrize("baseline", ALL, ids=repr)
def test_samples_have_the_shape_of_the_inputs_and_come_from_the_seed(baseline):
    images = torch.rand(2, 3, 9, 12)
    drawn = baseline.draw(images, 4, seed())
    assert drawn.shape == (4, 2, 3, 9, 12) and drawn.dtype == images.dtype
    assert torch.equal(drawn, baseline.draw(images, 4, seed()))
    assert baseline.is_random == (not torch.equal(drawn, baseline.draw(images, 4, seed(1))))


@pytest.mark.parametrize(
    "baseline", [*ALL, FromData(torch.rand(5, 3, 9, 12))], ids=lambda b: type(b).__name__
)
def test_an_input_gets_the_samples_that_it_has_alone(baseline):
    images, flatten = torch.rand(3, 3, 9, 12), nn.Flatten()
    together = BaselineSamples(make_problem(flatten, images, 0), baseline, 4, seed())
    for index in range(3):
        alone = BaselineSamples(make_problem(flatten, images[index : index + 1], 0), baseline, 4, seed())
        for draw in range(4):
            sample = together(torch.tensor([index]), torch.tensor([draw]))[0]
            assert torch.equal(sample, alone(torch.tensor([0]), torch.tensor([draw]))[0])


def test_means_blurs_and_far_ends():
    images = torch.rand(2, 3, 9, 12)
    assert torch.allclose(Mean().draw(images, 1)[0, 1, 2], images[1, 2].mean().expand(9, 12))
    tokens = torch.rand(2, 7, 4)
    assert torch.allclose(Mean().draw(tokens, 1)[0], tokens.mean(1, keepdim=True).expand(2, 7, 4))
    assert torch.allclose(Mean(1).draw(tokens, 1)[0], tokens.mean(2, keepdim=True).expand(2, 7, 4))
    flat = torch.full((1, 1, 9, 9), 0.3)
    assert torch.allclose(Blur(2.0).draw(flat, 1)[0], flat, atol=1e-6)
    assert Blur(2.0).draw(images, 1).std() < images.std()
    far = MaxDistance(0.0, 1.0).draw(images, 1)[0]
    assert torch.equal((far - images).abs(), torch.maximum(images, 1 - images))


def test_distributions():
    inputs = torch.full((1, 20_000), 0.4)
    uniform = Uniform(-1.0, 3.0).draw(inputs, 1, seed())
    assert uniform.min() >= -1 and uniform.max() <= 3 and abs(uniform.mean() - 1) < 0.05
    normal = Gaussian(0.5).draw(inputs, 1, seed())
    assert abs(normal.mean() - 0.4) < 0.02 and abs(normal.std() - 0.5) < 0.02
    assert abs(Gaussian(0.5, mean=0.0).draw(inputs, 1, seed()).mean()) < 0.02
    truncated = Gaussian(0.5, low=0.0, high=1.0).draw(inputs, 1, seed())
    assert truncated.min() >= 0 and truncated.max() <= 1
    kept = normal[(normal >= 0) & (normal <= 1)]
    assert abs(truncated.mean() - kept.mean()) < 0.02 and abs(truncated.std() - kept.std()) < 0.02


def test_rows_of_data_are_each_used_once_without_replacement():
    data = torch.arange(6.0)[:, None]
    drawn = FromData(data, replace=False).draw(torch.zeros(2, 1), 6, seed())
    assert torch.equal(drawn.sort(0).values, data[:, None].expand(6, 2, 1))


def test_inpainting_keeps_what_is_kept_and_continues_it_into_holes():
    images = torch.zeros(1, 3, 20, 20)
    images[..., 10:] = 1.0
    keep = torch.ones(1, 1, 20, 20, dtype=torch.bool)
    keep[..., 2:5, 2:5] = keep[..., 2:5, 15:18] = False
    filled = Inpaint(1.5).fill(images, keep.expand_as(images))
    assert torch.equal(filled[keep.expand_as(filled)], images[keep.expand_as(images)])
    assert filled[..., 2:5, 2:5].max() < 0.1 and filled[..., 2:5, 15:18].min() > 0.9
    nothing = Inpaint(1.5).fill(images, torch.zeros_like(keep).expand_as(images))
    assert torch.allclose(nothing, torch.full_like(images, 0.5), atol=1e-5)
    half = torch.full((1, 1, 20, 20), 0.5)
    assert torch.allclose(Constant(0.2).fill(images, half), 0.5 * images + 0.1, atol=1e-6)


def test_numbers_tensors_and_sequences_stand_for_baselines():
    inputs = [torch.zeros(2, 3), torch.zeros(2, 4)]
    assert as_baselines(None, inputs) == (Constant(), Constant())
    assert as_baselines([1, Mean()], inputs) == (Constant(1.0), Mean())
    assert as_baselines([np.float32(0.5), np.int64(2)], inputs) == (Constant(0.5), Constant(2.0))
    for shape in [(3,), (1, 3), (2, 3)]:
        (fixed,) = as_baselines(torch.ones(shape), inputs[:1])
        assert torch.equal(fixed.draw(inputs[0], 2), torch.ones(2, 2, 3))
        (as_array,) = as_baselines(np.ones(shape), inputs[:1])
        assert torch.equal(as_array.draw(inputs[0], 2), torch.ones(2, 2, 3))
    with pytest.raises(ArgumentError, match="3 baselines for 2 inputs"):
        as_baselines([0, 0, 0], inputs)
    for one in (torch.zeros(3), np.zeros(3)):
        with pytest.raises(ArgumentError, match="give one for each"):
            as_baselines(one, inputs)
    with pytest.raises(ArgumentError, match="a baseline is"):
        as_baselines("black", inputs)


def test_what_does_not_fit():
    rows = torch.zeros(2, 3)
    with pytest.raises(ShapeError, match="FromData"):
        Fixed(torch.zeros(7, 3)).draw(rows, 1)
    with pytest.raises(ShapeError, match="as the inputs"):
        FromData(torch.zeros(7, 4)).draw(rows, 1)
    with pytest.raises(ShapeError, match="at least one row"):
        FromData(torch.zeros(0, 3))
    for baseline in (Blur(), Inpaint()):
        with pytest.raises(ShapeError, match=f"a {type(baseline).__name__} baseline is for pictures"):
            baseline.draw(rows, 1)
    with pytest.raises(ArgumentError, match=r"would mix its columns: .* FromData\(rows\)"):
        Mean().draw(rows, 1)
    with pytest.raises(ShapeError, match=r"channels are on axis 1 to 2 of \(2, 3, 4\), got 3"):
        Mean(3).draw(torch.zeros(2, 3, 4), 1)


@pytest.mark.parametrize("baseline", [Mean(), Blur(), Uniform(), Gaussian(), Inpaint()], ids=repr)
def test_whole_numbers_have_no_means_and_no_noise(baseline):
    model, tokens = (
        nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(6, 2)),
        torch.tensor([[1, 5, 2]]),
    )
    with pytest.raises(ArgumentError, match=r"baseline of inputs of torch.int64: .* FromData\(rows\)"):
        Occlusion(model)(tokens, 1, baseline)
