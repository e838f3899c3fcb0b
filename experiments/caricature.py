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

from toumei.cnns import caricature, invert, robustness
from toumei.core import evaluating, run
from toumei.models import ShapesCNN, ShapesDataset, load_state_dict
from toumei.plots.images import save_grid


def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, preprocess, views = network(options)
    images = [photograph(path, options.size) for path in options.image or ()] or default_images(options)
    layers = options.layers or middle_layers(model, images[0])
    rows: list[Tensor] = []
    for image in images:
        settings: dict[str, Any] = {"preprocess": preprocess, "steps": options.steps, "seed": options.seed}
        exaggerated = caricature(model, image, layers, views=views, **settings)
        inverted = invert(model, image, layers, **settings)
        rows += [image, *exaggerated.images, *inverted.images]
    names = [f"{what}\n{layer}" for what in ("caricature", "inversion") for layer in layers]
    save_grid(enlarged(torch.stack(rows)), options.out, ["image", *names], columns=1 + len(names))
    print(f"{len(images)} images in {options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="shapes", help="shapes, or a classifier of torchvision")
    parser.add_argument("--weights", help="DEFAULT to download the trained ones, or a file; else random ones")
    parser.add_argument("--image", nargs="+", help="photographs; else shapes, or one that scikit-learn ships")
    parser.add_argument("--layers", nargs="+", help="else three in the middle")
    parser.add_argument("--size", type=int, default=160, help="height and width of photographs")
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="outputs/caricature.png")
    return parser.parse_args(argv)


def network(options: argparse.Namespace) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The model, what it wants done with RGB, and the views in which image and caricature are shown."""
    if options.model == "shapes":
        model: nn.Module = ShapesCNN(pretrained=True)
        return model.to(options.device), nn.Identity(), robustness.light(same_on_batch=True)
    import torchvision

    if options.model not in torchvision.models.list_models(torchvision.models):
        raise SystemExit(f"no model {options.model!r}: there are shapes and torchvision's classifiers")
    model = torchvision.models.get_model(
        options.model, weights="DEFAULT" if options.weights == "DEFAULT" else None
    )
    if options.weights not in (None, "DEFAULT"):
        model.load_state_dict(load_state_dict(options.weights))
    trained = torchvision.models.get_model_weights(options.model).DEFAULT
    preprocess = robustness.preprocess(trained).to(options.device)
    return model.to(options.device), preprocess, robustness.lucid(same_on_batch=True)


def default_images(options: argparse.Namespace) -> list[Tensor]:
    if options.model == "shapes":
        return list(ShapesDataset(seed=3).batch(range(3))[0])
    from sklearn.datasets import load_sample_image

    china = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1) / 255
    return [resized(china[:, :, 20:447], options.size)]


def photograph(path: str, size: int) -> Tensor:
    from PIL import Image
    from torchvision.transforms import functional

    with Image.open(path) as image:
        picture: Tensor = functional.to_tensor(image.convert("RGB"))
    square = functional.center_crop(picture, [min(picture.shape[1:])] * 2)
    return resized(square, size)


def resized(image: Tensor, size: int) -> Tensor:
    smaller = nn.functional.interpolate(image[None], size=(size, size), mode="bilinear", antialias=True)
    return smaller[0].clamp(0, 1)


def middle_layers(model: nn.Module, image: Tensor) -> list[str]:
    """Three layers at a quarter, a half and three quarters of those that make maps."""
    if isinstance(model, ShapesCNN):
        return ["conv2", "conv4", "conv6"]
    names = [name for name, module in model.named_modules() if name and name.count(".") <= 1]
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        activations = run(model, image[None].to(device), record=names, stop=False)
    maps = [name for name in names if name in activations and activations[name].dim() == 4]
    return [maps[round(share * (len(maps) - 1))] for share in (1 / 4, 1 / 2, 3 / 4)]


def enlarged(images: Tensor, height: int = 160) -> Tensor:
    if images.shape[2] >= height:
        return images
    return nn.functional.interpolate(images, size=(height, height), mode="nearest")


if __name__ == "__main__":
    main()
