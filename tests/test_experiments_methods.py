"""The experiments with photographs run, with few steps, and write what they say."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import caricature
import deep_dream
import style_transfer


def picture(experiment, *arguments, out):
    path = experiment.main([*map(str, arguments), "--device", "cpu", "--out", str(out)])
    with Image.open(path) as image:
        return image.size


def test_caricatures_of_shapes_and_of_a_photograph(tmp_path):
    picture(caricature, "--steps", 1, out=tmp_path / "new" / "shapes.png")
    torch.manual_seed(0)
    Image.new("RGB", (70, 90), (80, 100, 50)).save(tmp_path / "photograph.jpg")
    options = ("--image", tmp_path / "photograph.jpg", "--size", 40, "--steps", 1)
    width, height = picture(caricature, "--model", "squeezenet1_1", *options, out=tmp_path / "one.png")
    assert width > 3 * height


def test_dreams_as_a_pair_and_as_an_animation(tmp_path):
    options = ("--height", 48, "--octaves", 2, "--steps", 1)
    width, height = picture(deep_dream, *options, out=tmp_path / "dream.png")
    assert width > height
    picture(deep_dream, *options, "--objective", "conv4:3", out=tmp_path / "dream.gif")
    with pytest.raises(SystemExit, match="Name it with --objective"):
        deep_dream.main(["--model", "squeezenet1_1"])


@pytest.mark.parametrize("model", ["shapes", "squeezenet1_1", "inception5h"])
def test_styles_as_any_network_sees_them(tmp_path, model):
    torch.manual_seed(0)
    width, height = picture(
        style_transfer, "--model", model, "--height", 48, "--steps", 1, out=tmp_path / "style.png"
    )
    assert width > 2 * height


@pytest.mark.parametrize("experiment", [caricature, deep_dream, style_transfer])
def test_an_unknown_model_says_so(experiment):
    with pytest.raises(SystemExit, match="no model 'nonsense': there are shapes"):
        experiment.main(["--model", "nonsense"])
