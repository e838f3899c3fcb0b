"""What the units of a network look for: pictures that excite them, beside the images that do.

    python experiments/feature_viz.py
    python experiments/feature_viz.py --model inception5h --weights DEFAULT --units mixed3a:74 mixed4a:476
    python experiments/feature_viz.py --model resnet18 --weights DEFAULT --images my_photographs

By default it looks into `ShapesCNN`, the trained network that ships with toumei: for three of its layers it
picks the units that stand out most on images of the network's world, optimizes a picture for each, and
writes them beside the images that excite the unit most to outputs/feature_viz.png.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from common import (
    SIZES,
    add_network,
    basic_parser,
    map_layers,
    outstanding,
    small_views,
    vision_network,
)
from toumei.cnns import robustness
from toumei.core import channels_first, evaluating, parse, run
from toumei.models import ShapesDataset
from toumei.plots import look, montage, save_figure

BATCH = 100
BEST = 6  # images shown beside each picture


@dataclass(eq=False)
class Subject:
    """A network to look into, and how to make pictures for it.

    `layers` says how large the picture of a unit of each layer is, `objective` what it is optimized for, and
    `smoothness` the weight of its total variation.
    """

    model: nn.Module
    layers: dict[str, int]
    objective: Callable[[str], obj.Objective]
    views: Callable[[int], nn.Module]
    preprocess: nn.Module
    images: Tensor | None = None
    smoothness: float = 0.0

    def size(self, unit: str) -> int:
        """How large the picture of a unit is."""
        return self.layers.get(parse(unit).layer, max(self.layers.values()))


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    subject = looked_into(options)
    units = options.units or strongest_units(subject, options.per_layer)
    pictures = [
        picture for same_layer in by_layer(units) for picture in optimized(subject, same_layer, options)
    ]
    best = [None if subject.images is None else exciting_images(subject, unit) for unit in units]
    draw(options.out, units, pictures, best)
    print(f"{len(units)} units of {options.model} in {options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(
        __doc__, "outputs/feature_viz.png", steps=256, seed=0, device="auto"
    )
    add_network(parser, "inception5h")
    parser.add_argument(
        "--units", nargs="+", help="such as conv4:12 conv6:3; else the strongest of three layers"
    )
    parser.add_argument("--per-layer", type=int, default=4, help="units for each layer if none are named")
    parser.add_argument(
        "--images", help="a folder of images to choose units by and to show beside the pictures"
    )
    parser.add_argument("--size", type=int, help="height and width of the pictures")
    parser.add_argument("--parameterization", choices=PARAMETERIZATIONS, default="fft")
    return parser.parse_args(argv)


def looked_into(options: argparse.Namespace) -> Subject:
    """The network of the options, and how its pictures are made."""
    model, preprocess = vision_network(options, "inception5h")
    if options.model == "shapes":
        world = ShapesDataset(seed=7)
        images = folder_images(options.images, 64) if options.images else world.batch(range(1000))[0]
        sizes = {layer: options.size or SIZES[layer] for layer in ("conv2", "conv4", "conv6")}
        # Before the ReLU, where no unit is inactive from the start.
        return Subject(model, sizes, obj.Neuron, small_views, preprocess, images, smoothness=1e-3)
    size = options.size or 224
    if options.model == "inception5h":
        layers, views = ["mixed3a", "mixed4a", "mixed4d"], standard_views
    else:
        # Blocks that make maps or tokens, at a third, two thirds and the end.
        layers = map_layers(model, torch.zeros(1, 3, size, size), (1 / 3, 2 / 3, 1), axes=(3, 4))
        views = fixed_size_views
    chosen = folder_images(options.images, 224) if options.images else None
    return Subject(model, dict.fromkeys(layers, size), obj.Channel, views, preprocess, chosen)


def standard_views(size: int) -> nn.Module:
    """Lucid's views."""
    return robustness.lucid()


def fixed_size_views(size: int) -> nn.Module:
    """Lucid's views, cropped to the size of the picture: vision transformers take no other."""
    return robustness.Views(*robustness.lucid().pieces, robustness.CropOrPad(size, size))


PARAMETERIZATIONS: dict[str, Any] = {"fft": param.FFTImage, "pixel": param.PixelImage, "neural": param.Neural}


def folder_images(folder: str, size: int) -> Tensor:
    from PIL import Image
    from torchvision import transforms

    crop = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()])
    paths = sorted(
        path for path in Path(folder).iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg")
    )
    if not paths:
        raise SystemExit(f"no .png or .jpg images in {folder}")
    return torch.stack([crop(Image.open(path).convert("RGB")) for path in paths])


@cache
@torch.no_grad()
def responses(subject: Subject, layer: str) -> tuple[Tensor, Tensor]:
    """The strongest response of each channel to each image, and where on the map (0 to 1)."""
    assert subject.images is not None
    device = next(subject.model.parameters()).device
    values, places = [], []
    with evaluating(subject.model):
        for batch in subject.images.split(BATCH):
            seen = subject.preprocess(batch.to(device))
            activation = run(subject.model, seen, record=[layer])[layer].cpu()
            maps = (
                activation if activation.dim() == 4 else channels_first(activation).amax(2)[..., None, None]
            )
            value, index = maps.flatten(2).max(2)
            y, x = index // maps.shape[3], index % maps.shape[3]
            values.append(value)
            places.append(torch.stack([(y + 0.5) / maps.shape[2], (x + 0.5) / maps.shape[3]], dim=2))
    return torch.cat(values), torch.cat(places)


def strongest_units(subject: Subject, count: int) -> list[str]:
    """The units of each layer whose favourite images stand out most; without images the first ones.

    A unit that says the same as a stronger one is passed over.
    """
    if subject.images is None:
        return [f"{layer}:{channel}" for layer in subject.layers for channel in range(count)]
    units = []
    for layer in subject.layers:
        response, _ = responses(subject, layer)
        chosen = outstanding(response, count, BEST)
        units += [f"{layer}:{channel}" for channel in chosen]
    return units


def exciting_images(subject: Subject, unit: str) -> Tensor:
    """Crops, as large as the picture, of the images that excite a unit most: (BEST, 3, H, W)."""
    assert subject.images is not None
    response, places = responses(subject, parse(unit).layer)
    channel, size = parse(unit).channel or 0, min(subject.size(unit), subject.images.shape[-1])
    crops = []
    for index in response[:, channel].topk(min(BEST, len(response))).indices:
        free = subject.images.shape[-1] - size
        corner = places[index, channel] * subject.images.shape[-1] - size / 2
        top, left = corner.round().clamp(0, free).int().tolist()
        crops.append(subject.images[index, :, top : top + size, left : left + size])
    return torch.stack(crops)


def by_layer(units: Sequence[str]) -> list[list[str]]:
    """The units in their order, in runs of one layer: each run is one batch, cut off behind its layer."""
    groups: list[list[str]] = []
    for unit in units:
        same = groups and parse(groups[-1][0]).layer == parse(unit).layer
        groups[-1].append(unit) if same else groups.append([unit])
    return groups


def optimized(subject: Subject, units: list[str], options: argparse.Namespace) -> Tensor:
    """A picture for each unit of a layer, (units, 3, H, W)."""
    size = subject.size(units[0])
    image = PARAMETERIZATIONS[options.parameterization](len(units), 3, size, size, seed=options.seed)
    shown = param.Transform(image, subject.views(size), subject.preprocess)
    pipeline = obj.Pipeline(shown, [subject.objective(unit) for unit in units])
    pipeline.attach(subject.model).to(options.device)
    lr = 0.005 if options.parameterization == "neural" else 0.05
    return pipeline.optimize(options.steps, lr=lr, tv_loss=subject.smoothness, seed=options.seed).images


def draw(path: str, units: Sequence[str], pictures: Sequence[Tensor], best: Sequence[Tensor | None]) -> None:
    from matplotlib.figure import Figure

    columns = min(len(units), 4)
    rows = -(-len(units) // columns)
    width = 2.0 if best[0] is None else 4.0
    figure = Figure(figsize=(width * columns, 1.8 * rows), layout="constrained", dpi=120)
    for index, unit in enumerate(units):
        place = figure.add_subplot(rows, columns, index + 1)
        place.imshow(beside(pictures[index], best[index]).permute(1, 2, 0).numpy())
        place.set_title(unit, loc="left")
        place.set_axis_off()
    if best[0] is not None:
        figure.suptitle(
            "units (layer:channel): left the picture optimized for the unit, right images that excite it most"
        )
    save_figure(figure, path)


def beside(picture: Tensor, images: Tensor | None, height: int = 194) -> Tensor:
    """A large picture on the left and the images on the right, (3, H, W)."""
    enlarged = nn.functional.interpolate(picture[None], size=(height, height), mode="bicubic").clamp(0, 1)[0]
    if images is None:
        return enlarged
    small = nn.functional.interpolate(images, size=(96, 96), mode="bilinear", antialias=True)
    small = torch.cat([small, torch.ones(BEST - len(small), 3, 96, 96)])  # a folder may hold fewer
    return torch.cat([enlarged, torch.ones(3, height, 8), montage(small, columns=3, gap=2)], dim=2)


if __name__ == "__main__":
    main()
