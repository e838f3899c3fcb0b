"""The experiment that attributes answers to tokens runs, with few facts, and writes what it says."""

import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import token_attribution


def test_tokens_of_facts(tmp_path, monkeypatch):
    monkeypatch.setattr(token_attribution, "MOST_TOKENS", 7)
    path = token_attribution.main(["--facts", "1", "--out", str(tmp_path / "new" / "tokens.png")])
    with Image.open(path) as image:
        assert image.size[0] > 500
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    assert page.count("<h3>") == 8 and "http" not in page


def test_another_model_needs_a_text():
    with pytest.raises(SystemExit, match="--text"):
        token_attribution.main(["--model", "gpt2"])
