"""The result of a run: what is written to disk, read back, drawn and printed."""

import base64
import io
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from PIL import Image

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.cnns import Visualization
from toumei.core.errors import ArgumentError


def pictures(images, channels=3, height=9, width=14, seed=1):
    return torch.rand(images, channels, height, width, generator=torch.Generator().manual_seed(seed))


def result(images=2, channels=3, snapshots=(0, 5, 10), **options):
    titles = tuple(f"conv1:{index}" for index in range(images))
    kept = {step: pictures(images, channels, seed=step + 2) for step in snapshots}
    losses = torch.linspace(0, -1, 11)[:, None].repeat(1, images)
    return Visualization(pictures(images, channels), losses, titles, kept, **options)


def read(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def eight_bit(image):
    """One picture (C, H, W) as a decoder returns it."""
    return np.broadcast_to((image * 255).round().permute(1, 2, 0).numpy(), (*image.shape[1:], 3)).astype(
        "uint8"
    )


@pytest.fixture(autouse=True)
def no_figure_left_open():
    pyplot.close("all")
    yield
    assert pyplot.get_fignums() == []


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["one.png", "ONE.PNG", "a/new/folder/one.png"])
def test_one_picture_is_written_pixel_by_pixel(tmp_path, channels, name):
    visualization = result(1, channels)
    visualization.save(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name), eight_bit(visualization.images[0]))


def test_values_outside_of_the_range_are_clamped_and_do_not_wrap(tmp_path):
    outside = torch.tensor([-0.3, 0.0, 1.0, 1.4]).expand(1, 3, 1, 4)
    with pytest.warns(UserWarning, match="-0.3 to 1.4"):
        Visualization(outside, torch.zeros(0, 1)).save(tmp_path / "x.png")
    assert read(tmp_path / "x.png")[0, :, 0].tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("name", ["many.png", "many.jpg", "many.jpeg", "MANY.PNG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_many_pictures_are_a_grid_that_shows_each_of_them(tmp_path, name, channels):
    colors = torch.tensor([0.0, 0.25, 0.5, 0.75]).view(4, 1, 1, 1).expand(4, channels, 8, 8)
    Visualization(colors, torch.zeros(0, 4), ("a", "b", "c", "d")).save(tmp_path / name)
    shown = read(tmp_path / name)
    for gray in (0, 64, 128, 191):
        share = (np.abs(shown.astype(int) - gray).max(axis=2) <= 3).mean()
        assert 0.1 < share < 0.25


def test_a_jpeg_of_one_picture_is_close_to_it(tmp_path):
    Visualization(torch.full((1, 3, 16, 16), 0.6), torch.zeros(0, 1)).save(tmp_path / "x.jpg")
    assert np.abs(read(tmp_path / "x.jpg").astype(int) - 153).max() <= 2


@pytest.mark.parametrize("name", ["x.gif", "X.GIF"])
def test_an_animation_has_a_frame_a_snapshot_in_the_order_of_the_steps(tmp_path, name):
    grays = {10: 1.0, 0: 0.0, 5: 0.5}
    snapshots = {step: torch.full((1, 3, 8, 8), gray) for step, gray in grays.items()}
    Visualization(torch.ones(1, 3, 8, 8), torch.zeros(10, 1), ("a",), snapshots).save(tmp_path / name)
    with Image.open(tmp_path / name) as animation:
        assert animation.n_frames == 3
        assert animation.info["loop"] == 0
        for index, gray in enumerate([0, 128, 255]):
            animation.seek(index)
            assert np.abs(np.asarray(animation.convert("RGB")).astype(int) - gray).max() <= 1


def test_an_animation_without_snapshots_says_how_to_take_some(tmp_path):
    with pytest.raises(ArgumentError, match=r"no snapshots to animate: optimize\(snapshots=\.\.\.\)"):
        result(snapshots=()).save(tmp_path / "x.gif")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.bmp", "x", "x.pt", "png"])
def test_another_ending_is_an_error_that_names_those_that_exist(tmp_path, name):
    with pytest.raises(ArgumentError, match=r"there are \.png, \.jpg, \.gif and \.safetensors"):
        result().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- reading back


@pytest.mark.parametrize("name", ["x.safetensors", "X.SAFETENSORS", "a/new/folder/x.safetensors"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_everything_comes_back_from_a_file_bit_for_bit(tmp_path, name, channels):
    saved = result(2, channels, snapshots=(0, 5, 10, 100), ended="stopped")
    saved.save(tmp_path / name)
    loaded = Visualization.load(tmp_path / name)
    assert torch.equal(loaded.images, saved.images)
    assert torch.equal(loaded.losses, saved.losses)
    assert (loaded.titles, loaded.ended, loaded.steps) == (saved.titles, "stopped", 11)
    assert list(loaded.snapshots) == [0, 5, 10, 100]
    assert all(torch.equal(loaded.snapshots[step], saved.snapshots[step]) for step in saved.snapshots)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_tensors_that_share_memory_or_lie_otherwise_can_be_written(tmp_path, memory_format):
    images = pictures(2).contiguous(memory_format=memory_format)
    snapshots = {0: images, 3: images[:1].expand(2, -1, -1, -1)}
    Visualization(images, torch.zeros(3, 2), ("ä", '"b"'), snapshots).save(tmp_path / "x.safetensors")
    loaded = Visualization.load(tmp_path / "x.safetensors")
    assert torch.equal(loaded.images, images)
    assert torch.equal(loaded.snapshots[3], images[[0, 0]])
    assert loaded.titles == ("ä", '"b"')


def test_a_run_without_steps_or_snapshots_comes_back(tmp_path, small_cnn):
    fv = obj.Pipeline(param.FFTImage(1, 3, 8, 8), "conv1:0").attach(small_cnn)
    fv.optimize(0, verbose=False).save(tmp_path / "x.safetensors")
    loaded = Visualization.load(tmp_path / "x.safetensors")
    assert torch.equal(loaded.images, fv.image)
    assert loaded.losses.shape == (0, 1)
    assert loaded.snapshots == {}


def test_a_file_of_something_else_is_an_error_that_says_so(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ArgumentError, match=r"x\.safetensors is no saved Visualization"):
        Visualization.load(tmp_path / "x.safetensors")


# ---------------------------------------------------------------- drawing


@pytest.mark.parametrize("images", [1, 3])
def test_plot_shows_the_pictures_with_their_titles(images):
    visualization = result(images)
    axes = visualization.plot()
    assert [text.get_text() for text in axes.texts] == list(visualization.titles)
    figure, given = pyplot.subplots()
    assert visualization.plot(given) is given
    assert visualization.plot(ax=given).figure is figure
    pyplot.close("all")


@pytest.mark.parametrize("titles", [("a", "b"), ()])
def test_losses_are_drawn_a_line_a_picture(titles):
    losses = torch.stack([torch.linspace(0, -1, 4), torch.linspace(1, 0, 4)], dim=1)
    axes = Visualization(pictures(2), losses, titles).plot_losses()
    np.testing.assert_array_equal([line.get_ydata() for line in axes.lines], losses.T.numpy())
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == list(titles) if titles else legend is None
    given = pyplot.figure().add_subplot()
    assert Visualization(pictures(2), losses, titles).plot_losses(given) is given
    pyplot.close("all")


# ---------------------------------------------------------------- printing


def test_it_prints_what_it_is():
    expected = "Visualization(2 pictures of 9x14 after 11 steps, stopped: conv1:0, conv1:1)"
    assert repr(result(2, ended="stopped")) == expected
    assert repr(result(1)) == "Visualization(1 picture of 9x14 after 11 steps, finished: conv1:0)"
    assert repr(result(6)).endswith("finished: conv1:0, conv1:1, conv1:2, conv1:3 and 2 more)")
    assert repr(Visualization(pictures(1), torch.zeros(0, 1))) == (
        "Visualization(1 picture of 9x14 after 0 steps, finished)"
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_notebook_shows_the_pictures_and_the_text(channels):
    visualization = result(1, channels)
    html = visualization._repr_html_()
    data = html.split("base64,")[1].split('"')[0]
    np.testing.assert_array_equal(
        read(io.BytesIO(base64.b64decode(data))), eight_bit(visualization.images[0])
    )
    assert repr(visualization) in html


def test_titles_cannot_break_the_page():
    html = Visualization(pictures(1), torch.zeros(0, 1), ("Function('<lambda>')",))._repr_html_()
    assert "<lambda>" not in html
    assert "&lt;lambda&gt;" in html


def test_it_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        result().ended = "never"


def test_a_file_that_is_no_safetensors_or_cut_off_is_an_error_that_says_so(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"something else")
    with pytest.raises(ArgumentError, match=r"x\.safetensors is no saved Visualization"):
        Visualization.load(path)
    Visualization(torch.rand(1, 3, 8, 8), torch.zeros(0, 1)).save(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArgumentError, match=r"x\.safetensors is no saved Visualization"):
        Visualization.load(path)
