"""The attribution experiments run, with few images and methods, and write what they say."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import attribution
import attribution_baselines
import attribution_sanity
import attribution_table
import tabular

import toumei.attribution
from toumei.attribution import GuidedBackprop, Method
from toumei.models import ShapesCNN


def only(monkeypatch, *names):
    """Leaves only the methods with these names in the experiment."""
    everything = attribution.all_methods

    def chosen(*args):
        return {name: method for name, method in everything(*args).items() if name in names}

    monkeypatch.setattr(attribution, "all_methods", chosen)


@pytest.fixture
def few(monkeypatch):
    only(monkeypatch, "Saliency", "GradCam", "LayerConductance", "KernelShap")


def test_every_method_of_the_library_is_compared():
    classes = [kind for kind in vars(toumei.attribution).values() if isinstance(kind, type)]
    methods = [kind.__name__ for kind in classes if issubclass(kind, Method) and kind is not Method]
    compared = attribution.all_methods(ShapesCNN(), attribution.LAYERS, torch.rand(1, 3, 64, 64), 300)
    assert sorted(compared) == sorted(methods)


def test_methods_on_shapes_as_a_figure(tmp_path, capsys, few):
    out = tmp_path / "new" / "methods.png"
    assert attribution.main(["--images", "1", "--samples", "90", "--out", str(out)]) == out
    with Image.open(out) as image:
        assert image.size[1] > image.size[0]
    assert "KernelShap" in capsys.readouterr().out


def test_the_table_of_shapes(tmp_path, few):
    out = tmp_path / "new" / "table.md"
    attribution_table.main(["--images", "2", "--networks", "2", "--samples", "90", "--out", str(out)])
    rows = [line for line in out.read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 5 and all(line.count("|") == 9 for line in rows)
    assert "2 images" in out.read_text() and "{" not in out.read_text()


def test_what_is_above_chance_in_the_mean_over_networks():
    random = [
        {"inside": torch.tensor([share, share + 0.2]), "inside_chance": torch.tensor([0.1, 0.1])}
        for share in (0.1, 0.3)
    ]
    mean, error = attribution_table.above_chance(random, "inside")
    assert mean == pytest.approx(0.2) and error == pytest.approx(2 * 0.1)
    assert attribution_table.above_chance([{"balance": torch.ones(3)}] * 2, "balance") == (1.0, 0.0)


def test_wilson_intervals_are_where_the_score_test_rejects():
    for share, count in ((0.94, 100), (0.5, 20), (1.0, 40), (0.0, 40)):
        for end in attribution_table.wilson(share, count):
            deviation = (end * (1 - end) / count) ** 0.5
            assert abs(share - end) == pytest.approx(1.96 * deviation, abs=1e-9)


def test_without_weights_or_a_photograph_it_says_so(tmp_path):
    with pytest.raises(SystemExit, match="no weights"):
        attribution.main(["--weights", str(tmp_path / "none.safetensors")])


def test_methods_on_a_photograph_with_real_weights(tmp_path, capsys, monkeypatch, realdata):
    only(monkeypatch, "LRP", "GradCam")
    monkeypatch.setattr(attribution, "compare", partial(attribution.compare, samples=4, steps=4))
    weights, image = realdata / "squeezenet1_1" / "model.safetensors", realdata / "images" / "parrot.jpg"
    out = tmp_path / "photograph.png"
    attribution.main(["--weights", str(weights), "--image", str(image), "--out", str(out)])
    said = capsys.readouterr().out
    assert said.startswith("macaw, ") and "LRP" in said and "GradCam" in said
    with Image.open(out) as picture:
        assert picture.size[0] > 1000


def test_baselines(tmp_path, capsys, monkeypatch):
    few = {name: attribution_baselines.kinds()[name] for name in ("gray", "other images")}
    monkeypatch.setattr(attribution_baselines, "kinds", lambda: few)
    monkeypatch.setattr(attribution_baselines, "CELLS", 3)
    out = tmp_path / "baselines.png"
    attribution_baselines.main(["--images", "1", "--samples", "20", "--draws", "2", "--out", str(out)])
    assert out.stat().st_size > 10_000 and capsys.readouterr().out.count("mass inside") == 2


def test_sanity(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(attribution_sanity, "LAYERS", ("head", "conv6"))
    monkeypatch.setattr(attribution_sanity, "methods_of", lambda model: [GuidedBackprop(model)])
    out = tmp_path / "sanity.png"
    attribution_sanity.main(["--images", "1", "--draws", "1", "--out", str(out)])
    assert out.stat().st_size > 10_000 and "GuidedBackprop" in capsys.readouterr().out


def test_a_table_with_names(tmp_path, capsys):
    out = tmp_path / "new" / "tabular.png"
    few = ["--rows", "3", "--trees", "5", "--steps", "100", "--out", str(out)]
    assert tabular.main(few) == out
    with Image.open(out) as image:
        assert image.size[0] == 1300
    said = capsys.readouterr().out
    assert said.count("of 3 tumours named rightly") == 2 and said.count("explains: malignant") == 2
