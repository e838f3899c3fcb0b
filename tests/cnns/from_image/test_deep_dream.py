"""Deep dream: what a step adds, tiles and octaves, photographs of any size, and bad input."""

import pytest
import torch
from torch import nn

import toumei.cnns.objectives as obj
from toumei.cnns import deep_dream, robustness
from toumei.core.errors import ArgumentError, LayerError, NonFiniteError, ShapeError
from toumei.models import ShapesCNN


def photograph(height=37, width=50, images=1):
    """Smooth, and clear of the bounds, so that small steps are not clamped."""
    noise = torch.randn(images, 3, height, width, generator=torch.Generator().manual_seed(0))
    return 0.5 + 0.2 * nn.functional.avg_pool2d(noise, 5, 1, 2).clamp(-1, 1)


def dream(model, image, objective="conv2", **options):
    return deep_dream(
        model, image, objective, verbose=False, **{"octaves": 2, "steps": 3, "seed": 0} | options
    )


class Pointwise(nn.Sequential):
    """A network that looks at each pixel alone, so that rolling and tiles make no difference."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(3, 4, 1), nn.Tanh())


def test_a_step_adds_the_gradient_divided_by_its_mean_absolute_value(watched):
    model, image = watched(Pointwise()), photograph()
    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf).square().mean(), leaf)
    result = dream(model, image, "1", octaves=1, steps=1, lr=0.01)
    torch.testing.assert_close(result.images, image + 0.01 * gradient / gradient.abs().mean())
    torch.testing.assert_close(result.losses, -model(image).detach().square().mean().reshape(1, 1))


@pytest.mark.parametrize("tile", [7, 16, 37])
def test_tiles_make_no_difference_to_a_network_that_looks_at_pixels_alone(tile):
    """A constant photograph has the same gradient everywhere, so the parts' own sizes do not matter."""
    image = torch.full((1, 3, 37, 50), 0.4)
    whole, tiled = (dream(Pointwise(), image, "1", tile=size).images for size in (512, tile))
    torch.testing.assert_close(tiled, whole)


def test_the_score_rises_at_full_size_and_the_photograph_stays_near(watched):
    model, image = watched(ShapesCNN(pretrained=True)), photograph(images=2)
    result = dream(model, image, "conv4", steps=10)
    assert result.images.shape == image.shape
    up_to_conv4 = nn.Sequential(*list(model)[: list(model).index(model.conv4) + 1])
    start, end = (up_to_conv4(images).square().mean((1, 2, 3)) for images in (image, result.images))
    assert (end > 2 * start).all()
    assert 0 < (result.images - image).abs().mean() <= 10 * 2 * 0.01 + 1e-6
    assert result.images.min() >= 0 and result.images.max() <= 1


def test_detail_of_small_sizes_is_carried_to_the_full_size(small_cnn):
    """With one step at the full size, an octave before it leaves a coarse change that one alone does not."""
    image = photograph(64, 64)
    changes = [dream(small_cnn, image, octaves=n, steps=1, scale=4.0).images - image for n in (1, 2)]
    coarse = [nn.functional.avg_pool2d(change, 8).abs().mean() for change in changes]
    assert coarse[1] > 1.2 * coarse[0]


@pytest.mark.parametrize("size", [(37, 50), (17, 64), (31, 9)])
@pytest.mark.parametrize("tile", [16, 512])
def test_any_size_and_the_network_never_sees_more_than_a_tile(small_cnn, size, tile):
    seen = []
    result = dream(small_cnn, photograph(*size), tile=tile, preprocess=lambda x: seen.append(x) or x)
    assert result.images.shape[-2:] == size
    assert max(max(image.shape[-2:]) for image in seen) <= tile
    assert result.steps == 6


def test_octaves_go_up_to_the_size_of_the_photograph(small_cnn):
    seen = []
    image = photograph(40, 60)
    dream(small_cnn, image, octaves=3, scale=2.0, steps=2, preprocess=lambda x: seen.append(x) or x)
    assert list(dict.fromkeys(tuple(x.shape[-2:]) for x in seen)) == [(10, 15), (20, 30), (40, 60)]


def test_any_objective_one_for_each_picture_and_a_preprocessing(small_cnn):
    image = photograph(images=2)
    result = dream(small_cnn, image, ["conv1:0", "conv2:1:2:3"], preprocess=robustness.preprocess("imagenet"))
    assert result.titles == ("conv1:0", "conv2:1:2:3")
    assert dream(small_cnn, image, obj.Channel("conv1:2") - obj.L2(constant=0.5)).steps == 6


def test_one_seed_one_dream(small_cnn):
    image = photograph()
    first, again, other = (dream(small_cnn, image, seed=seed).images for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_snapshots_are_of_full_size_for_an_animation(small_cnn, tmp_path):
    image = photograph()
    result = dream(small_cnn, image, snapshots=2)
    assert list(result.snapshots) == [0, 2, 4, 6]
    assert torch.equal(result.snapshots[0], image)
    assert torch.equal(result.snapshots[6], result.images)
    result.save(tmp_path / "dream.gif")


def test_ctrl_c_returns_what_there_is(small_cnn):
    image, calls = photograph(), []

    def interrupting(picture):
        calls.append(picture)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return picture

    result = dream(small_cnn, image, preprocess=interrupting)
    assert result.ended == "interrupted" and 0 < result.steps < 6
    assert not torch.equal(result.images, image)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (torch.zeros(5, 5), r"\(C, H, W\) or \(N, C, H, W\), got \(5, 5\)"),
        (torch.zeros(0, 3, 5, 5), r"got \(0, 3, 5, 5\)"),
        (
            torch.zeros(3, 8, 8, dtype=torch.uint8),
            "RGB in .0, 1., got .* of torch.uint8: .*divide bytes",
        ),
        (torch.full((3, 8, 8), 255.0), "from 255 to 255"),
        (torch.full((3, 8, 8), torch.nan), "nan"),
        ("china.jpg", "got str"),
    ],
)
def test_a_photograph_of_a_wrong_size_or_range_is_an_error(small_cnn, image, said):
    with pytest.raises(ShapeError, match=said):
        dream(small_cnn, image)


@pytest.mark.parametrize(
    "options", [{"octaves": 0}, {"steps": 0}, {"tile": 0}, {"scale": 1.0}, {"snapshots": -1}]
)
def test_numbers_that_make_no_sense_are_an_error(small_cnn, options):
    with pytest.raises(ArgumentError, match="octaves, steps and tile are at least 1"):
        dream(small_cnn, photograph(), **options)


def test_what_cannot_be_dreamt_of_is_an_error_that_leaves_nothing_behind(small_cnn):
    with pytest.raises(LayerError, match="did you mean"):
        dream(small_cnn, photograph(), "conv22")
    cut_off = obj.Function(lambda activations: activations["conv1"].detach().mean((1, 2, 3)), "conv1")
    with pytest.raises(ArgumentError, match="without gradient"):
        dream(small_cnn, photograph(), cut_off)
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        dream(small_cnn, photograph(), torch.nan * obj.Channel("conv1:0"))
    with pytest.raises(ShapeError, match="2 pictures"):
        dream(small_cnn, photograph(), ["conv1:0", "conv1:1"])


def test_octaves_that_are_too_small_for_the_network_are_named(small_cnn):
    model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.MaxPool2d(2))
    with pytest.raises(ShapeError, match="smallest of 9 octaves, 1 by 1 pixels; fewer"):
        deep_dream(model, torch.rand(3, 16, 20), "0", octaves=9, steps=1, verbose=False)


def test_a_network_may_overwrite_what_it_is_given():
    class View(nn.Module):  # cannot take channels last, which would be a copy
        def forward(self, maps):
            return maps.view(len(maps), -1)

    model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), View())
    result = deep_dream(model, torch.rand(3, 16, 20), "2", octaves=1, steps=2, verbose=False)
    assert result.images.isfinite().all()
