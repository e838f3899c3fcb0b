"""The masking engine and the features under all methods that take parts away."""

import pytest
import torch
from torch import nn

from toumei.attribution import Blur, Constant, FromData, Gaussian, Inpaint, Lime
from toumei.attribution.base.problem_arguments import make_problem
from toumei.attribution.perturbation.features import features_of, segments
from toumei.attribution.perturbation.masking import Masking
from toumei.core.errors import ArgumentError, ShapeError


class Keep(nn.Module):
    """Keeps what it is given, and notes whether a graph would have been made."""

    def __init__(self):
        super().__init__()
        self.seen, self.sizes, self.inference = [], [], []

    def forward(self, x):
        self.seen.append(x.clone())
        self.sizes.append(len(x))
        self.inference.append(torch.is_inference_mode_enabled())
        return x.flatten(1).double().sum(1)


def scores(masking, masks, rows, samples=None):
    samples = torch.zeros_like(rows) if samples is None else samples
    return torch.cat([found for _, found in masking.stream(masks, rows, samples)])


def test_masks_choose_between_input_and_baseline_in_batches():
    model, inputs = Keep(), torch.randn(3, 4)
    masks, rows = torch.rand(10, 4) < 0.5, torch.randint(3, (10,))
    masking = Masking(make_problem(model, inputs, None), -1.0, batch_size=4)
    result = scores(masking, lambda positions: (masks[positions],), rows)
    made = torch.where(masks, inputs[rows], -1.0)
    assert torch.equal(torch.cat(model.seen), made) and model.sizes == [4, 4, 2] and all(model.inference)
    assert torch.allclose(result[:, 0], made.double().sum(1)) and not result.is_inference()
    assert torch.equal(masking.unmasked()[:, 0], inputs.double().sum(1))


def test_shares_mix_input_and_baseline():
    model, inputs = Keep(), torch.randn(1, 2, 3, 3)
    shares = torch.rand(5, 1, 3, 3)
    masking = Masking(make_problem(model, inputs, None), 2.0)
    scores(masking, lambda positions: (shares[positions],), torch.zeros(5, dtype=torch.long))
    assert torch.allclose(model.seen[0], shares * inputs + (1 - shares) * 2.0, atol=1e-6)


def test_baseline_samples_are_the_same_for_all_masks():
    model, inputs, data = Keep(), torch.randn(2, 4), torch.randn(6, 4)
    masking = Masking(
        make_problem(model, inputs, None), FromData(data, replace=False), baseline_samples=6, seed=1
    )
    samples, rows = torch.arange(6).repeat(2), torch.arange(2).repeat_interleave(6)
    scores(masking, lambda positions: (torch.zeros(len(positions), 4, dtype=torch.bool),), rows, samples)
    first, second = model.seen[0].split(6)
    assert torch.equal(first, second)
    assert torch.equal(first.sort(0).values, data.sort(0).values)
    assert Masking(make_problem(model, inputs, None), 0.0, baseline_samples=6).baseline_samples == 1


def test_a_fill_sees_what_is_kept():
    images, model = torch.rand(1, 3, 16, 16), Keep()
    mask = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    mask[..., 4:8, 4:8] = False
    masking = Masking(make_problem(model, images, None), Inpaint(2.0))
    scores(masking, lambda positions: (mask,), torch.zeros(1, dtype=torch.long))
    made = model.seen[0]
    assert torch.equal(made[mask.expand_as(made)], images[mask.expand_as(images)])
    hidden = ~mask.expand_as(made)
    assert (made[hidden] != images[hidden]).all()
    assert torch.allclose(made, Inpaint(2.0).fill(images, mask.expand_as(images)))


def test_a_model_that_writes_into_its_input_does_not_spoil_the_next_pass():
    class Writes(nn.Module):
        def forward(self, x):
            return x.mul_(0).add_(1).sum(1)

    inputs = torch.randn(2, 3)
    before = inputs.clone()
    masking = Masking(make_problem(Writes(), inputs, None), 0.0, batch_size=1)
    masking.unmasked()
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"baseline_samples": 0}])
def test_batch_sizes_and_baseline_samples_are_positive(options):
    with pytest.raises(ArgumentError, match="from 1 on"):
        Masking(make_problem(Keep(), torch.randn(1, 2), None), 0.0, **options)


def test_default_features_are_positions():
    found = segments(None, [torch.zeros(2, 5, 3, 4), torch.zeros(2, 6), torch.zeros(2, 7, 8)])
    assert found.count == 12 + 6 + 7
    assert [tuple(index.shape) for index in found.index] == [(1, 3, 4), (6,), (7, 1)]
    pictures = features_of(make_problem(Keep(), torch.rand(1, 3, 20, 20), None), None)
    assert pictures.index[0].shape == (1, 20, 20) and 10 < pictures.count < 100


def test_positions_are_those_of_all_axes_but_the_channels():
    tensors = [torch.zeros(2, 5, 7), torch.zeros(2, 3, 4, 5, 6), torch.zeros(2, 6)]
    by_default = segments(None, tensors)
    assert [tuple(index.shape) for index in by_default.index] == [(5, 1), (1, 4, 5, 6), (6,)]
    signals = segments(None, tensors, channel_axis=1)
    assert [tuple(index.shape) for index in signals.index] == [(1, 7), (1, 4, 5, 6), (6,)]
    assert signals.count == 7 + 120 + 6
    with pytest.raises(ShapeError, match=r"channels are on axis 1 to 2 of \(2, 5, 7\), got 3"):
        segments(None, tensors, channel_axis=3)


def test_superpixels_of_pictures_whose_channels_are_last():
    images, model = torch.rand(2, 3, 20, 24), Keep()
    first = features_of(make_problem(model, images, None), None)
    last = features_of(make_problem(model, images.permute(0, 2, 3, 1), None), None, channel_axis=3)
    assert last.count == first.count
    assert torch.equal(last.index[0], first.index[0].permute(0, 2, 3, 1))


@pytest.mark.parametrize("per_input", [False, True])
def test_spreading_keeps_sums_and_masks_follow_features(per_input):
    tensors = [torch.zeros(2, 3, 4, 4), torch.zeros(2, 5)]
    first = torch.randint(3, (2, 1, 4, 4) if per_input else (4, 4))
    second = torch.tensor([2, 2, 7, 7, 7])
    found = segments([first, second], tensors)
    values = torch.randn(2, 2, found.count)
    spread = found.spread(values, tensors)
    total = sum(part.flatten(2).sum(2) for part in spread)
    present = torch.zeros(2, found.count)
    for row, members in enumerate(found.members(2)):
        present[row, members] = 1
    assert torch.allclose(total, (values * present).sum(2), atol=1e-5)
    keep = torch.rand(2, found.count) < 0.5
    masks = found.masks(keep, torch.arange(2))
    for row in range(2):
        index = found.index[0][row] if per_input else found.index[0]
        assert torch.equal(masks[0][row], keep[row][index])
    assert torch.equal(masks[1][:, -1], keep[:, -1])


def test_none_leaves_an_input_alone():
    tensors = [torch.zeros(2, 3), torch.zeros(2, 2)]
    found = segments([torch.tensor([5, 5, 8]), None], tensors)
    assert found.count == 2
    assert found.masks(torch.zeros(4, 2, dtype=torch.bool), torch.zeros(4, dtype=torch.long))[1].all()
    assert (found.spread(torch.ones(1, 2, 2), tensors)[1] == 0).all()


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (torch.rand(4, 4), ArgumentError, "whole numbers"),
        (torch.zeros(5, 4, dtype=torch.long), ShapeError, "do not broadcast"),
        ([torch.zeros(4, 4).long()] * 2, ArgumentError, "2 tensors of features for 1 input"),
        ([None], ArgumentError, "no features"),
        ({"image": torch.zeros(4, 4).long()}, ArgumentError, "the inputs have no names"),
    ],
)
def test_features_that_do_not_fit(features, error, message):
    with pytest.raises(error, match=message):
        features_of(make_problem(Keep(), torch.rand(2, 3, 4, 4), None), features)


def test_baselines_at_a_layer_are_its_activations(small_cnn):
    images = torch.rand(2, 3, 8, 8)
    problem = make_problem(small_cnn, images, 0, layer="relu1")
    for baseline in (Constant(0.5), Gaussian(0.2), Blur(2.0), Inpaint()):
        masking = Masking(problem, baseline, baseline_samples=2)
        assert masking._absent[0].shape == (masking.baseline_samples, 2, 6, 8, 8)
    at_half = problem.at_layer([torch.full_like(images, 0.5)], torch.arange(2))[0]
    assert torch.allclose(Masking(problem, 0.5)._absent[0][0], at_half)


def test_masked_pictures_keep_their_layout_in_memory(watched):
    seen = []

    class Net(nn.Module):
        def forward(self, images):
            seen.append(images.is_contiguous(memory_format=torch.channels_last))
            return images.mean((2, 3))

    image = torch.rand(1, 3, 8, 8).to(memory_format=torch.channels_last)
    quarters = torch.arange(4).reshape(2, 2).repeat_interleave(4, 0).repeat_interleave(4, 1)
    Lime(watched(Net()), samples=16, features=quarters, verbose=False)(image, 0)
    assert len(seen) > 1 and all(seen)
