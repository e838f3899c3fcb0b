"""Frames of pictures that cannot be told from a white page: in figures and pages, never in saved pixels."""

import re

import pytest
import torch
from PIL import Image

from toumei import plots
from toumei.attribution import Saliency, overlay
from toumei.cnns import Visualization
from toumei.models import ShapesCNN

WHITE, DARK = torch.full((3, 6, 8), 0.97), torch.full((3, 6, 8), 0.2)
HALF = torch.cat([WHITE[:, :, :4], DARK[:, :, :4]], 2)  # white on the left


def boxes(ax):
    """Left, top, right and bottom of each frame in the axes."""
    return [
        path.get_extents().extents.round(6).tolist() for each in ax.collections for path in each.get_paths()
    ]


@pytest.mark.parametrize("titles", [(), ("a", "b", "c", "d")])
def test_a_grid_frames_the_pictures_with_a_white_edge_where_they_are(titles):
    images = torch.stack([DARK, WHITE, HALF, torch.ones(3, 6, 8)])  # the last is an empty place
    ax = plots.image_grid(images, titles, columns=2)
    canvas = ax.images[0].get_array()
    found = [[round(side + 0.5) for side in box] for box in boxes(ax)]
    assert len(found) == 2
    for (left, top, right, bottom), image in zip(found, (WHITE, HALF), strict=True):
        shown = torch.as_tensor(canvas[top:bottom, left:right]).permute(2, 0, 1)
        assert torch.equal(shown, image)


def test_pictures_beside_their_examples_have_frames_one_for_each():
    groups = {"picture": [WHITE[None], DARK[None]], "highest": [torch.stack([WHITE, DARK, HALF, DARK])] * 2}
    ax = plots.side_by_side(groups, ["a", "b"])
    canvas = torch.as_tensor(ax.images[0].get_array())
    assert len(boxes(ax)) == 1 + 2 + 2
    for left, top, right, bottom in boxes(ax):
        inside = canvas[round(top + 0.5) : round(bottom + 0.5), round(left + 0.5) : round(right + 0.5)]
        around = canvas[round(top - 0.5), round(left + 0.5)]
        assert float(inside[1, 1].max()) < 0.98 and float(around.min()) == 1  # the picture begins here


def test_a_white_picture_in_an_overlay_has_a_frame_and_a_dark_one_none():
    images = torch.stack([torch.ones(3, 32, 32), torch.zeros(3, 32, 32)])
    images[:, :, 10:20, 10:20] = 0.5
    ax = overlay([Saliency(ShapesCNN())(images, "disc")], images, show=["original"])
    assert boxes(ax) == [[0, 0, 32, 32]]


def test_pages_frame_the_places_of_white_pictures():
    html = plots.figure(torch.stack([DARK, WHITE, DARK, HALF]), "four")
    frames = re.findall(r"left:([\d.]+)%;top:([\d.]+)%;width:([\d.]+)%;height:([\d.]+)%", html)
    tall, wide = plots.montage(torch.stack([DARK, WHITE, DARK, HALF])).shape[1:]
    found = [[float(number) / 100 for number in frame] for frame in frames]
    pixels = [[x * wide, y * tall, w * wide, h * tall] for x, y, w, h in found]
    assert torch.allclose(torch.tensor(pixels), torch.tensor([[12.0, 0, 8, 6], [12, 10, 8, 6]]), atol=1e-3)
    assert "outline" in plots.picture(WHITE) and "outline" not in plots.picture(DARK)
    assert "absolute" not in plots.figure(DARK[None], "one")
    alpha = torch.cat([WHITE, torch.zeros(1, 6, 8)])  # transparent: there is no edge to see
    assert "outline" not in plots.picture(alpha)


def test_a_white_result_in_a_notebook_has_a_frame():
    result = Visualization(WHITE[None], torch.zeros(1, 1))
    assert "outline" in result._repr_html_() and boxes(result.plot())


def test_saved_pixels_have_no_frame(tmp_path):
    assert plots.to_pil(WHITE).getextrema() == ((247, 247),) * 3
    plots.save_pixels(WHITE, tmp_path / "one.png")
    plots.save_grid(WHITE[None], tmp_path / "grid.png")
    for name in ("one.png", "grid.png"):
        with Image.open(tmp_path / name) as image:
            assert [low for low, _ in image.convert("RGB").getextrema()] == [247] * 3
