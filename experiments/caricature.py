"""What the layers of a network see in a photograph: caricatures, and what is left of it after inversion.

    python experiments/caricature.py
    python experiments/caricature.py --model squeezenet1_1 --weights DEFAULT --image photograph.jpg

Writes outputs/caricature.png: for each image a row with the image, its caricatures at three layers, which
exaggerate what the layer sees in it, and its inversions, which the layer cannot tell from the image. By
default the network is `ShapesCNN`, which ships with toumei, and the images are of its world.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import add_network, basic_parser, map_layers, photograph, resized, vision_network
from toumei.cnns import caricature, invert, robustness
from toumei.models import ShapesCNN, ShapesDataset
from toumei.plots import save_grid


def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, preprocess = vision_network(options)
    images = [square(photograph(path), options.size) for path in options.image or ()]
    images = images or default_images(options)
    layers = options.layers or middle_layers(model, images[0])
    rows: list[Tensor] = []
    for image in images:
        settings: dict[str, Any] = {"preprocess": preprocess, "steps": options.steps, "seed": options.seed}
        exaggerated = caricature(model, image, layers, views=views(options.model), **settings)
        inverted = invert(model, image, layers, **settings)
        rows += [image, *exaggerated.images, *inverted.images]
    names = [f"{what}\n{layer}" for what in ("caricature", "inversion") for layer in layers]
    save_grid(enlarged(torch.stack(rows)), options.out, ["image", *names], columns=1 + len(names))
    print(f"{len(images)} images in {options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(
        __doc__, "outputs/caricature.png", steps=256, seed=0, device="auto"
    )
    add_network(parser)
    parser.add_argument("--image", nargs="+", help="photographs; else shapes, or one that scikit-learn ships")
    parser.add_argument("--layers", nargs="+", help="else three in the middle")
    parser.add_argument("--size", type=int, default=160, help="height and width of photographs")
    return parser.parse_args(argv)


def views(model: str) -> nn.Module:
    """The transforms of image and caricature."""
    return (robustness.light if model == "shapes" else robustness.lucid)(same_on_batch=True)


def default_images(options: argparse.Namespace) -> list[Tensor]:
    if options.model == "shapes":
        return list(ShapesDataset(seed=3).batch(range(3))[0])
    return [resized(photograph("china.jpg")[:, :, 20:447], options.size, options.size)]


def square(picture: Tensor, size: int) -> Tensor:
    """The middle of a picture, (3, size, size)."""
    side = min(picture.shape[1:])
    top, left = ((pixels - side) // 2 for pixels in picture.shape[1:])
    result: Tensor = resized(picture[:, top : top + side, left : left + side], size, size)
    return result


def middle_layers(model: nn.Module, image: Tensor) -> list[str]:
    """Three layers at a quarter, a half and three quarters of those that make maps."""
    if isinstance(model, ShapesCNN):
        return ["conv2", "conv4", "conv6"]
    result: list[str] = map_layers(model, image[None], (1 / 4, 1 / 2, 3 / 4))
    return result


def enlarged(images: Tensor, height: int = 160) -> Tensor:
    if images.shape[2] >= height:
        return images
    return nn.functional.interpolate(images, size=(height, height), mode="nearest")


if __name__ == "__main__":
    main()
