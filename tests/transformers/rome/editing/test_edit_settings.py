"""The settings of edits: the papers' where there are some, and their limits."""

import pytest

from toumei.core.errors import ArgumentError
from toumei.transformers.rome.editing.settings import EditSettings, settings_for


def test_settings_are_the_papers_where_there_are_some():
    assert settings_for("rome", "gpt2", 48) == EditSettings(layers=(17,))
    memit_xl = settings_for("memit", "gpt2", 48)
    assert (memit_xl.layers, memit_xl.clamp, memit_xl.ridge) == ((13, 14, 15, 16, 17), 0.75, 20000.0)
    assert settings_for("rome", "gpt2", 48, [3], lr=0.1) == EditSettings(layers=(3,), lr=0.1)
    second, third = (settings_for("memit", "llama", 32, vocabulary=size) for size in (32000, 128256))
    assert (second.lr, second.clamp, third.lr, third.clamp) == (0.5, 4.0, 0.1, 0.75)
    assert settings_for("memit", "llama", 32, [1], prefixes=[[2, 3]]).prefixes == ((2, 3),)


@pytest.mark.parametrize(
    ("layers", "given", "message"),
    [
        (None, {}, "give the layer"),
        ([1], {"speed": 1}, "no setting 'speed'"),
        ([1], {"lr": 0}, "lr must be a number above 0"),
        ([1], {"ridge": -1}, "ridge must be a number at least 0"),
        ([1], {"lr": "0.5"}, "lr must be a number above 0, got '0.5'"),
        ([1], {"steps": 2.5}, "steps must be a whole number"),
        ([1], {"clamp": float("nan")}, "clamp must be a number above 0"),
        ([1], {"prefixes": ((3,),)}, "pairs"),
        ([1], {"prefixes": ((0, 5),)}, "pairs"),
        ([1], {"prefixes": 5}, "pairs .* got 5"),
        ([2, 1], {}, "ascending"),
        ([], {}, "ascending"),
    ],
)
def test_settings_that_make_no_sense(layers, given, message):
    with pytest.raises(ArgumentError, match=message):
        settings_for("memit", "bloom", 5, layers, **given)
