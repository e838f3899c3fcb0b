"""A small convolutional network that was trained on the shapes world, weights included."""

from collections import OrderedDict
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from ..core.checks import checked
from .shapes_world import CLASSES

_WEIGHTS = Path(__file__).parent / "data" / "shapes_cnn.safetensors"
_CHANNELS = (24, 32, 48, 64, 96, 128)
_POOL_AFTER = (1, 3, 5)


@checked
class ShapesCNN(nn.Sequential):
    """Six plain convolutions that classify shapes: RGB images (N, 3, H, W) in [0, 1] to logits (N, 8).

    `conv1`, `relu1`, `pool1`, `conv2`, ... `conv6`, `relu6`, `avgpool`, `flatten`, `head`: every step is a
    module of that name. No operation is in place, pooling is average pooling, and there is no batch
    normalization, so that gradients to the image are smooth. The first step, `scale`, maps [0, 1] to [-2, 2],
    so images need no preprocessing. One unit of `conv6` sees 52 x 52 pixels, a whole shape. Images have any
    height and width from 32 up.

    Args:
        pretrained: Load the weights of the package, with an accuracy of 99.98 % on images of `ShapesDataset`
            that were not in the training. The training has small adversarial changes of the images, so that
            units look for what people see (experiments/train_shapes.py). Otherwise weights are random.

    Attributes:
        categories: The names of the 8 logits.
        logits_layer: The layer of the logits.

    Example:
        >>> from toumei.models import ShapesDataset
        >>> images, labels, masks = ShapesDataset(seed=1).batch(range(8))
        >>> model = ShapesCNN(pretrained=True).eval()
        >>> bool((model(images).argmax(1) == labels).float().mean() > 0.8)
        True
    """

    categories = CLASSES
    logits_layer = "head"

    def __init__(self, pretrained: bool = False) -> None:
        super().__init__(_steps())
        if pretrained:
            weights = load_file(_WEIGHTS)
            self.load_state_dict({name: tensor.float() for name, tensor in weights.items()})


class Scale(nn.Module):
    """Maps images (N, 3, H, W) from [0, 1] to [-2, 2], so that gray is 0, the value of the padding.

    Example:
        >>> import torch
        >>> Scale()(torch.tensor([0.0, 0.5, 1.0]))
        tensor([-2.,  0.,  2.])
    """

    def forward(self, images: Tensor) -> Tensor:
        """Returns the scaled images."""
        return 4 * images - 2


def _steps() -> OrderedDict[str, nn.Module]:
    steps: OrderedDict[str, nn.Module] = OrderedDict(scale=Scale())
    before = 3
    for number, channels in enumerate(_CHANNELS, 1):
        kernel = 5 if number == 1 else 3
        conv = nn.Conv2d(before, channels, kernel, padding=kernel // 2)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        steps[f"conv{number}"], steps[f"relu{number}"] = conv, nn.ReLU()
        if number in _POOL_AFTER:
            steps[f"pool{number}"] = nn.AvgPool2d(2)
        before = channels
    steps.update(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(before, len(CLASSES)))
    return steps
