"""The experiment on features runs, with few activations, and writes what it says."""

import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import features

from toumei.transformers import SparseAutoencoder, load_saelens

FEW = ["--features", "32", "--k", "4", "--tokens", "8000", "--step", "200", "--device", "cpu", "--count", "2"]


def test_features_are_trained_measured_and_shown(tmp_path):
    out = tmp_path / "new" / "features.png"
    found = features.main([*FEW, "--corpus-tokens", "1500", "--shown-tokens", "600", "--out", str(out)])
    assert found.reconstruction.active <= 4 and found.clean < found.zeroed
    with Image.open(out) as image:
        assert image.width > image.height
    assert out.with_suffix(".html").read_text().count("<h2>") == 32
    saved = SparseAutoencoder.load(out.with_suffix(".safetensors"))
    assert load_saelens(tmp_path / "new" / "features_saelens").features == saved.features == 32


def test_a_model_needs_texts():
    with pytest.raises(SystemExit):
        features.main(["--model", "gpt2"])
