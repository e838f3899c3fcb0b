"""The experiment on FFT and MACO runs, with few steps, and writes what it says."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import maco

FEW = ("--size", "32", "--crops", "1", "--steps", "1", "--device", "cpu")


def test_shapes_in_two_rows(tmp_path):
    path = maco.main([*FEW, "--out", str(tmp_path / "new" / "shapes.png")])
    with Image.open(path) as image:
        assert image.width > 1.5 * image.height  # four units by two ways


def test_units_of_several_layers_of_a_classifier_with_weights_from_a_file(tmp_path):
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    save_file(squeezenet1_1().state_dict(), tmp_path / "model.safetensors")
    named = ("--model", "squeezenet1_1", "--weights", str(tmp_path / "model.safetensors"))
    units = ("--units", "features.3:0", "features.4:1", "features.3:2")
    path = maco.main([*FEW, *named, *units, "--out", str(tmp_path / "classifier.png")])
    with Image.open(path) as image:
        assert 1.2 < image.width / image.height < 1.8  # three units by two ways


def test_an_unknown_model_and_no_units_say_so():
    with pytest.raises(SystemExit, match="no model 'nonsense': there are shapes"):
        maco.main(["--model", "nonsense"])
    with pytest.raises(SystemExit, match="Name them with --units"):
        maco.main(["--model", "squeezenet1_1"])
