"""The unit strings, and activations of any model in one layout."""

import pytest
import torch

from toumei.core import Unit, channels_first, parse
from toumei.core.errors import ShapeError, UnitError
from toumei.core.units import check_channels, position_index


@pytest.mark.parametrize(
    "unit",
    [Unit("mixed3a"), Unit("a.b.0", 7), Unit("layer", 7, (3,)), Unit("layer", 0, (0, 12))],
)
def test_a_unit_survives_being_written_and_read(unit):
    assert parse(str(unit)) == unit


@pytest.mark.parametrize(
    "text", ["", ":3", "a:", "a:b", "a:-1", "a:1:2:3:4", "a:1.5", "a::1", "a:²", None, 3]
)
def test_a_malformed_unit_shows_the_grammar(text):
    with pytest.raises(UnitError, match="cannot read the unit .*'layer:channel:y:x'"):
        parse(text)


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
    ("shape", "text", "place"),
    [
        ((1, 4, 5, 8), "l:0", (2, 4)),
        ((1, 4, 5, 8), "l:0:4:7", (4, 7)),
        ((1, 4, 6, 6), "l:0", (3, 3)),
    ],
)
def test_positions_on_maps_are_y_then_x(shape, text, place):
    marked = torch.zeros(shape)
    marked[:, :, place[0], place[1]] = 1
    assert channels_first(marked)[0, 0, position_index(marked, parse(text))] == 1


def test_positions_of_tokens():
    tokens = torch.zeros(1, 197, 16)
    assert position_index(tokens, parse("l:0:0")) == 0
    assert position_index(tokens, parse("l:0:196")) == 196
    assert position_index(tokens, parse("l:0:0:0")) == 1
    assert position_index(tokens, parse("l:0:2:3")) == 1 + 2 * 14 + 3
    assert position_index(tokens, parse("l:0")) == 1 + 7 * 14 + 7
    assert position_index(torch.zeros(1, 16, 9), parse("l:0")) == 2 * 4 + 2


@pytest.mark.parametrize("text", ["l:0:5:0", "l:0:0:8", "l:0:3"])
def test_a_position_outside_shows_the_size(text):
    with pytest.raises(UnitError, match=r"layer 'l'.*\(5, 8\)"):
        position_index(torch.zeros(1, 4, 5, 8), parse(text))


def test_a_channel_outside_shows_how_many_there_are():
    check_channels([0, 3], torch.zeros(1, 4, 5), "l")
    with pytest.raises(UnitError, match="no channel 4 in layer 'l': it has 4 channels, 0 to 3"):
        check_channels([0, 4], torch.zeros(1, 4, 5), "l")
