"""The experiments run, with few steps, and write what they say."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import feature_viz


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """The first 80 of the shapes: drawing 1,000 takes longer than everything else."""
    batch = feature_viz.ShapesDataset.batch
    monkeypatch.setattr(feature_viz.ShapesDataset, "batch", lambda self, which: batch(self, which[:80]))


def picture(*arguments, out):
    path = feature_viz.main([*map(str, arguments), "--steps", "2", "--device", "cpu", "--out", str(out)])
    with Image.open(path) as image:
        return image.size


def test_the_demo_shows_the_strongest_units_beside_images(tmp_path):
    width, height = picture("--per-layer", 1, out=tmp_path / "new" / "demo.png")
    assert width > 2 * height


@pytest.mark.parametrize("kind", feature_viz.PARAMETERIZATIONS)
def test_units_that_are_named_in_every_parameterization(tmp_path, kind):
    picture(
        "--units", "conv4:5", "conv2:1", "conv4:6", "--parameterization", kind, out=tmp_path / "units.png"
    )


def test_any_classifier_of_torchvision(tmp_path):
    torch.manual_seed(0)
    picture("--model", "squeezenet1_1", "--size", 64, "--per-layer", 1, out=tmp_path / "units.png")
    for index in range(2):
        Image.new("RGB", (70, 90), (80 * index, 100, 50)).save(tmp_path / f"{index}.jpg")
    picture(
        "--model",
        "squeezenet1_1",
        "--size",
        48,
        "--images",
        tmp_path,
        "--per-layer",
        1,
        out=tmp_path / "more.png",
    )


def test_units_are_kept_in_their_order_in_runs_of_one_layer():
    assert feature_viz.by_layer(["a:1", "a:2", "b:0", "a:3"]) == [["a:1", "a:2"], ["b:0"], ["a:3"]]


def test_the_examples_are_cut_out_where_the_unit_was_excited():
    """A bright spot in one image, found by a layer that passes pixels on, is in the middle of its crop."""
    images = torch.zeros(3, 3, 32, 32)
    images[1, :, 20, 9] = 1.0
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1))
    torch.nn.init.ones_(model[0].weight)
    views, none = feature_viz.small_views, torch.nn.Identity()
    subject = feature_viz.Subject(model, {"0": 9}, feature_viz.obj.Neuron, views, none, images)
    best = feature_viz.exciting_images(subject, "0:0")
    assert best.shape == (3, 3, 9, 9) and best[0, 0].nonzero().tolist() == [[4, 4]]


def test_a_unit_that_repeats_a_stronger_one_is_passed_over():
    """Of three units on images of one pixel, the second is the first scaled and the third another colour."""
    images = torch.zeros(20, 3, 8, 8)
    images[0, 0], images[1, 1] = 1.0, 0.9
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1, bias=False))
    model[0].weight.data = torch.tensor([[1.0, 0, 0], [2.0, 0, 0], [0, 1.0, 0]])[:, :, None, None]
    views, none = feature_viz.small_views, torch.nn.Identity()
    subject = feature_viz.Subject(model, {"0": 8}, feature_viz.obj.Neuron, views, none, images)
    first, second = feature_viz.strongest_units(subject, 2)
    assert {first, second} in ({"0:0", "0:2"}, {"0:1", "0:2"})


def test_an_unknown_model_or_an_empty_folder_says_so(tmp_path):
    with pytest.raises(SystemExit, match="no model 'nonsense': there are shapes, inception5h and"):
        feature_viz.main(["--model", "nonsense"])
    with pytest.raises(SystemExit, match=r"no \.png or \.jpg images in"):
        feature_viz.main(["--images", str(tmp_path)])
