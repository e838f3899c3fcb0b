"""What reshapes, joins and products make of axes, and that contradictions are no answer."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from toumei.core import survey, with_channels_first
from toumei.core.axes import grid_of, joined, map_axes, plain, regrouped
from toumei.core.errors import ShapeError


class Made(nn.Module):
    """Applies a function to a map (N, 8, H, W), to tokens (N, T, 8), or to a signal (N, 8, L)."""

    def __init__(self, function, kind="map"):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1) if kind != "signal" else nn.Conv1d(3, 8, 1)
        self.out, self.function, self.kind = nn.Identity(), function, kind

    def forward(self, x):
        x = self.conv(x)
        return self.out(self.function(x.flatten(2).mT if self.kind == "tokens" else x))


def found(function, kind="map", batch=2, height=4, width=6):
    x = torch.rand((batch, 3, width) if kind == "signal" else (batch, 3, height, width))
    model = Made(function, kind)
    seen = survey(model, ["out"], lambda: model(x))
    layout = seen.layouts["out"]
    return layout.channel_axis, layout.grid, layout.offset


def windows(x, size=2):
    """Windows of a map with channels last, as Swin cuts them."""
    n, height, width, channels = x.shape
    x = x.view(n, height // size, size, width // size, size, channels)
    return x.transpose(2, 3).reshape(-1, size * size, channels)


def put_back(x, n, height, width, size=2):
    x = x.view(n, height // size, width // size, size, size, -1)
    return x.transpose(2, 3).reshape(n, height, width, -1)


def shuffled(x):
    n, channels, height, width = x.shape
    return x.view(n, 2, channels // 2, height, width).transpose(1, 2).reshape(n, channels, height, width)


def heads(x):
    return x.view(len(x), -1, 2, 4).transpose(1, 2)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("kind", "function", "axis", "grid", "offset"),
    [
        ("tokens", lambda x: x, 2, (4, 6), 0),
        ("tokens", lambda x: windows(x.view(-1, 4, 6, 8)), 2, None, 0),
        (
            "tokens",
            lambda x: put_back(windows(x.view(-1, 4, 6, 8)), len(x), 4, 6).flatten(1, 2),
            2,
            (4, 6),
            0,
        ),
        ("tokens", lambda x: x.view(-1, 4, 6, 8).roll((1, 1), (1, 2)), 3, None, 0),
        ("tokens", lambda x: x.roll(1, 1), 2, None, 0),
        ("tokens", lambda x: torch.cat([x[:, :1] * 0, x], 1)[:, 1:], 2, (4, 6), 0),
        ("tokens", lambda x: torch.cat([x.new_zeros(len(x), 2, 8), x], 1), 2, (4, 6), 2),
        ("tokens", lambda x: torch.cat([x.new_zeros(len(x), 2, 8), x], 1)[:, 1:], 2, (4, 6), 1),
        ("tokens", lambda x: torch.cat([x.new_zeros(len(x), 2, 8), x], 1).split([2, 24], 1)[1], 2, (4, 6), 0),
        ("tokens", lambda x: heads(x).transpose(1, 2).reshape(x.shape), 2, (4, 6), 0),
        ("tokens", lambda x: heads(x), None, None, 0),
        ("tokens", lambda x: (heads(x) @ heads(x).mT).softmax(-1), 1, None, 0),
        ("tokens", lambda x: torch.einsum("ntc,cd->ntd", x, torch.rand(8, 5)), 2, (4, 6), 0),
        ("tokens", lambda x: torch.einsum("ntc,chd->nthd", x, torch.rand(8, 2, 4)), None, None, 0),
        ("tokens", lambda x: F.linear(x.mT, torch.rand(24, 24)).mT, None, None, 0),
        ("tokens", lambda x: x + F.linear(x.mT, torch.rand(24, 24)).mT, 2, (4, 6), 0),
        ("tokens", lambda x: F.linear(x.mT, torch.rand(24, 24)).mT + x, 2, (4, 6), 0),
        ("tokens", lambda x: x[:, torch.arange(24).flip(0)], 2, None, 0),
        ("tokens", lambda x: x.index_select(1, torch.tensor([3, 1])), 2, None, 0),
        ("tokens", lambda x: torch.stack([x, x], 1), 3, None, 0),
        ("map", shuffled, 1, None, 0),
        ("map", lambda x: F.unfold(x, 2, stride=2), 1, (2, 3), 0),
        ("map", lambda x: x.transpose(2, 3).flatten(2).mT, 2, None, 0),
        ("map", lambda x: x.mean(1), None, None, 0),
        (
            "map",
            lambda x: x.view(-1, 8, 2, 2, 2, 3).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 48),
            2,
            (2, 2),
            0,
        ),
        ("map", lambda x: x.flatten(0, 1)[:, None], None, None, 0),
        ("map", lambda x: torch.cat([x, torch.ones(len(x), 2, 4, 6)], 1), 1, None, 0),
        ("map", lambda x: F.pixel_unshuffle(x, 2), 1, None, 0),
        ("signal", lambda x: x.mT, 2, (6,), 0),
        ("signal", lambda x: torch.fft.fft(x).real, None, None, 0),
        ("signal", lambda x: x.repeat_interleave(2, 1), 1, (6,), 0),
    ],
)
def test_axes_are_followed_and_what_contradicts_is_unknown(batch, kind, function, axis, grid, offset):
    told = found(function, kind, batch)
    assert told == (axis, grid, offset)


@pytest.mark.parametrize(("height", "width"), [(1, 6), (4, 1), (1, 1)])
@pytest.mark.parametrize("batch", [1, 2])
def test_thin_grids_keep_both_sizes(batch, height, width):
    assert found(lambda x: x, "tokens", batch, height, width) == (2, (height, width), 0)
    class_token = lambda x: torch.cat([x.new_zeros(len(x), 1, 8), x], 1)  # noqa: E731
    assert found(class_token, "tokens", batch, height, width) == (2, (height, width), 1)


def test_parts_of_a_factor_are_the_whole_again_in_their_order_only():
    picture = map_axes((2, 8, 4, 6))
    split = regrouped(picture, (2, 8, 2, 2, 6))
    assert regrouped(split, (2, 8, 4, 6)) == picture
    swapped = (*split[:2], split[3], split[2], split[4])
    assert grid_of(regrouped(swapped, (2, 8, 24))[2]) is None
    assert grid_of(regrouped(split, (2, 8, 24))[2]) == ((4, 6), 0)


def test_joined_axes():
    assert joined([plain("unknown", 3), plain("channels", 5)]) == plain("channels", 8)
    assert grid_of(joined([plain("unknown", 2), plain("y", 3) + plain("x", 4)])) == ((3, 4), 2)
    assert grid_of(joined([plain("y", 3) + plain("x", 4), plain("y", 3) + plain("x", 4)])) is None


def test_a_grid_of_a_picture_of_another_size_is_not_used():
    model = Made(lambda x: x, "tokens")
    layout = survey(model, ["out"], lambda: model(torch.rand(1, 3, 4, 6))).layouts["out"]
    other = with_channels_first(torch.rand(1, 40, 8), layout, "out")
    with pytest.raises(ShapeError, match=r"grid=\(height, width\)"):
        other.maps()


def test_places_in_windows_are_no_places_on_a_map():
    model = Made(lambda x: windows(x.permute(0, 2, 3, 1)).unflatten(0, (len(x), -1)))
    seen = survey(model, ["out"], lambda: model(torch.rand(2, 3, 4, 6)))
    assert seen.layouts["out"].channel_axis == 3
    with pytest.raises(ShapeError, match="cannot be told"):
        with_channels_first(seen.activations["out"], seen.layouts["out"], "out").maps()
