"""The experiments on editing run with tiny settings, and write what they say they write."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import mass_editing
import rank_one_editing

from toumei.models import facts_gpt
from toumei.transformers.rome.edit import Edit


def test_rank_one_editing(tmp_path, capsys):
    path = rank_one_editing.main(
        ["--layer", "0", "--steps", "3", "--tokens", "3", "--out", str(tmp_path / "out.png")]
    )
    assert path.stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "before: Edit(r-rome, layer 0" in printed and "inside the edit" in printed
    assert Edit.load(tmp_path / "edit.safetensors", facts_gpt()[0]).layers == (0,)


def test_mass_editing(tmp_path, capsys):
    options = ["--facts", "1", "--at-once", "1", "2", "--weights", "1", "--texts", "300", "--layer", "0"]
    path = mass_editing.main([*options, "--out", str(tmp_path / "out.png")])
    assert path.stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("small steps", "memit", "emmet", "alphaedit", "r-rome"))


def test_another_model_needs_a_fact():
    with pytest.raises(SystemExit, match="--prompt"):
        rank_one_editing.main(["--model", "gpt2-xl"])
