"""RISE against sums over the masks that the network was shown."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from toumei.attribution import Rise


class Shown(nn.Module):
    """Two scores of pictures, which keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return torch.stack([x[:, 0, :3].sum((1, 2)).sin(), x.amax((1, 2, 3)) * x.mean((1, 2, 3))], 1)


def test_means_and_errors_are_sums_over_the_masks_that_were_shown():
    model, white = Shown(), torch.ones(1, 1, 7, 6)  # white pixels show the mask itself
    result = Rise(model, samples=23, cells=3, batch_size=5)(white, target=[0, 1])
    masks = torch.cat(model.seen)[1:24].double()  # after the picture itself
    scores = Shown()(masks).T[..., None, None, None]
    mean = (scores * masks).sum(1) / masks.sum(0)
    error = (masks * (scores - mean[:, None])).square().sum(1).sqrt() / masks.sum(0)
    assert torch.allclose(result.values[:, 0], mean.float(), atol=1e-6)
    assert torch.allclose(result.standard_error[:, 0], error.float(), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_inputs_share_masks_but_nothing_else(batch_size):
    images = torch.rand(3, 2, 7, 6)
    together = Rise(Shown(), samples=23, cells=3, batch_size=batch_size)(images, [0, 1])
    for index in range(3):
        alone = Rise(Shown(), samples=23, cells=3)(images[index, None], [0, 1])
        assert torch.allclose(alone.values[:, 0], together.values[:, index], atol=1e-6)
        assert torch.allclose(alone.standard_error[:, 0], together.standard_error[:, index], atol=1e-6)


@pytest.mark.parametrize("batch_size", [4, 64])
def test_each_mask_is_made_once_for_all_inputs(monkeypatch, batch_size):
    enlarge, made = functional.interpolate, []

    def counted(grid, *args, **options):
        made.append(len(grid))
        return enlarge(grid, *args, **options)

    monkeypatch.setattr(functional, "interpolate", counted)
    Rise(Shown(), samples=24, batch_size=batch_size)(torch.rand(10, 1, 7, 6), target=0)
    assert sum(made) == 24


def test_the_places_of_a_signal_are_named_by_the_axis_of_its_channels(watched):
    model = watched(nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()))
    signals = torch.randn(2, 3, 9)
    values = Rise(model, samples=50, channel_axis=1)(signals, target=1).values
    turned = Rise(nn.Sequential(Turned(), model), samples=50)(signals.transpose(1, 2), target=1).values
    assert torch.allclose(values, turned.transpose(1, 2), atol=1e-6)
    assert torch.equal(values[:, 0], values[:, 1]) and (values[:, :, 0] != values[:, :, 1]).all()


class Turned(nn.Module):
    """Tokens (N, L, C) as signals."""

    def forward(self, x):
        return x.transpose(1, 2)


def test_a_setting_that_does_not_exist_is_an_error():
    for place in (lambda: Rise(Shown(), masks=9), lambda: Rise(Shown())(torch.rand(1, 1, 8, 8), masks=9)):
        with pytest.raises(TypeError, match="unexpected keyword argument 'masks'"):
            place()
