"""InceptionV1: its names and sizes, and every part of it restated independently."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from torchvision.models._meta import _IMAGENET_CATEGORIES

from toumei.models import Inception5h
from toumei.models.inception5h import ResponseNorm, SameConv, SamePool

BLOCKS = [f"mixed{block}" for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
BRANCHES = ("1x1", "3x3_bottleneck", "3x3", "5x5_bottleneck", "5x5", "pool_reduce")
UNITS = ["conv2d0", "conv2d1", "conv2d2", *(f"{block}_{branch}" for block in BLOCKS for branch in BRANCHES)]
POOLS = ["maxpool0", "maxpool1", "maxpool4", "maxpool10", "avgpool0", *(f"{block}_pool" for block in BLOCKS)]
ENDS = ["localresponsenorm0", "localresponsenorm1", "softmax2_pre_activation_matmul", "softmax2"]


@pytest.fixture(scope="module")
def model() -> Inception5h:
    """Random weights in double precision, of a size that lets activations reach the trained network's."""
    torch.manual_seed(0)
    model = Inception5h().double().requires_grad_(False)
    for name, weight in model.named_parameters():
        if name.endswith("conv.weight"):
            weight.mul_(3.0)
    return model


def images(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.rand(count, 3, height, width, generator=generator, dtype=torch.float64) * 255 - 117


def outputs(model: Inception5h, batch: Tensor, names: list[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: found.update({name: output})
        )
        for name in names
    ]
    try:
        model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def restated(weights: dict[str, Tensor], values: Tensor) -> Tensor:
    """The logits for images of even sizes, written out from the state dict alone."""

    def unit(name: str, values: Tensor, stride: int = 1) -> Tensor:
        kernel, bias = (weights[f"{name}_pre_relu_conv.{part}"] for part in ("weight", "bias"))
        padding = 0 if stride == 2 else kernel.shape[-1] // 2
        return functional.conv2d(values, kernel, bias, stride, padding).clamp(min=0)

    def pool(values: Tensor) -> Tensor:
        return functional.max_pool2d(functional.pad(values, (0, 1, 0, 1), value=-math.inf), 3, 2)

    def norm(values: Tensor) -> Tensor:
        return functional.local_response_norm(values, size=11, alpha=0.0011, beta=0.5, k=2.0)

    values = norm(pool(unit("conv2d0", functional.pad(values, (2, 3, 2, 3)), stride=2)))
    values = pool(norm(unit("conv2d2", unit("conv2d1", values))))
    for block in BLOCKS:
        values = pool(values) if block in ("mixed4a", "mixed5a") else values
        one = unit(f"{block}_1x1", values)
        three = unit(f"{block}_3x3", unit(f"{block}_3x3_bottleneck", values))
        five = unit(f"{block}_5x5", unit(f"{block}_5x5_bottleneck", values))
        pooled = unit(f"{block}_pool_reduce", functional.max_pool2d(values, 3, 1, 1))
        values = torch.cat([one, three, five, pooled], dim=1)
    name = "softmax2_pre_activation_matmul"
    return values.mean((2, 3)) @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def test_the_state_dict_has_the_layout_of_the_file(model: Inception5h) -> None:
    weights = model.state_dict()
    modules = {f"{unit}_pre_relu_conv" for unit in UNITS} | {"softmax2_pre_activation_matmul"}
    assert len(modules) == 58
    assert set(weights) == {f"{name}.{part}" for name in modules for part in ("weight", "bias")}
    assert len(weights) == 116
    assert sum(weight.numel() for weight in weights.values()) == 7_066_380


def test_every_layer_of_lucids_is_a_module_and_runs_once_in_its_place(model: Inception5h) -> None:
    named = [*UNITS, *(f"{unit}_pre_relu_conv" for unit in UNITS), *POOLS, *BLOCKS, *ENDS]
    found = outputs(model, images(1, 64, 64), named)
    assert set(found) == set(named)
    for unit in UNITS:
        assert torch.equal(found[unit], found[f"{unit}_pre_relu_conv"].clamp(min=0))
    for block in BLOCKS:
        parts = [found[f"{block}_{part}"] for part in ("1x1", "3x3", "5x5", "pool_reduce")]
        assert torch.equal(found[block], torch.cat(parts, dim=1))


def test_layers_have_the_published_sizes(model: Inception5h) -> None:
    found = outputs(model, images(1, 224, 224), ["conv2d0", "conv2d2", *BLOCKS])
    shapes = [tuple(value.shape[1:3]) for value in found.values()]
    assert shapes[:4] == [(64, 112), (192, 56), (256, 28), (480, 28)]
    assert shapes[4:] == [(508, 14), (512, 14), (512, 14), (528, 14), (832, 14), (832, 7), (1024, 7)]


def test_the_network_is_its_restatement(model: Inception5h) -> None:
    batch = images(2, 96, 64)
    logits = outputs(model, batch, [model.logits_layer])[model.logits_layer]
    assert torch.allclose(logits, restated(model.state_dict(), batch), rtol=1e-9, atol=1e-12)
    assert torch.allclose(model(batch), logits.softmax(dim=1), rtol=1e-9)


@pytest.mark.parametrize("size", [(32, 32), (61, 87), (40, 65), (1, 1)])
def test_images_of_any_size_are_treated_apart(model: Inception5h, size: tuple[int, int]) -> None:
    batch = images(3, *size)
    together = model(batch)
    assert together.shape == (3, 1008)
    assert torch.allclose(together.sum(dim=1), torch.ones(3, dtype=torch.float64))
    assert torch.allclose(together[1:2], model(batch[1:2]), rtol=1e-9)


@pytest.mark.parametrize("channels", [3, 64])
def test_response_norm_is_the_formula(channels: int) -> None:
    values = torch.randn(2, channels, 3, 4, dtype=torch.float64) * 200
    normed = ResponseNorm()(values)
    for channel in range(channels):
        window = values[:, max(channel - 5, 0) : channel + 6]
        expected = values[:, channel] / (2 + 1e-4 * window.square().sum(dim=1)).sqrt()
        assert torch.allclose(normed[:, channel], expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_response_norm_stands_activations_whose_square_overflows(dtype: torch.dtype) -> None:
    values = (torch.randn(1, 64, 4, 4) * 1000).to(dtype)
    exact = ResponseNorm()(values.float())
    with torch.autocast("cpu", dtype):
        normed = ResponseNorm()(values)
    assert normed.dtype == dtype
    assert torch.allclose(normed.float(), exact, rtol=torch.finfo(dtype).eps)


def windows(size: int, kernel: int, stride: int) -> list[tuple[int, int]]:
    """First and last position of each window, by TensorFlow's rule for SAME; may lie outside of the image."""
    count = math.ceil(size / stride)
    before = max((count - 1) * stride + kernel - size, 0) // 2
    return [(i * stride - before, i * stride - before + kernel) for i in range(count)]


@pytest.mark.parametrize("size", [(224, 224), (225, 225), (97, 131), (96, 131), (1, 2)])
def test_pooling_is_the_maximum_over_tensorflows_windows(size: tuple[int, int]) -> None:
    values = torch.randn(1, 2, *size) - 10
    rows = [values[:, :, max(a, 0) : b].amax(dim=2) for a, b in windows(size[0], 3, 2)]
    tall = torch.stack(rows, dim=2)
    columns = [tall[:, :, :, max(a, 0) : b].amax(dim=3) for a, b in windows(size[1], 3, 2)]
    assert torch.equal(SamePool()(values), torch.stack(columns, dim=3))


@pytest.mark.parametrize("size", [(224, 224), (225, 225), (97, 131), (96, 131), (1, 2)])
def test_convolution_sees_tensorflows_windows(size: tuple[int, int]) -> None:
    convolution = SameConv(1, 2, 7, stride=2).double()
    values = torch.randn(1, 1, *size, dtype=torch.float64)
    wide = functional.pad(values, (7, 7, 7, 7))
    rows, columns = windows(size[0], 7, 2), windows(size[1], 7, 2)
    found = convolution(values)
    assert found.shape == (1, 2, len(rows), len(columns))
    for i, j in [(0, 0), (0, -1), (-1, 0), (-1, -1), (len(rows) // 2, len(columns) // 3)]:
        patch = wide[0, 0, rows[i][0] + 7 : rows[i][1] + 7, columns[j][0] + 7 : columns[j][1] + 7]
        expected = (convolution.weight[:, 0] * patch).sum((1, 2)) + convolution.bias
        assert torch.allclose(found[0, :, i, j], expected, atol=1e-12)


def test_categories_are_imagenets_in_an_order_of_their_own() -> None:
    categories = Inception5h().categories
    assert len(categories) == 1008
    assert [i for i, name in enumerate(categories) if name == "dummy"] == [0, *range(1001, 1008)]
    assert categories[1:4] == ("kit fox", "English setter", "Siberian husky")
    respelled = {"crane bird": "crane", "maillot tank suit": "maillot", "teddy": "teddy bear"}
    respelled["cannon"] = "cannon [ground]"
    assert sorted(categories[1:1001]) == sorted(respelled.get(name, name) for name in _IMAGENET_CATEGORIES)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_come_from_a_file(model: Inception5h, tmp_path: Path, suffix: str) -> None:
    weights = {name: weight.float() for name, weight in model.state_dict().items()}
    path = tmp_path / f"net{suffix}"
    if suffix == ".pth":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    loaded = Inception5h(pretrained=True, weights=path).state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())


def test_a_file_that_is_not_there_or_not_this_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Inception5h(weights=tmp_path / "nothing.pth")
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(RuntimeError, match=r"fc\.weight"):
        Inception5h(weights=str(tmp_path / "other.pth"))
