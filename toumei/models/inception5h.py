"""The InceptionV1 of 2015 whose units the feature-visualization literature describes."""

from functools import lru_cache
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.checks import checked
from .download import fetch, load_state_dict

URL = "https://github.com/ProGamerGov/pytorch-old-tensorflow-models/raw/master/inception5h.pth"
BLOB_ID = "119f77db85c8352960933e025312b507d9a96ed7"
# captum caches a file of another layout as inception5h.pth: with another name both stay in the cache.
FILENAME = "inception5h-119f77db.pth"

# Channels: in, 1x1, 3x3_bottleneck, 3x3, 5x5_bottleneck, 5x5, pool_reduce
BLOCKS = {
    "mixed3a": (192, 64, 96, 128, 16, 32, 32),
    "mixed3b": (256, 128, 128, 192, 32, 96, 64),
    "mixed4a": (480, 192, 96, 204, 16, 48, 64),
    "mixed4b": (508, 160, 112, 224, 24, 64, 64),
    "mixed4c": (512, 128, 128, 256, 24, 64, 64),
    "mixed4d": (512, 112, 144, 288, 32, 64, 64),
    "mixed4e": (528, 256, 160, 320, 32, 128, 128),
    "mixed5a": (832, 256, 160, 320, 48, 128, 128),
    "mixed5b": (832, 384, 192, 384, 48, 128, 128),
}
POOLS_BEFORE = {"mixed4a": "maxpool4", "mixed5a": "maxpool10"}


@checked
class Inception5h(nn.Module):
    """lucid's InceptionV1: maps images (N, 3, H, W) to the probabilities of 1008 classes (N, 1008).

    The network expects the range of its training: RGB in [0, 1] becomes ``x * 255 - 117`` first. Images have
    any height and width; padding is TensorFlow's "SAME", also for odd sizes, and the last pooling is the mean
    over all remaining positions.

    Layers have lucid's names, and each activation is the output of a module: ``conv2d0`` is the ReLU and
    ``conv2d0_pre_relu_conv`` the convolution before it, ``mixed4a`` the concatenation of ``mixed4a_1x1``,
    ``mixed4a_3x3``, ``mixed4a_5x5`` and ``mixed4a_pool_reduce``. The state dict has the layout of the
    ``inception5h.pth`` that lucent uses.

    Args:
        pretrained: Download the trained weights (28 MB) into torch's hub cache, unless they are there.
        weights: A ``.pth`` or ``.safetensors`` file to load instead, without a download.
        progress: Show a progress bar while downloading.

    Attributes:
        logits_layer: The layer whose outputs are the class scores before the softmax.

    Raises:
        DownloadError: The weights could not be downloaded, or are not the expected file.
        RuntimeError: The file ``weights`` has other tensors.

    Source: Szegedy et al., "Going deeper with convolutions", 2015; Google's ``inception5h.zip``. Its local
    response normalization, with 1e-4 for each of 11 channels and a bias of 2, is that of the original. The
    one of lucent differs and gives outputs that are 1.4 to 3.2 times as large.

    Example:
        >>> model = Inception5h()
        >>> model(torch.rand(1, 3, 64, 96) * 255 - 117).shape
        torch.Size([1, 1008])
        >>> model.categories[1]
        'kit fox'
    """

    logits_layer = "softmax2_pre_activation_matmul"

    def __init__(
        self,
        pretrained: bool = False,
        weights: str | PathLike[str] | None = None,
        progress: bool = True,
    ) -> None:
        super().__init__()
        if weights is None and pretrained:
            weights = fetch(URL, BLOB_ID, FILENAME, progress)
        self._add_stem()
        for block, channels in BLOCKS.items():
            if block in POOLS_BEFORE:
                self.add_module(POOLS_BEFORE[block], SamePool())
            self._add_block(block, channels)
        self.avgpool0 = nn.AdaptiveAvgPool2d(1)
        self.avgpool0_reshape = nn.Flatten()
        self.softmax2_pre_activation_matmul = nn.Linear(1024, 1008)
        self.softmax2 = nn.Softmax(dim=1)
        if weights is not None:
            self.load_state_dict(load_state_dict(weights))

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the 1008 outputs; ``dummy`` where an output has no class (0 and 1001 to 1007)."""
        return _categories()

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (N, 3, H, W), in the range -117..138, to class probabilities (N, 1008)."""
        values = self._stem(images)
        for block in BLOCKS:
            if block in POOLS_BEFORE:
                values = getattr(self, POOLS_BEFORE[block])(values)
            values = self._block(block, values)
        values = self.avgpool0_reshape(self.avgpool0(values))
        result: Tensor = self.softmax2(self.softmax2_pre_activation_matmul(values))
        return result

    def _add_stem(self) -> None:
        self._add_unit("conv2d0", SameConv(3, 64, 7, stride=2))
        self.maxpool0 = SamePool()
        self.localresponsenorm0 = ResponseNorm()
        self._add_unit("conv2d1", nn.Conv2d(64, 64, 1))
        self._add_unit("conv2d2", nn.Conv2d(64, 192, 3, padding=1))
        self.localresponsenorm1 = ResponseNorm()
        self.maxpool1 = SamePool()

    def _stem(self, images: Tensor) -> Tensor:
        values = self.localresponsenorm0(self.maxpool0(self._unit("conv2d0", images)))
        values = self._unit("conv2d2", self._unit("conv2d1", values))
        result: Tensor = self.maxpool1(self.localresponsenorm1(values))
        return result

    def _add_block(self, name: str, channels: tuple[int, ...]) -> None:
        inputs, one, bottleneck3, three, bottleneck5, five, pool = channels
        self._add_unit(f"{name}_1x1", nn.Conv2d(inputs, one, 1))
        self._add_unit(f"{name}_3x3_bottleneck", nn.Conv2d(inputs, bottleneck3, 1))
        self._add_unit(f"{name}_3x3", nn.Conv2d(bottleneck3, three, 3, padding=1))
        self._add_unit(f"{name}_5x5_bottleneck", nn.Conv2d(inputs, bottleneck5, 1))
        self._add_unit(f"{name}_5x5", nn.Conv2d(bottleneck5, five, 5, padding=2))
        self.add_module(f"{name}_pool", nn.MaxPool2d(3, stride=1, padding=1))
        self._add_unit(f"{name}_pool_reduce", nn.Conv2d(inputs, pool, 1))
        self.add_module(name, Concatenation())

    def _block(self, name: str, values: Tensor) -> Tensor:
        one = self._unit(f"{name}_1x1", values)
        three = self._unit(f"{name}_3x3", self._unit(f"{name}_3x3_bottleneck", values))
        five = self._unit(f"{name}_5x5", self._unit(f"{name}_5x5_bottleneck", values))
        pool = self._unit(f"{name}_pool_reduce", getattr(self, f"{name}_pool")(values))
        result: Tensor = getattr(self, name)(one, three, five, pool)
        return result

    def _add_unit(self, name: str, convolution: nn.Conv2d) -> None:
        self.add_module(f"{name}_pre_relu_conv", convolution)
        self.add_module(name, nn.ReLU())

    def _unit(self, name: str, values: Tensor) -> Tensor:
        result: Tensor = getattr(self, name)(getattr(self, f"{name}_pre_relu_conv")(values))
        return result


class SameConv(nn.Conv2d):
    """A convolution with a stride and TensorFlow's "SAME" padding, which PyTorch has for stride 1 only.

    The output has the size ceil(size / stride); an odd number of zeros has one more at the right or bottom.

    Example:
        >>> SameConv(3, 8, 7, stride=2)(torch.zeros(1, 3, 10, 11)).shape
        torch.Size([1, 8, 5, 6])
    """

    def forward(self, values: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        pads: list[int] = []
        for axis in (1, 0):
            size, kernel, stride = values.shape[2 + axis], self.kernel_size[axis], self.stride[axis]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(functional.pad(values, pads))


class SamePool(nn.Module):
    """The 3x3 max-pooling with stride 2 and TensorFlow's "SAME" padding: (N, C, H, W) to half the size.

    Example:
        >>> SamePool()(torch.arange(4.0).view(1, 1, 1, 4))
        tensor([[[[2., 3.]]]])
    """

    def forward(self, values: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, C, ceil(H / 2), ceil(W / 2))."""
        # SAME pads an odd size by one on both sides and an even one at its end. With ceil_mode the last
        # window goes over the border instead: the same result without a padded copy.
        padding = (values.shape[2] % 2, values.shape[3] % 2)
        return functional.max_pool2d(values, 3, stride=2, padding=padding, ceil_mode=True)


class ResponseNorm(nn.LocalResponseNorm):
    """Returns x / sqrt(2 + 1e-4 * sum of x^2 over the 11 channels around), the normalization of this network.

    PyTorch divides alpha by the number of channels, so that 1e-4 for each channel is 0.0011 here.

    Example:
        >>> ResponseNorm()(torch.full((1, 20, 1, 1), 10.0))[0, 10, 0, 0]
        tensor(6.8843)
    """

    def __init__(self) -> None:
        super().__init__(size=11, alpha=0.0011, beta=0.5, k=2.0)

    def forward(self, values: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape."""
        # Activations of 300 are common here, and their squares overflow half precision.
        wide = values.to(torch.promote_types(values.dtype, torch.float32))
        # PyTorch's implementation pools over axis 1 in 3d and takes a third of the time of this network;
        # pooling over the last axis takes less than half of that.
        squares = wide.square().flatten(2).transpose(1, 2)
        mean = functional.avg_pool1d(squares, self.size, stride=1, padding=self.size // 2)
        scale = (self.k + self.alpha * mean.transpose(1, 2)).pow(-self.beta)
        result: Tensor = (wide * scale.unflatten(2, values.shape[2:])).to(values.dtype)
        return result


class Concatenation(nn.Module):
    """Concatenates its arguments along the channel axis, as a module so that the result has a name.

    Example:
        >>> Concatenation()(torch.zeros(1, 2, 4, 4), torch.ones(1, 3, 4, 4)).shape
        torch.Size([1, 5, 4, 4])
    """

    def forward(self, *branches: Tensor) -> Tensor:
        """Maps tensors (N, C_i, H, W) to (N, sum of C_i, H, W)."""
        return torch.cat(branches, dim=1)


@lru_cache(maxsize=1)
def _categories() -> tuple[str, ...]:
    file = Path(__file__).parent / "data" / "inception5h_classes.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())
