"""Occlusion and RISE: closed forms, running sums, and what cannot be asked for."""

import pytest
import torch
from torch import nn

from toumei.attribution import Inpaint, Occlusion, Rise, Uniform
from toumei.core.errors import ArgumentError


class Linear(nn.Module):
    """A weighted sum of the numbers of pictures."""

    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))

    def forward(self, x):
        return (self.weight * x).flatten(1).sum(1)


def test_windows_of_one_give_the_terms_of_linear_models(watched):
    model = watched(nn.Linear(6, 2))
    inputs, baseline = torch.randn(3, 6), torch.randn(6)
    result = Occlusion(model)(inputs, target=[0, 1], baselines=baseline)
    assert torch.allclose(result[1].values, model.weight[1] * (inputs - baseline), atol=1e-5)
    tokens = Linear(5, 4)
    sequence = torch.randn(2, 5, 4)
    terms = (tokens.weight * sequence).sum(2).detach()
    assert torch.allclose(Occlusion(tokens)(sequence).values.sum(2), terms, atol=1e-5)


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (3, 2), (4, 1), (20, None), (None, None)])
def test_a_place_gets_the_mean_drop_of_the_windows_that_cover_it(watched, window, stride):
    model, images = watched(Linear(3, 9, 7)), torch.randn(2, 3, 9, 7)
    result = Occlusion(model, window=window, stride=stride, batch_size=5)(images)
    side = window or 1
    step = stride or max(1, side // 2)
    starts = [sorted({*range(0, size - min(side, size) + 1, step), max(size - side, 0)}) for size in (9, 7)]
    terms = (model.weight * images).sum(1).detach()
    total, covered = torch.zeros(2, 9, 7), torch.zeros(9, 7)
    for y in starts[0]:
        for x in starts[1]:
            area = (slice(y, y + side), slice(x, x + side))
            total[:, area[0], area[1]] += terms[:, area[0], area[1]].sum((1, 2))[:, None, None]
            covered[area] += 1
    assert covered.min() > 0
    assert torch.allclose(result.values.sum(1), total / covered, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "axis", "channels"), [((2, 9), 1, 1), ((9, 2), None, 2), ((2, 3, 4, 5), None, 1)]
)
def test_the_places_of_signals_tokens_and_films(watched, shape, axis, channels):
    model, inputs = watched(Linear(*shape)), torch.randn(2, *shape)
    result = Occlusion(model, window=1, channel_axis=axis)(inputs)
    terms = (model.weight * inputs).sum(channels, keepdim=True).detach()
    assert torch.allclose(result.values.sum(channels, keepdim=True), terms, atol=1e-5)
    assert torch.allclose(result.values, (terms / 2).expand(2, *shape), atol=1e-5)


def test_occlusion_finds_a_planted_patch():
    images = torch.zeros(1, 1, 16, 16)
    images[:, :, 4:8, 8:12] = 1.0

    class Patch(nn.Module):
        def forward(self, x):
            return x[:, 0, 4:8, 8:12].amin((1, 2))

    values = Occlusion(Patch(), window=4, stride=2)(images).values[0, 0]
    # each window that covers a position of the patch hides a part of it; outside of it some do not
    assert torch.equal(values == 1, images[0, 0] == 1)
    assert values.min() == 0 and values.max() == 1


def test_rise_is_the_mean_score_with_a_place_shown(watched):
    model, rows = watched(nn.Linear(5, 1)), torch.randn(3, 5)
    result = Rise(model, samples=6000)(rows)
    terms = (model.weight * rows).detach()
    # the term of the position in full, the others in half of all masks
    expected = terms + (terms.sum(1, keepdim=True) - terms) / 2 + model.bias.detach()
    wrong = (result.values - expected) / result.standard_error
    assert wrong.abs().max() < 4.5 and result.standard_error.max() < 0.05 * terms.abs().max()


def test_the_standard_error_of_rise_is_that_over_seeds(small_cnn):
    images = torch.rand(1, 3, 12, 12)
    results = [Rise(small_cnn, samples=60, cells=3, seed=seed)(images, target=1) for seed in range(25)]
    over_seeds = torch.stack([result.values for result in results]).std(0).mean()
    said = torch.stack([result.standard_error for result in results]).mean()
    assert 0.75 < said / over_seeds < 1.3


def test_a_constant_score_gives_a_flat_map_of_rise():
    class One(nn.Module):
        def forward(self, x):
            return x.new_ones(len(x))

    result = Rise(One(), samples=20)(torch.rand(1, 3, 20, 15))
    assert torch.allclose(result.values.sum(1), torch.ones(1, 20, 15))
    assert result.standard_error.max() < 1e-5


@pytest.mark.parametrize("method", [Occlusion, Rise])
def test_batches_seeds_and_targets(small_cnn, method):
    images = torch.rand(3, 3, 11, 8)
    options = {"samples": 12, "cells": 3} if method is Rise else {"window": 6}
    options["baseline_samples"] = 2
    for baselines in (0.2, Uniform(), Inpaint(2.0)):
        together = method(small_cnn, batch_size=4, **options)(
            images, target=[1, torch.tensor([0, 3, 2])], baselines=baselines
        )
        for index, target in enumerate((0, 3, 2)):
            alone = method(small_cnn, **options)(
                images[index : index + 1], target=target, baselines=baselines
            )
            assert torch.allclose(together[1].values[index], alone.values[0], atol=1e-5)


@pytest.mark.parametrize("method", [Occlusion, Rise])
def test_tuples_tokens_and_layers(method, watched):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.last = nn.Embedding(7, 3), nn.Linear(5, 2)

        def forward(self, tokens, table):
            return self.last(torch.cat([self.embed(tokens).mean(1), table], 1).tanh())

    options = {"samples": 40} if method is Rise else {}
    model = watched(Both().train())
    inputs = (torch.randint(7, (2, 4)), torch.randn(2, 2))
    result = method(model, **options)(inputs, target=0, baselines=[1, None])
    assert result.values[0].shape == (2, 4) and result.values[1].shape == (2, 2)
    layer = method(model, layer="embed", **options)(inputs, target=0, baselines=[1, None])
    assert layer.values.shape == (2, 4, 3)
    if method is Occlusion:
        assert torch.allclose(layer.values.sum(2), result.values[0], atol=1e-5)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (Occlusion, {"window": 0}, "from 1 on"),
        (Occlusion, {"window": 2, "stride": 3}, "never hidden: got 3 and a window of 2"),
        (Rise, {"samples": 1}, "samples is a whole number from 2 on"),
        (Rise, {"shown": 1.0}, "between 0 and 1"),
        (Rise, {"cells": 0}, "cells is a whole number from 1 on"),
        (Rise, {"batch_size": 0}, "batch_size"),
    ],
)
def test_what_cannot_be_asked_for(small_cnn, method, options, message):
    with pytest.raises(ArgumentError, match=message):
        method(small_cnn, **options)


def test_settings_that_do_not_exist_and_strides_that_only_the_input_shows_to_be_wrong(small_cnn):
    for method, setting in ((Occlusion, "windows"), (Rise, "masks")):
        with pytest.raises(TypeError, match=f"'{setting}'"):
            method(small_cnn, **{setting: 9})
    with pytest.raises(ArgumentError, match="never hidden: got 2 and a window of 1"):
        Occlusion(small_cnn, stride=2)(torch.rand(1, 3, 8, 8), target=0)
