"""Two ways to keep a picture natural, for the same units: FFT, and MACO with its transparency.

    python experiments/maco.py
    python experiments/maco.py --model squeezenet1_1 --weights DEFAULT --units classifier.1:88 features.7:12

Writes outputs/maco.png: above, pictures by FFT, whose frequencies start out natural and may become anything;
below, pictures by MACO, whose frequencies keep the magnitudes of natural images, so that only phases are
optimized. What did not matter to the network is transparent there and shows a checkerboard. By default the
units are of `ShapesCNN`, the trained network that ships with toumei, and the magnitudes those of its images;
other networks are classifiers of torchvision, and the magnitudes those of photographs.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from common import add_network, basic_parser, vision_network
from toumei.cnns import robustness
from toumei.core import parse
from toumei.models import ShapesCNN, ShapesDataset
from toumei.plots import save_grid

SHAPES_UNITS = ("head:0", "head:1", "head:2", "head:3")  # disc, ring, square, triangle
SIDE, NOISE = (0.5, 0.1), 0.05  # crops of half the canvas show a network pixels at about their own size


@dataclass
class Subject:
    """A network, and what its pictures are made of."""

    model: nn.Module
    preprocess: nn.Module
    views: nn.Module  # of a picture by FFT
    size: int  # of a picture by FFT, and of what the network sees of one by MACO
    magnitude: Tensor | None = None
    categories: Sequence[str] = ()

    def called(self, unit: str) -> str:
        """The class of a unit of the last layer that has a channel for each class, else its name."""
        layers = [
            name for name, part in self.model.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)
        ]
        place = parse(unit)
        if not self.categories or place.layer != layers[-1] or place.channel is None or place.position:
            return unit
        return self.categories[place.channel]


def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    subject = looked_into(options)
    units = options.units or (SHAPES_UNITS if options.model == "shapes" else ())
    if not units:
        raise SystemExit(f"which units of {options.model}? Name them with --units, such as features.7:12")
    layers = list(dict.fromkeys(parse(unit).layer for unit in units))
    groups = [[unit for unit in units if parse(unit).layer == layer] for layer in layers]
    pictures = [make(subject, group, options) for make in (by_fft, by_maco) for group in groups]
    words = [subject.called(unit) for group in groups for unit in group]
    titles = [f"{way}: {unit}" for way in ("FFT", "MACO") for unit in words]
    save_grid(torch.cat(pictures), options.out, titles, columns=len(units))
    print(f"{len(units)} units of {options.model} in {options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(
        __doc__, "outputs/maco.png", steps=128, seed=0, device="auto"
    )
    add_network(parser)
    parser.add_argument("--units", nargs="+", help="such as conv4:12 conv6:3")
    parser.add_argument("--size", type=int, help="pixels that the network sees; MACO's canvas is twice it")
    parser.add_argument("--crops", type=int, default=4, help="of each canvas in each step")
    return parser.parse_args(argv)


def looked_into(options: argparse.Namespace) -> Subject:
    """The network of the options, and what its pictures are made of."""
    model, preprocess = vision_network(options)
    if options.model != "shapes":
        categories = torchvision.models.get_model_weights(options.model).DEFAULT.meta["categories"]
        return Subject(model, preprocess, robustness.lucid(), options.size or 128, categories=categories)
    magnitude = param.magnitude_spectrum([ShapesDataset(seed=7).batch(range(100))[0]], size=64)
    categories = ShapesCNN.categories
    return Subject(model, preprocess, robustness.light(), options.size or 64, magnitude, categories)


def by_fft(subject: Subject, units: list[str], options: argparse.Namespace) -> Tensor:
    """A picture for each unit of a layer, all opaque: (units, 4, 160, 160)."""
    image = param.FFTImage(len(units), 3, subject.size, subject.size, seed=options.seed)
    pipeline = attached(param.Transform(image, subject.views, subject.preprocess), units, subject, options)
    pictures = pipeline.optimize(options.steps, lr=0.05, seed=options.seed).images
    return shown(F.pad(pictures, (0, 0, 0, 0, 0, 1), value=1.0))


def by_maco(subject: Subject, units: list[str], options: argparse.Namespace) -> Tensor:
    """A picture for each unit of a layer, the last channel alpha: (units, 4, 160, 160)."""
    canvas = 2 * subject.size
    maco = param.MACO(len(units), 3, canvas, canvas, magnitude=subject.magnitude, seed=options.seed)
    crops = robustness.Crops(options.crops, subject.size, SIDE)
    noisy = param.Transform(maco, crops, robustness.Noise(NOISE, NOISE / 2), subject.preprocess)
    pipeline = attached(noisy, units, subject, options)
    pipeline.optimize(options.steps, torch.optim.NAdam, lr=1.0, seed=options.seed)
    return shown(maco.transparent())


def attached(
    image: param.Transform, units: list[str], subject: Subject, options: argparse.Namespace
) -> obj.Pipeline:
    pipeline = obj.Pipeline(image, [obj.Channel(unit) for unit in units])
    return pipeline.attach(subject.model).to(options.device)


def shown(pictures: Tensor, pixels: int = 160) -> Tensor:
    sized = F.interpolate(pictures, size=(pixels, pixels), mode="bicubic", antialias=True)
    return sized.clamp(0, 1)


if __name__ == "__main__":
    main()
