"""The gallery of objectives runs, with few steps, and has every objective of the package in it."""

import inspect
import sys
from pathlib import Path

import pytest
from PIL import Image

import toumei.cnns.objectives as obj
from toumei.models import ShapesCNN

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import objectives_gallery as gallery


@pytest.fixture(scope="module")
def rows():
    model = ShapesCNN(pretrained=True).eval()
    world = gallery.World(model)
    return [make(model, world) for make in gallery.ROWS]


def parts(objective):
    yield objective
    for part in getattr(objective, "objectives", ()):
        yield from parts(part)


def test_the_gallery_shows_every_objective(rows):
    shown = {type(part).__name__ for row in rows for part in parts(row.objective)}
    kinds = {name for name in obj.__all__ if inspect.isclass(getattr(obj, name))}
    assert kinds - shown == {"Objective", "Pipeline"}


def test_every_picture_has_a_title_and_fits_into_its_row(rows):
    for row in rows:
        assert row.objective.images in (None, len(row.titles))
        assert len(row.before) + len(row.titles) <= gallery.COLUMNS


def test_the_gallery_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "ROWS", (gallery.references, gallery.two_networks))
    path = gallery.main(["--steps", "1", "--device", "cpu", "--out", str(tmp_path / "new" / "gallery.png")])
    with Image.open(path) as image:
        assert image.width > image.height
