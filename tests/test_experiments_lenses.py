"""The experiment on lenses runs, with few steps, and writes what it says."""

import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import lenses

from toumei.models import facts_gpt
from toumei.transformers.lenses import TunedLens

FEW = ["--steps", "4", "--tokens", "512", "--max-tokens", "1024", "--device", "cpu"]


def test_both_lenses_are_shown_and_the_trained_one_is_kept(tmp_path):
    out = tmp_path / "new" / "lenses.png"
    found = lenses.main([*FEW, "--out", str(out)])
    with Image.open(out) as image:
        assert image.width > 1.5 * image.height
    assert float(found.divergences[0, 0]) < float(found.divergences[0, 1])
    assert len(TunedLens.load(out.with_suffix(".safetensors"), facts_gpt()[0]).losses) == 4


def test_a_model_needs_texts():
    with pytest.raises(SystemExit):
        lenses.main(["--model", "gpt2"])
