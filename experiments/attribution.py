"""Every attribution method on the same pictures.

    python experiments/attribution.py
    python experiments/attribution.py --weights squeezenet1_1.safetensors --image photograph.jpg

By default on images of `ShapesDataset` that `ShapesCNN` names rightly, one of each class; with the weights of
SqueezeNet 1.1, on a photograph and its likeliest class. Draws one row a method to outputs/attribution.png:
orange places speak for the class, blue ones against it. How well the methods find the shape in 100 images
is what attribution_table.py measures.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from common import basic_parser
from toumei.attribution import (
    LRP,
    Baseline,
    Comparison,
    DeepLift,
    DeepLiftShap,
    ExactShapley,
    ExpectedGradients,
    FromData,
    GradCam,
    GradCamPlusPlus,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    LayerCam,
    LayerConductance,
    Lime,
    Mean,
    Method,
    Occlusion,
    PartitionShap,
    Rise,
    Saliency,
    ShapleySampling,
    SmoothGrad,
    Uniform,
    VarGrad,
    compare,
    superpixels,
)
from toumei.models import ShapesCNN, ShapesDataset
from toumei.plots import color_bar, diverging_map, look, save_figure

LAYERS = ("relu5", "relu1")  # of class activation maps, and of conductance: one as large as the images

FROM_DISTRIBUTION = ("ExpectedGradients", "DeepLiftShap")


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    if options.weights is not None:
        figure_of_photograph(options)
    else:
        figure_of_shapes(options)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, Path("outputs/attribution.png"))
    parser.add_argument("--weights", type=Path, help="safetensors of torchvision's squeezenet1_1")
    parser.add_argument("--image", type=Path, help="photograph for SqueezeNet")
    parser.add_argument("--images", type=int, default=8, help="of ShapesDataset")
    parser.add_argument("--samples", type=int, default=500, help="of each method that samples")
    return parser.parse_args(argv)


def figure_of_shapes(options: argparse.Namespace) -> None:
    model = ShapesCNN(pretrained=True).eval()
    images, labels, masks = named_rightly(model, ShapesDataset(seed=11), 100)
    of_classes = [int((labels == label).nonzero()[0]) for label in labels.unique()][: options.images]
    images, labels, masks = images[of_classes], labels[of_classes], masks[of_classes]
    table = compared(model, LAYERS, images, labels, masks, other_images(), options.samples)
    print(table)
    figure = table.plot(images, len(images), masks)
    words = "orange speaks for the class, blue against it; the shape is outlined"
    figure.suptitle(words)
    save_figure(figure, options.out)


def named_rightly(model: nn.Module, dataset: ShapesDataset, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first images whose shape the network names rightly, their labels and masks."""
    images, labels, masks = dataset.batch(range(count + count // 10 + 1))
    with torch.no_grad():
        right = (model(images).argmax(1) == labels).nonzero()[:count, 0]
    return images[right], labels[right], masks[right]


def other_images() -> FromData:
    """Images as baselines."""
    return FromData(ShapesDataset(seed=12).batch(range(50))[0])


def compared(
    model: nn.Module,
    layers: tuple[str, str],
    images: Tensor,
    target: Tensor,
    masks: Tensor | None,
    distribution: Baseline,
    samples: int,
) -> Comparison:
    """All methods on a network, with the settings and the baseline that each needs."""
    methods = all_methods(model, layers, images, samples)
    return compare(
        methods,
        images,
        target,
        masks,
        baselines=Mean(),
        method_baselines={name: distribution for name in FROM_DISTRIBUTION if name in methods},
        faithfulness=masks is None,
    )


def all_methods(model: nn.Module, layers: tuple[str, str], images: Tensor, samples: int) -> dict[str, Method]:
    """Every method by name, on a network."""
    methods = [
        Saliency(model),
        InputXGradient(model),
        SmoothGrad(model, samples=max(samples // 20, 2), absolute=True),
        VarGrad(model, samples=max(samples // 20, 2)),
        GuidedBackprop(model),
        IntegratedGradients(model, steps=32),
        ExpectedGradients(model, samples=max(samples // 16, 2)),
        LRP(model, epsilon=0.1),
        DeepLift(model),
        DeepLiftShap(model, samples=max(samples // 50, 2)),
        *(cam(model, layers[0]) for cam in (GradCam, GradCamPlusPlus, LayerCam, GuidedGradCam)),
        LayerConductance(model, layers[1], steps=32),
        *perturbing(model, images, samples),
    ]
    return {type(method).__name__: method for method in methods}


def perturbing(model: nn.Module, images: Tensor, samples: int) -> list[Method]:
    """The methods that hide parts of the images."""
    side, segments = images.shape[-1], superpixels(images)
    return [
        Occlusion(model, window=side // 8, stride=side // 16, verbose=False),
        Rise(model, samples=samples, verbose=False),
        Lime(model, samples=samples, features=segments, verbose=False),
        KernelShap(model, samples=samples, features=segments, verbose=False),
        # each order takes a pass for every feature
        ShapleySampling(
            model, samples=max(samples // 30, 16), features=superpixels(images, 30), verbose=False
        ),
        PartitionShap(model, samples=samples, features=segments, verbose=False),
        # a pass for every set of features
        ExactShapley(model, features=superpixels(images, 10), verbose=False),
    ]


def figure_of_photograph(options: argparse.Namespace) -> None:
    model, categories = squeezenet(options.weights)
    image = photograph(options.image)
    with torch.no_grad():
        likely = model(image).softmax(1)[0].topk(1)
    target = likely.indices
    category = categories[int(target)]
    print(f"{category}, {float(likely.values):.0%}")
    table = compared(model, ("1.features.12", "0"), image, target, None, Uniform(), options.samples)
    print(table)
    save_figure(over_photograph(table, image, category), options.out)


def over_photograph(table: Comparison, image: Tensor, category: str, columns: int = 6) -> Figure:
    """The photograph, and over it in gray the map of each method."""
    assert table.heat is not None
    rows = -(-(1 + len(table.methods)) // columns)
    figure = Figure(figsize=(2 * columns, 2.2 * rows + 0.3), dpi=100, layout="constrained")
    figure.suptitle(f"which places speak for {category!r} (orange) and which against it (blue)")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax in axes:
        ax.set_axis_off()
    axes[0].imshow(image[0].permute(1, 2, 0).numpy())
    for ax, name, heat in zip(axes[1:], table.methods, table.heat[:, 0], strict=False):
        ax.imshow(image[0].mean(0).numpy(), cmap="gray", vmin=-1, vmax=1)
        ax.imshow(heat.numpy(), cmap=diverging_map(), vmin=-1, vmax=1, alpha=heat.abs().sqrt().numpy())
        ax.set_title(name)
    color_bar(axes, f"contribution to {category!r}, 1: strongest of each map")
    return figure


def squeezenet(weights: Path) -> tuple[nn.Module, list[str]]:
    """SqueezeNet 1.1 for pictures in [0, 1], and the names of its classes."""
    if not weights.is_file():
        raise SystemExit(f"no weights at {weights}: give those of torchvision's squeezenet1_1")
    from safetensors.torch import load_file
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1
    from torchvision.transforms import Normalize

    model = squeezenet1_1()
    model.load_state_dict(load_file(weights))
    normalize = Normalized(Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return nn.Sequential(normalize, model).eval(), SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"]


class Normalized(nn.Module):
    """A transformation as a part of the network."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, images: Tensor) -> Tensor:
        """The transformed pictures."""
        transformed: Tensor = self.transform(images)
        return transformed


def photograph(path: Path | None, side: int = 224) -> Tensor:
    """The middle of a photograph, (1, 3, side, side) in [0, 1]."""
    if path is None or not path.is_file():
        raise SystemExit(f"no photograph at {path}: give one with --image")
    from PIL import Image
    from torchvision.transforms import functional as transforms

    with Image.open(path) as file:
        picture = transforms.center_crop(transforms.resize(file.convert("RGB"), side), [side, side])
        result: Tensor = transforms.to_tensor(picture)[None]
        return result


if __name__ == "__main__":
    main()
