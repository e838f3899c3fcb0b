"""Two small networks: a perceptron and a convolutional network.

Every activation is the output of a named module, so that it can be recorded and edited.
"""

from collections import OrderedDict
from itertools import pairwise

from torch import nn

from ..core.checks import checked
from ..core.errors import ArgumentError


@checked
class SimpleMLP(nn.Sequential):
    """A multi-layer perceptron: linear layers ``fc0, fc1, ...`` with ``relu0, ...`` between them.

    Maps (N, first size) to (N, last size). There is no activation after the last layer.

    Args:
        *layer_sizes: How many units each layer has, the input first and the output last.

    Raises:
        ArgumentError: Fewer than two sizes, or one that is not a positive integer.

    Example:
        >>> import torch
        >>> model = SimpleMLP(784, 256, 10)
        >>> [name for name, _ in model.named_children()]
        ['fc0', 'relu0', 'fc1']
        >>> model(torch.zeros(2, 784)).shape
        torch.Size([2, 10])
    """

    def __init__(self, *layer_sizes: int) -> None:
        if len(layer_sizes) < 2:
            raise ArgumentError(
                f"SimpleMLP needs at least two sizes, an input and an output, got {layer_sizes or 'none'}"
            )
        _check_positive("SimpleMLP", layer_sizes=layer_sizes)
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        for index, (inputs, outputs) in enumerate(pairwise(layer_sizes)):
            if index > 0:
                modules[f"relu{index - 1}"] = nn.ReLU()
            modules[f"fc{index}"] = nn.Linear(inputs, outputs)
        super().__init__(modules)


@checked
class SimpleCNN(nn.Sequential):
    """A small convolutional classifier: three 3x3 convolutions, a spatial mean and a linear layer.

    Maps (N, in_channels, H, W) to (N, num_classes) for images of at least 8x8 pixels. The modules, in order,
    are ``conv0, relu0, pool0, conv1, relu1, pool1, conv2, relu2, pool2, flatten, fc``; the convolutions have
    16, 32 and 64 channels. There is no activation after the last layer.

    Args:
        in_channels: How many channels an image has.
        num_classes: How many outputs there are.

    Raises:
        ArgumentError: An argument that is not a positive integer.

    Example:
        >>> import torch
        >>> SimpleCNN(1, 10)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        _check_positive("SimpleCNN", in_channels=(in_channels,), num_classes=(num_classes,))
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        channels = (in_channels, 16, 32, 64)
        for index in range(3):
            modules[f"conv{index}"] = nn.Conv2d(channels[index], channels[index + 1], 3, padding=1)
            modules[f"relu{index}"] = nn.ReLU()
            modules[f"pool{index}"] = nn.MaxPool2d(2) if index < 2 else nn.AdaptiveAvgPool2d(1)
        modules["flatten"] = nn.Flatten()
        modules["fc"] = nn.Linear(channels[-1], num_classes)
        super().__init__(modules)


def _check_positive(model: str, **arguments: tuple[int, ...]) -> None:
    for name, sizes in arguments.items():
        if any(not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in sizes):
            shown = sizes if len(sizes) > 1 else sizes[0]
            raise ArgumentError(f"{model} needs positive integers for {name}, got {shown!r}")
