"""The two simple networks: what they are made of, what they accept, what they refuse."""

import pytest
import torch
from torch import nn

from toumei.core.errors import ArgumentError
from toumei.models import SimpleCNN, SimpleMLP


def test_mlp_of_two_sizes_is_one_linear_layer() -> None:
    model = SimpleMLP(4, 4)
    inputs = torch.randn(3, 4)
    assert list(model.state_dict()) == ["fc0.weight", "fc0.bias"]
    assert torch.equal(model(inputs), inputs @ model.fc0.weight.T + model.fc0.bias)


def test_mlp_is_the_composition_of_its_layers() -> None:
    model = SimpleMLP(5, 7, 6, 2).double()
    inputs = torch.randn(3, 5, dtype=torch.float64)
    hidden = (inputs @ model.fc0.weight.T + model.fc0.bias).clamp(min=0)
    hidden = (hidden @ model.fc1.weight.T + model.fc1.bias).clamp(min=0)
    assert torch.allclose(model(inputs), hidden @ model.fc2.weight.T + model.fc2.bias, atol=1e-12)


@pytest.mark.parametrize("model", [SimpleMLP(3, 4, 5, 6), SimpleCNN(1, 10)])
def test_each_activation_is_its_own_module_and_none_ends_the_network(model: nn.Sequential) -> None:
    activations = [module for module in model if isinstance(module, nn.ReLU)]
    weighted = [module for module in model if isinstance(module, nn.Linear | nn.Conv2d)]
    assert len(set(activations)) == len(activations) == len(weighted) - 1
    assert not any(activation.inplace for activation in activations)
    assert isinstance(list(model)[-1], nn.Linear)


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (28, 28), (65, 40)])
def test_cnn_takes_any_image_from_8x8_on(size: tuple[int, int]) -> None:
    assert SimpleCNN(3, 7)(torch.randn(2, 3, *size)).shape == (2, 7)


def test_cnn_treats_the_images_of_a_batch_apart() -> None:
    model, images = SimpleCNN(2, 5).double(), torch.randn(3, 2, 12, 15, dtype=torch.float64)
    assert torch.allclose(model(images)[1:2], model(images[1:2]), atol=1e-12)


@pytest.mark.parametrize("sizes", [(), (4,), (4, 0), (4, -1, 2), (4, 2.5), (4, True)])
def test_mlp_refuses_sizes_that_make_no_network(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match="SimpleMLP needs"):
        SimpleMLP(*sizes)


@pytest.mark.parametrize("arguments", [(0, 10), (1, 0), (-3, 10)])
def test_cnn_refuses_sizes_that_make_no_network(arguments: tuple[int, int]) -> None:
    with pytest.raises(ArgumentError, match="SimpleCNN needs positive integers"):
        SimpleCNN(*arguments)
