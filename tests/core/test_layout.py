"""Where the channels and positions of an activation are, by rank, by name and by grid."""

import pytest
import torch

from toumei.core import Unit, channels_first, parse, with_channels_first
from toumei.core.errors import ShapeError, UnitError
from toumei.core.layout import LaidOut, Layout, channels_of


@pytest.mark.parametrize(
    ("shape", "axis", "expected"),
    [
        ((2, 5), None, (2, 5, 1)),
        ((2, 5, 3, 4), None, (2, 5, 12)),
        ((2, 7, 5), None, (2, 5, 7)),
        ((2, 5, 7), 1, (2, 5, 7)),
        ((2, 3, 4, 5), -1, (2, 5, 12)),
        ((2, 5, 3, 4, 6), None, (2, 5, 72)),
    ],
)
def test_channels_first_gathers_each_channel(shape, axis, expected):
    activation = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    laid_out = channels_first(activation, axis)
    assert laid_out.shape == expected
    named = {None: 2 if len(shape) == 3 else 1, -1: len(shape) - 1}.get(axis, axis)
    for channel in range(expected[1]):
        assert torch.equal(laid_out[:, channel].flatten(), activation.select(named, channel).flatten())


def test_an_activation_without_such_an_axis_is_refused():
    for activation, axis in ((torch.zeros(3), None), (torch.zeros(2, 3), 2), (torch.zeros(2, 3), 0)):
        with pytest.raises(ShapeError, match="a batch and a channel axis"):
            channels_first(activation, axis)


@pytest.mark.parametrize(
    ("shape", "text", "position"),
    [
        ((1, 4, 5, 8), "l:0", (2, 4)),
        ((1, 4, 5, 8), "l:0:4:7", (4, 7)),
        ((1, 4, 6, 6), "l:0", (3, 3)),
        ((1, 4, 3, 4, 5), "l:0:2:0:3", (2, 0, 3)),
        ((1, 4, 3, 4, 5), "l:0", (1, 2, 2)),
    ],
)
def test_positions_on_maps_and_volumes(shape, text, position):
    marked = torch.zeros(shape)
    marked[(slice(None), slice(None), *position)] = 1
    channels = with_channels_first(marked, layer="l")
    assert channels.values[0, 0, channels.index(parse(text).position)] == 1


def test_positions_of_tokens_are_numbers_or_places_on_the_grid():
    tokens = with_channels_first(torch.zeros(1, 4 + 32, 16), Layout(2, (4, 8), 2), "l")
    assert tokens.index((0,)) == 0 and tokens.index((35,)) == 35
    assert tokens.index((0, 0)) == 2 and tokens.index((3, 7)) == 2 + 31
    assert tokens.index((2, 3)) == 2 + 2 * 8 + 3 and tokens.index(None) == 2 + 2 * 8 + 4


def test_maps_of_tokens_leave_class_and_register_tokens_out():
    values = torch.rand(2, 1 + 12 + 2, 5)
    maps = with_channels_first(values, Layout(2, (3, 4), 1), "l").maps()
    assert maps.shape == (2, 5, 3, 4) and torch.equal(maps[1, :, 2, 0], values[1, 1 + 8])


def test_maps_of_signals_and_volumes():
    signal, volume = torch.rand(2, 3, 7), torch.rand(2, 3, 4, 5, 6)
    assert torch.equal(with_channels_first(signal, channel_axis=1).maps(), signal[:, :, None])
    assert torch.equal(with_channels_first(volume).maps(), volume)


def test_a_grid_that_is_given_stands_at_the_end_of_the_tokens():
    values = torch.rand(1, 197, 4)
    channels = with_channels_first(values, layer="l", grid=(14, 14))
    assert channels.offset == 1 and channels.index((2, 3)) == 1 + 2 * 14 + 3


def test_without_a_grid_tokens_are_a_sequence_and_a_place_in_the_picture_is_an_error():
    text = with_channels_first(torch.zeros(1, 17, 4), layer="l")
    assert text.index(None) == 8 and text.index((16,)) == 16
    for position in ((1, 2), None):
        pictured = with_channels_first(torch.zeros(1, 17, 4), Layout(2, pictured=True), "l")
        with pytest.raises(UnitError, match=r"grid of the 17 positions of layer 'l'.*grid=\(height"):
            pictured.index(position)
    with pytest.raises(ShapeError, match="the grid"):
        text.maps()
    with pytest.raises(ShapeError, match=r"grid=\(5, 4\) does not fit the 17 tokens of layer 'l'"):
        with_channels_first(torch.zeros(1, 17, 4), layer="l", grid=(5, 4))


@pytest.mark.parametrize("text", ["l:0:5:0", "l:0:0:8", "l:0:3"])
def test_a_position_outside_shows_the_size(text):
    with pytest.raises(UnitError, match=r"layer 'l'.*\(5, 8\)"):
        with_channels_first(torch.zeros(1, 4, 5, 8), layer="l").index(parse(text).position)


def test_a_channel_outside_shows_how_many_there_are():
    channels = with_channels_first(torch.zeros(1, 4, 5, 5), layer="l")
    channels.check([0, 3])
    with pytest.raises(UnitError, match="no channel 4 in layer 'l': it has 4 channels, 0 to 3"):
        channels.check([0, 4])


def test_an_axis_that_cannot_be_told_is_asked_for_and_a_unit_can_carry_it():
    activations = LaidOut({"l": torch.rand(2, 3, 4, 5)}, {"l": Layout(None)})
    with pytest.raises(ShapeError, match=r"layer 'l', \(2, 3, 4, 5\), cannot be told.*channel_axis="):
        channels_of(activations, "l")
    unit = Unit("l", 2, channel_axis=-1)
    assert torch.equal(channels_of(activations, unit).maps(), activations["l"].movedim(-1, 1))
    assert channels_of(activations, "l", channel_axis=2).values.shape == (2, 4, 15)
