"""Arrays in, axes out: where pictures and titles stand, what is written, and that no display is needed."""

import os

import numpy as np
import pytest
import torch
from fresh_interpreters import run_fresh
from matplotlib import pyplot
from PIL import Image

from toumei import plots
from toumei.core.errors import ArgumentError, ShapeError


def pictures(images, channels=3, height=5, width=7):
    return torch.rand(images, channels, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def no_figure_left_open():
    pyplot.close("all")
    yield
    assert pyplot.get_fignums() == []


# ---------------------------------------------------------------- montage


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("gap", [0, 1, 4])
@pytest.mark.parametrize(
    ("images", "columns", "rows"), [(1, 1, 1), (6, 3, 2), (7, 3, 3), (5, 5, 1), (3, 1, 3)]
)
def test_montage_has_each_picture_at_its_place_and_is_white_elsewhere(images, columns, rows, gap, channels):
    batch = pictures(images, channels)
    canvas = plots.montage(batch, columns, gap)
    assert canvas.shape == (3, rows * 5 + (rows - 1) * gap, columns * 7 + (columns - 1) * gap)
    white = torch.ones_like(canvas, dtype=torch.bool)
    for index in range(images):
        y, x = (index // columns) * (5 + gap), (index % columns) * (7 + gap)
        assert torch.equal(canvas[:, y : y + 5, x : x + 7], batch[index].expand(3, -1, -1))
        white[:, y : y + 5, x : x + 7] = False
    assert torch.equal(canvas[white], torch.ones(int(white.sum())))


@pytest.mark.parametrize(
    ("images", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (12, 4), (64, 8), (200, 8)]
)
def test_montage_of_squares_is_about_square_and_at_most_eight_wide(images, columns):
    assert plots.montage(pictures(images, height=6, width=6), gap=0).shape[2] == 6 * columns


def test_montage_of_wide_pictures_has_fewer_columns_than_of_tall_ones():
    wide, tall = pictures(12, height=4, width=16), pictures(12, height=16, width=4)
    assert plots.montage(wide, gap=0).shape[2] // 16 < plots.montage(tall, gap=0).shape[2] // 4


def test_montage_clamps_and_leaves_the_pictures_alone():
    batch = torch.tensor([-1.0, 0.5, 2.0]).view(1, 1, 1, 3).requires_grad_()
    with pytest.warns(UserWarning, match="-1 to 2: what is outside is cut off"):
        canvas = plots.montage(batch)
    assert canvas[0].tolist() == [[0.0, 0.5, 1.0]]
    assert not canvas.requires_grad
    assert batch.detach().flatten().tolist() == [-1.0, 0.5, 2.0]


def test_montage_takes_half_precision():
    assert plots.montage(pictures(1).to(torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("size", [(3, 8, 8), (2, 5, 8, 8), (2, 2, 8, 8), (8, 8), (0, 3, 8, 8)])
def test_what_is_no_batch_of_pictures_is_an_error_that_gives_the_shape(size, tmp_path):
    match = rf"expected pictures \(N, 1, 3 or 4, H, W\), got \({', '.join(map(str, size))}\)"
    with pytest.raises(ShapeError, match=match):
        plots.montage(torch.zeros(size))
    with pytest.raises(ShapeError, match=match):
        plots.image_grid(torch.zeros(size))
    with pytest.raises(ShapeError, match=match):
        plots.save_grid(torch.zeros(size), tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- grids


def image_array(axes):
    return np.asarray(axes.images[0].get_array())


def test_a_grid_without_titles_is_the_montage():
    axes = plots.image_grid(pictures(5), columns=2)
    np.testing.assert_array_equal(image_array(axes), plots.montage(pictures(5), 2).permute(1, 2, 0).numpy())
    assert not axes.axison
    pyplot.close(axes.figure)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 20), (20, 5), (64, 64)])
def test_each_title_stands_above_its_own_picture(height, width):
    batch = torch.zeros(5, 3, height, width)
    axes = plots.image_grid(batch, ["a", "b", "c", "d", "e"], columns=2)
    black = image_array(axes).max(axis=2) == 0
    for index, text in enumerate(axes.texts):
        x, y = text.get_position()
        column, row = index % 2, index // 2
        columns, rows = np.flatnonzero(black.any(axis=0)), np.flatnonzero(black.any(axis=1))
        left, top = columns[column * width], rows[row * height]
        assert x == left + (width - 1) / 2
        assert top - 0.2 * width < y < top
        assert row == 0 or y > rows[row * height - 1]
    pyplot.close(axes.figure)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 24), (24, 6), (224, 224)])
@pytest.mark.parametrize("images", [1, 2, 9])
def test_every_title_of_a_new_figure_is_inside_of_it_and_covers_no_picture(height, width, images):
    axes = plots.image_grid(
        torch.zeros(images, 3, height, width), [f"conv:{index}" for index in range(images)]
    )
    figure = axes.figure
    figure.canvas.draw()
    shown = axes.transData.inverted()
    black = image_array(axes).max(axis=2) == 0
    for text in axes.texts:
        box = text.get_window_extent()
        assert figure.bbox.y0 <= box.y0
        assert box.y1 <= figure.bbox.y1
        (x0, y0), (x1, y1) = shown.transform([(box.x0, box.y1), (box.x1, box.y0)])
        rows = slice(max(round(y0 + 0.5), 0), max(round(y1 + 0.5), 0))
        assert not black[rows, max(round(x0), 0) : round(x1)].any()
    pyplot.close(figure)


def test_a_grid_is_drawn_where_one_says():
    figure, axes = pyplot.subplots()
    assert plots.image_grid(pictures(2), ["a"], ax=axes) is axes
    assert [text.get_text() for text in axes.texts] == ["a"]
    assert figure.axes == [axes]
    pyplot.close(figure)


def test_more_titles_than_pictures_is_an_error():
    with pytest.raises(ArgumentError, match="3 titles for 2 pictures"):
        plots.image_grid(pictures(2), ["a", "b", "c"])


# ---------------------------------------------------------------- files


def read(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
def test_saved_pixels_are_the_pixels(tmp_path, channels):
    image = pictures(1, channels)[0]
    plots.save_pixels(image, tmp_path / "new" / "x.png")
    expected = (image.expand(3, -1, -1) * 255).round().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(read(tmp_path / "new" / "x.png"), expected)


def test_a_saved_grid_shows_every_picture_at_its_full_resolution(tmp_path):
    stripes = (torch.arange(300) % 2).float().expand(2, 3, 300, 300)
    plots.save_grid(stripes, tmp_path / "new" / "x.png", ["left", "right"], columns=2)
    shown = read(tmp_path / "new" / "x.png")
    assert shown.shape[1] >= 2 * 300
    row = shown[shown.shape[0] // 2, :, 0].astype(int)
    assert (np.abs(np.diff(row)) > 200).sum() >= 2 * 299


def test_a_saved_grid_has_room_for_its_titles(tmp_path):
    for name, titles in (("without.png", ()), ("with.png", ["first", "second"])):
        plots.save_grid(torch.full((2, 3, 20, 20), 0.5), tmp_path / name, titles, columns=1)
    plain, titled = (read(tmp_path / name) for name in ("without.png", "with.png"))
    assert titled.shape[0] > plain.shape[0]
    assert (titled.max(axis=2) < 60).any()  # the letters
    assert not (plain.max(axis=2) < 60).any()


def test_an_animation_has_its_frames_and_their_durations(tmp_path):
    frames = [torch.full((2, 1, 4, 4), gray) for gray in (0.0, 0.3, 0.6, 1.0)]
    plots.save_animation(frames, tmp_path / "new" / "x.gif", seconds=0.1)
    with Image.open(tmp_path / "new" / "x.gif") as animation:
        durations = []
        for index in range(animation.n_frames):
            animation.seek(index)
            durations.append(animation.info["duration"])
        assert animation.size == (4 + 4 + 4, 4)
    assert durations == [100, 100, 100, 500]


def test_an_animation_of_nothing_is_an_error(tmp_path):
    with pytest.raises(ArgumentError, match="at least one frame"):
        plots.save_animation([], tmp_path / "x.gif")


def test_show_does_nothing_where_there_is_no_display():
    figure = pyplot.figure()
    plots.show()
    pyplot.close(figure)


def test_nothing_needs_a_display(tmp_path):
    script = """
import sys, torch, warnings
warnings.simplefilter("error")
from toumei import plots
assert "matplotlib" not in sys.modules
batch = torch.rand(2, 3, 8, 8)
plots.save_grid(batch, sys.argv[1] + "/grid.png", ["a", "b"])
plots.save_pixels(batch[0], sys.argv[1] + "/one.png")
plots.save_animation([batch, 1 - batch], sys.argv[1] + "/two.gif")
assert "matplotlib.pyplot" not in sys.modules
plots.image_grid(batch)
plots.show()
"""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    }
    done = run_fresh(script, str(tmp_path), environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.png", "one.png", "two.gif"]


def test_transparent_places_show_a_checkerboard_and_opaque_ones_their_color(tmp_path):
    image = pictures(1, 4, 16, 16)
    image[:, 3] = torch.tensor([[0.0] * 8 + [1.0] * 8]).expand(16, 16)
    canvas = plots.montage(image)
    torch.testing.assert_close(canvas[:, :, 8:], image[0, :3, :, 8:])
    assert torch.equal(canvas[:, :8, :8], torch.ones(3, 8, 8))
    torch.testing.assert_close(canvas[:, 8:, :8], torch.full((3, 8, 8), 0.8))
    plots.save_pixels(image[0], tmp_path / "alpha.png")
    from PIL import Image

    with Image.open(tmp_path / "alpha.png") as written:
        assert written.mode == "RGBA"
