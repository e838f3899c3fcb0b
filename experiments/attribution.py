"""Every attribution method on the same pictures: where they look, and how well.

    python experiments/attribution.py
    python experiments/attribution.py --table docs/attribution_table.md
    python experiments/attribution.py --weights squeezenet1_1.safetensors --image photograph.jpg

By default on images of `ShapesDataset` that `ShapesCNN` names rightly, whose masks say where the evidence
is: draws the methods on the first six to outputs/attribution.png, and writes one table with the share of
their mass in the mask and how often the highest place lies in it, also for a network with random weights (on
a third of the images), to outputs/attribution_table.md. With the weights of SqueezeNet 1.1, on a photograph
and its likeliest class.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import toumei.attribution as attribution
from toumei.attribution import Comparison, compare
from toumei.models import ShapesCNN, ShapesDataset
from toumei.plots import save_figure

PERTURBING = ("Occlusion", "Rise", "Lime", "KernelShap", "ShapleySampling", "PartitionShap")
QUIET: dict[str, Any] = {"verbose": False}


def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    if options.weights is not None:
        figure_of_photograph(options)
    else:
        table_of_shapes(options)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, help="safetensors of torchvision's squeezenet1_1")
    parser.add_argument("--image", type=Path, help="photograph for SqueezeNet")
    parser.add_argument("--images", type=int, default=100, help="of ShapesDataset")
    parser.add_argument("--samples", type=int, default=120, help="of each method that samples")
    parser.add_argument("--table", type=Path, default=Path("outputs/attribution_table.md"))
    parser.add_argument("--out", type=Path, default=Path("outputs/attribution.png"))
    return parser.parse_args(argv)


def table_of_shapes(options: argparse.Namespace) -> None:
    trained, untrained = ShapesCNN(pretrained=True).eval(), random_network()
    images, labels, masks = ShapesDataset(seed=11).batch(range(options.images + 10))
    with torch.no_grad():
        right = (trained(images).argmax(1) == labels).nonzero()[: options.images, 0]
    images, labels, masks = images[right], labels[right], masks[right]
    background, _, _ = ShapesDataset(seed=12).batch(range(50))
    table = compared(trained, "relu5", images, labels, masks, background, options.samples)
    third = slice(0, max(len(images) // 3, 1))
    chance = compared(
        untrained, "relu5", images[third], labels[third], masks[third], background, options.samples
    )
    print(table)
    options.table.parent.mkdir(parents=True, exist_ok=True)
    options.table.write_text(page(table, chance, masks, options))
    figure = table.plot(images, masks=masks)
    save_figure(figure, options.out)


def random_network() -> nn.Module:
    torch.manual_seed(0)
    return ShapesCNN().eval()


def compared(
    model: nn.Module,
    layer: str,
    images: Tensor,
    target: Tensor,
    masks: Tensor | None,
    background: Tensor,
    samples: int,
) -> Comparison:
    """All methods on a network, with what each needs."""
    names = (
        *("Saliency", "InputXGradient", "SmoothGrad", "GuidedBackprop", "IntegratedGradients"),
        *("ExpectedGradients", "DeepLift", "DeepLiftShap"),
    )
    methods = {name: getattr(attribution, name)(model) for name in names}
    methods |= {
        name: getattr(attribution, name)(model, layer) for name in ("GradCam", "GradCamPlusPlus", "LayerCam")
    }
    methods |= {name: getattr(attribution, name)(model) for name in PERTURBING}
    from_data = attribution.FromData(background)
    side, own = images.shape[-1], {"samples": samples, **QUIET}
    options: dict[str, dict[str, Any]] = {
        **dict.fromkeys(("Rise", "Lime", "KernelShap", "PartitionShap"), own),
        # a window of a quarter of the side, few features for what visits them in many orders
        "Occlusion": {"window": side // 4, "stride": side // 16, **QUIET},
        "ShapleySampling": {"samples": 16, "features": attribution.grid(images, 4), **QUIET},
        "IntegratedGradients": {"steps": 32},
        "SmoothGrad": {"samples": max(samples // 5, 2)},
        "ExpectedGradients": {"baselines": from_data, "samples": max(samples // 4, 2)},
        "DeepLiftShap": {"baselines": from_data, "samples": max(samples // 15, 2)},
    }
    options = {name: options[name] for name in methods if name in options}
    blurred = attribution.Blur(images.shape[-1] / 6)
    return compare(
        methods, images, target, masks, baselines=blurred, options=options, faithfulness=masks is None
    )


def page(table: Comparison, chance: Comparison, masks: Tensor, options: argparse.Namespace) -> str:
    """The table as a page of the documentation."""
    share, middle = float(masks.float().mean()), masks[:, masks.shape[1] // 2, masks.shape[2] // 2]
    text = f"""# Where attribution methods look

{len(masks)} images of `ShapesDataset` that `ShapesCNN` names rightly; what is attributed is the score of the
right class. *Mass inside* is the share of contributions, by magnitude, that lies in the true mask of the
shape, *pointing* how often the place that contributes most lies in it. The last two columns are the same
for a network with random weights, on a third of the images.

By chance, {share:.1%} of the mass would lie inside: that is the area of the shapes. Shapes are often in the
middle, so the middle pixel alone points at them in {float(middle.float().mean()):.1%} of the images. What
tells classes apart is the outline, and gradients peak at both sides of it, so that methods for single pixels
often point just beside a shape.

Contributions are against a blurred image, or images of the dataset for ExpectedGradients and DeepLiftShap;
methods that sample draw about {options.samples} coalitions or masks an image. Made by
`python experiments/attribution.py --table docs/attribution_table.md`.

| method | mass inside | pointing | mass inside, random weights | pointing, random weights |
| --- | ---: | ---: | ---: | ---: |
"""
    lines = []
    for own, other in zip(table.rows, chance.rows, strict=True):
        cells = (own["inside"], own["pointing"], other["inside"], other["pointing"])
        lines.append(f"| {own['method']} | {' | '.join(f'{cell:.1%}' for cell in cells)} |")
    return text + "\n".join(lines) + "\n"


def figure_of_photograph(options: argparse.Namespace) -> None:
    model, categories = squeezenet(options.weights)
    image = photograph(options.image)
    with torch.no_grad():
        likely = model(image).softmax(1)[0].topk(1)
    target = likely.indices
    print(f"{categories[int(target)]}, {float(likely.values):.0%}")
    table = compared(
        model, "1.features.12", image, target, None, torch.rand(20, *image.shape[1:]), options.samples
    )
    print(table)
    save_figure(table.plot(image), options.out)


def squeezenet(weights: Path) -> tuple[nn.Module, list[str]]:
    """SqueezeNet 1.1 for pictures in [0, 1], and the names of its classes."""
    from safetensors.torch import load_file
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1
    from torchvision.transforms import Normalize

    if not weights.is_file():
        raise SystemExit(f"no weights at {weights}: give those of torchvision's squeezenet1_1")
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
        return transforms.to_tensor(picture)[None]


if __name__ == "__main__":
    main()
