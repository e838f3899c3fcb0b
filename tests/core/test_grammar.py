"""The grammar of layers and units: what is read, what is written, what is refused."""

import pytest

from toumei.core import Layer, Unit, parse, parse_layer
from toumei.core.errors import UnitError


@pytest.mark.parametrize(
    "layer",
    [
        Layer("layer3.0.conv2"),
        Layer(""),
        Layer("layer2.0.relu", run=0),
        Layer("lstm", part=(1,)),
        Layer("lstm", part=(1, 0)),
        Layer("bert", part=("pooler_output",)),
        Layer("transformer.h.0.attn", "softmax"),
        Layer("layer3.0", "add", 1),
        Layer("", "add", 12, ("values", -1)),
    ],
)
def test_a_layer_survives_being_written_and_read(layer):
    assert parse_layer(str(layer)) == layer


def test_the_part_may_come_before_the_run():
    assert parse_layer("lstm[1]#0") == parse_layer("lstm#0[1]") == Layer("lstm", run=0, part=(1,))


@pytest.mark.parametrize(
    "text", ["a#", "a#x", "a/b/c", "a[", "a]", "a[]", "a/", "a#1#2", "/", "a#-1", None, 3]
)
def test_a_malformed_layer_shows_the_grammar(text):
    with pytest.raises(UnitError, match="cannot read the layer .*'#run' for one of its runs"):
        parse_layer(text)


def test_a_unit_where_a_layer_is_expected_says_so():
    with pytest.raises(UnitError, match="'mixed3a:74': a layer is expected here and ':' names a unit"):
        parse_layer("mixed3a:74")


@pytest.mark.parametrize(
    "unit",
    [
        Unit("mixed3a"),
        Unit("a.b.0", 7),
        Unit("layer", 7, (3,)),
        Unit("layer", 0, (0, 12)),
        Unit("layer3.0/add#1", 5, (2, 0, 3)),
        Unit("lstm[1]", 4),
    ],
)
def test_a_unit_survives_being_written_and_read(unit):
    assert parse(str(unit)) == unit


def test_a_unit_object_is_taken_as_it_is():
    unit = Unit("features.1", 5, channel_axis=-1)
    assert parse(unit) is unit


@pytest.mark.parametrize(
    "text",
    ["", ":3", "a:", "a:b", "a:-1", "a:1:2:3:4:5", "a:1.5", "a::1", "a:²", "a/b/c:1", "a#x:1", None, 3],
)
def test_a_malformed_unit_shows_the_grammar(text):
    with pytest.raises(UnitError, match="cannot read the unit .*'layer:channel:y:x'"):
        parse(text)
