"""Style transfer: what falls, what a step costs, and bad input."""

import pytest
import torch
from torch import nn

from toumei.cnns import Pipeline, robustness
from toumei.core import run
from toumei.core.errors import ArgumentError, LayerError, NotAttachedError, ShapeError
from toumei.misc import StyleTransfer
from toumei.models import Inception5h, ShapesCNN, ShapesDataset

CONTENT, STYLE = ["relu2"], ["relu1", "relu3"]


def photographs(content=(21, 34), style=(17, 40)):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, *content, generator=generator), torch.rand(1, 3, *style, generator=generator) ** 3


def transfer(model, content, style, weights=(1.0, 1.0), layers=(["conv2"], ["conv1", "conv2"]), **options):
    return StyleTransfer(content, weights[0], style, weights[1], *layers, **options).attach(model)


def grams(model, images, layer):
    flat = run(model, images, record=[layer])[layer].flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def share(found, wanted):
    return (found - wanted).abs().mean() / wanted.abs().mean()


@torch.no_grad()
def losses(model, picture, content, style, layers):
    """Distances of content and of style, restated."""
    kept = sum(
        share(*(run(model, x, record=[layer])[layer] for x in (picture, content))) for layer in layers[0]
    )
    taken = sum(share(*(grams(model, x, layer) for x in (picture, style))) for layer in layers[1])
    return kept, taken


def test_style_comes_near_and_content_stays_near(watched):
    model = watched(ShapesCNN(pretrained=True))
    content, style, stranger = ShapesDataset(seed=3).batch(range(3))[0].split(1)
    result = transfer(model, content, style, (1.0, 2.0), (CONTENT, STYLE)).optimize(60, verbose=False)
    start = losses(model, content, content, style, (CONTENT, STYLE))
    end = losses(model, result.images, content, style, (CONTENT, STYLE))
    assert start[0] == 0
    assert end[1] < 0.5 * start[1]
    assert end[0] < 0.7 * losses(model, stranger, content, style, (CONTENT, STYLE))[0]
    assert result.losses[-1] < 0.7 * result.losses[0]
    assert result.titles == ("style transfer",)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 0.5), (0.0, 1.0)])
def test_the_loss_is_the_weighted_sum_of_relative_differences(small_cnn, weights):
    content, style = photographs()
    layers = (["conv2"], ["conv1", "conv2"])
    result = transfer(small_cnn, content, style, weights, layers).optimize(4, verbose=False, snapshots=1)
    for step in (0, 3):
        kept, taken = losses(small_cnn, result.snapshots[step], content[None], style, layers)
        torch.testing.assert_close(result.losses[step, 0], weights[0] * kept + weights[1] * taken)


def test_with_the_style_weight_at_zero_the_content_stays(small_cnn):
    content, style = photographs()
    result = transfer(small_cnn, content, style, (1.0, 0.0)).optimize(3, verbose=False)
    assert (result.images[0] - content).abs().mean() < 0.02
    assert (
        transfer(small_cnn, content, style).optimize(0, verbose=False).images.sub(content).abs().max() < 1e-5
    )


class Counting(nn.Module):
    """Notes the number of pictures in each forward and backward pass, and fails behind the deepest layer."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1)
        self.forwards, self.backwards = [], []

    def forward(self, x):
        self.forwards.append(len(x))
        x = self.conv1(x)
        if x.requires_grad:
            x.register_hook(lambda gradient: self.backwards.append(len(gradient)))
        self.conv2(x.relu())
        raise RuntimeError("went on behind the deepest layer")


def test_a_step_is_one_forward_and_one_backward_pass_of_one_picture(watched):
    torch.manual_seed(0)
    model = watched(Counting())
    content, style = photographs()
    fv = transfer(model, content, style)
    model.forwards.clear(), model.backwards.clear()
    fv.optimize(7, verbose=False)
    assert model.forwards == [1] * 7
    assert model.backwards == [1] * 7


def test_targets_are_computed_once_and_without_graph(small_cnn):
    seen = []
    content, style = photographs()
    fv = transfer(
        small_cnn, content, style, preprocess=lambda x: seen.append((x.shape, x.requires_grad)) or x
    )
    assert seen[:2] == [(content[None].shape, False), (style.shape, False)]
    seen.clear()
    fv.optimize(3, verbose=False)
    assert seen == [(content[None].shape, True)] * 3


def test_it_is_a_pipeline_that_goes_on_moves_and_saves(small_cnn, tmp_path):
    fv = transfer(small_cnn, *photographs(), preprocess=robustness.preprocess("imagenet")).to("cpu")
    assert isinstance(fv, Pipeline) and "content 1 * (conv2), style 1 * (conv1, conv2)" in repr(fv)
    first = fv.optimize(2, verbose=False).images
    assert not torch.equal(fv.optimize(2, verbose=False).images, first)
    fv.save(tmp_path / "picture.png")
    assert fv.image.shape == (1, 3, 21, 34)
    assert fv.attach(small_cnn).optimize(1, verbose=False).steps == 1


def test_inception5h_needs_neither_layers_nor_preprocessing(watched):
    torch.manual_seed(0)
    model = watched(Inception5h())
    seen = []
    handle = model.conv2d0_pre_relu_conv.register_forward_pre_hook(lambda module, x: seen.append(x[0]))
    content, style = photographs((40, 52), (48, 40))
    fv = StyleTransfer(content, 1, style, 1).attach(model)
    handle.remove()
    assert fv._task.objective.layers == ("mixed3b", "conv2d2", "mixed3a", "mixed4a", "mixed4b", "mixed4c")
    torch.testing.assert_close(seen[0].detach(), content[None] * 255 - 117)
    assert fv.optimize(1, verbose=False).losses.isfinite().all()


def test_bad_images():
    good = torch.rand(3, 9, 9)
    for bad, said in [
        (torch.rand(9, 9), r"got \(9, 9\)"),
        (torch.rand(2, 3, 9, 9), r"one picture.*got \(2, 3, 9, 9\)"),
        (torch.full((3, 9, 9), 200.0), "RGB in .0, 1.*200 to 200 .*divide bytes by 255"),
        (torch.zeros(3, 9, 9, dtype=torch.uint8), "torch.uint8"),
        (torch.full((3, 9, 9), torch.nan), "nan"),
        (torch.rand(3, 0, 9), r"got \(3, 0, 9\)"),
        ("flower.jpg", "got str"),
    ]:
        with pytest.raises(ShapeError, match=f"content_image.*{said}"):
            StyleTransfer(bad, 1, good, 1)
        with pytest.raises(ShapeError, match=f"style_image.*{said}"):
            StyleTransfer(good, 1, bad, 1)
    with pytest.raises(ShapeError, match="same channels, got 3 and 1"):
        StyleTransfer(good, 1, good[:1], 1)


def test_bad_weights_and_layers(small_cnn):
    good = torch.rand(3, 9, 9)
    with pytest.raises(ArgumentError, match="a weight of at least 0 and at least one layer, got -1"):
        StyleTransfer(good, 1, good, -1)
    with pytest.raises(ArgumentError, match="at least one layer"):
        StyleTransfer(good, 1, good, 1, [], ["conv1"])
    with pytest.raises(ArgumentError, match="both 0"):
        StyleTransfer(good, 0, good, 0, ["conv1"], ["conv1"])
    with pytest.raises(LayerError, match="no layer 'conv3'.*did you mean conv"):
        transfer(small_cnn, good, good, layers=(["conv1"], ["conv3"]))
    with pytest.raises(LayerError, match="no layer 'mixed3b'"):
        StyleTransfer(good, 1, good, 1).attach(small_cnn)
    with pytest.raises(NotAttachedError):
        StyleTransfer(good, 1, good, 1).optimize(1)


def test_the_name_of_one_layer_will_do():
    transfer = StyleTransfer(torch.rand(3, 8, 8), 1, torch.rand(3, 8, 8), 1, "conv2", "conv1")
    assert transfer.objective.layers == ("conv2", "conv1")
