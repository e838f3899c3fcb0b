"""The experiments on atlases, circuits and channel groups run with few steps and write what they say."""

import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import atlas
import channel_groups
import circuits


def test_the_atlas_is_a_picture_and_a_page(tmp_path):
    arguments = "--count 60 --grid 3 --min-count 2 --layout pca --size 16 --steps 1 --device cpu --out"
    made = atlas.main([*arguments.split(), str(tmp_path / "new" / "atlas")])
    with Image.open(tmp_path / "new" / "atlas.png") as image:
        assert image.size == (48, 48)
    page = (tmp_path / "new" / "atlas.html").read_text(encoding="utf-8")
    assert page.count('class="cell"') == len(made.cells) and set(made.labels) <= set(made.categories)


def test_a_circuit_shows_each_unit_with_its_inputs(tmp_path):
    arguments = "--units 2 --inputs 3 --images 40 --steps 1 --before conv2 --after conv3 --out"
    weights = circuits.main([*arguments.split(), str(tmp_path / "new" / "circuit.png")])
    assert weights.weights.shape == (2, 32, 3, 3) and (tmp_path / "new" / "circuit.png").exists()


def test_channel_groups_are_shown_on_images(tmp_path):
    arguments = "--layer relu3 --groups 3 --images 4 --size 24 --steps 1 --out"
    groups = channel_groups.main([*arguments.split(), str(tmp_path / "groups.png")])
    assert groups.maps.shape[:2] == (4, 3) and (tmp_path / "groups.png").exists()
