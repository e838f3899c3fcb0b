"""A picture for every objective: what is asked for, and what comes out.

    python experiments/objectives_gallery.py
    python experiments/objectives_gallery.py --steps 512 --seed 1

Each row of outputs/objectives_gallery.png is one idea, on `ShapesCNN`, the trained network that ships with
toumei: single units, directions, references, one batch with a common aim, arithmetic, regularizers, and two
networks that look at the same picture.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from common import basic_parser, small_views
from toumei.cnns import JointModel
from toumei.core import evaluating, run
from toumei.models import ShapesCNN, ShapesDataset
from toumei.plots import look, save_figure

SIZE, COLUMNS = 64, 7
LAYER = "conv6"


@dataclass
class GalleryRow:
    """One run: an objective for a batch of pictures, with what to write above each of them.

    `before` are pictures that are shown in front of the optimized ones.
    """

    name: str
    titles: Sequence[str]
    objective: obj.Objective
    model: nn.Module
    moved: bool = True  # shown to the network at random places, sizes and angles
    before: Sequence[tuple[str, Tensor]] = ()
    smoothness: float = 2e-5


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model = ShapesCNN(pretrained=True).eval().to(options.device)
    world = World(model)
    rows = [make(model, world) for make in ROWS]
    drawn = [(row, optimized(row, options)) for row in rows]
    draw(options.out, drawn)
    count = sum(len(pictures) for _, pictures in drawn)
    print(f"{count} pictures in {options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(
        __doc__, "outputs/objectives_gallery.png", steps=256, seed=0, device="auto"
    )
    return parser.parse_args(argv)


class World:
    """Images of the network's world, and what a layer makes of those of each class."""

    def __init__(self, model: ShapesCNN) -> None:
        images, labels, _ = ShapesDataset(seed=7).batch(range(200))
        self.images, self.labels, self.model = images, labels, model
        device = next(model.parameters()).device
        with evaluating(model), torch.no_grad():
            self.activation = run(model, images.to(device), record=[LAYER])[LAYER].cpu()

    def image(self, name: str, index: int = 0) -> Tensor:
        """An image (1, 3, H, W) of a class."""
        which = (self.labels == self.model.categories.index(name)).nonzero()[index, 0]
        return self.images[which][None]

    def mean(self, name: str) -> Tensor:
        """The mean activation of a class, less that of all images, (1, C, H, W)."""
        chosen = self.labels == self.model.categories.index(name)
        return (self.activation[chosen].mean(0) - self.activation.mean(0))[None]


# ---------------------------------------------------------------- the rows


def units(model: ShapesCNN, world: World) -> GalleryRow:
    objectives = {
        "Neuron": obj.Neuron("conv6:61"),
        "Channel": 5 * obj.Channel("conv6:61"),
        "Neuron, earlier": obj.Neuron("conv4:6"),
        "Layer": 10 * obj.Layer("relu4"),
        "DeepDream": 50 * obj.DeepDream("relu6"),
        "ClassLogit star": obj.ClassLogit("star"),
        "LocalGroup": obj.LocalGroup("conv4", (2, 2, 4, 4), torch.eye(64)[6]),
    }
    return GalleryRow("units", tuple(objectives), obj.PerImage(*objectives.values()), model)


def directions(model: ShapesCNN, world: World) -> GalleryRow:
    star, ring = (world.mean(name).mean((0, 2, 3)) for name in ("star", "ring"))
    best, worst = int(star.argmax()), int(star.argmin())
    objectives = {
        "Direction: star": obj.Direction(LAYER, star),
        "cosine": 20 * obj.Direction(LAYER, star, similarity="cosine"),
        "dot-cosine": obj.Direction(LAYER, star, similarity="dot-cosine"),
        "NeuronDirection": obj.NeuronDirection(LAYER, star, similarity="dot-cosine"),
        "star + ring": obj.NeuronDirection(LAYER, star / star.norm() + ring / ring.norm()),
        "TensorDirection": obj.TensorDirection(LAYER, world.mean("star"), similarity="dot-cosine"),
        "ChannelWeights": obj.ChannelWeights(LAYER, {best: 1.0, worst: -1.0}),
    }
    return GalleryRow("directions", tuple(objectives), obj.PerImage(*objectives.values()), model)


def references(model: ShapesCNN, world: World) -> GalleryRow:
    content, texture = world.image("star", 1), world.image("stripes")

    def style(layer: str) -> obj.Objective:
        return obj.Style.to_image(model, layer, texture)

    def difference(layer: str) -> obj.Objective:
        return obj.ActivationDifference.to_image(model, layer, content, distance="squared")

    styles = style("conv1") + style("conv2") + style("conv3")
    objectives = {
        "difference, conv2": -difference("conv2"),
        "difference, conv4": -difference("conv4"),
        "difference, conv6": -20 * difference("conv6"),
        "DotCompare, conv6": 1e-3 * obj.DotCompare.to_image(model, "conv6", content, power=0.5),
        "Style": -styles,
    }
    shown = ("reference", content), ("reference of Style", texture)
    return GalleryRow(
        "references", tuple(objectives), obj.PerImage(*objectives.values()), model, False, shown, 1e-5
    )


def family(model: ShapesCNN, world: World) -> GalleryRow:
    way = obj.Interpolation(obj.ClassLogit("star"), obj.ClassLogit("ring"))
    titles = [f"Interpolation {index / (COLUMNS - 1):.0%}" for index in range(COLUMNS)]
    return GalleryRow("star to ring", titles, way + obj.Alignment("conv2"), model)


def variety(model: ShapesCNN, world: World) -> GalleryRow:
    objective = obj.Neuron("conv6:61") + 5 * obj.Diversity("relu4")
    return GalleryRow("many faces", ["+ Diversity"] * COLUMNS, objective, model)


def arithmetic(model: ShapesCNN, world: World) -> GalleryRow:
    star, ring = obj.ClassLogit("star"), obj.ClassLogit("ring")
    objectives = {
        "star": star,
        "ring": ring,
        "star + ring": star + ring,
        "(9 + star) * (9 + ring)": 0.1 * (9 + star) * (9 + ring),
        "star - 2 ring": star - 2 * ring,
        "star ** 2 / 5": star**2 / 5,
        "Function: largest": obj.Function(lambda maps: maps["conv6"].amax((1, 2, 3)), "conv6", "largest"),
    }
    return GalleryRow("arithmetic", tuple(objectives), obj.PerImage(*objectives.values()), model)


def regularizers(model: ShapesCNN, world: World) -> GalleryRow:
    unit = obj.Neuron("conv4:6")
    objectives = {
        "alone": unit,
        "- TotalVariation": unit - 1e-2 * obj.TotalVariation(),
        "- L1 to gray": unit - 1e-3 * obj.L1(constant=0.5),
        "- L2 to gray": unit - 0.1 * obj.L2(constant=0.5),
        "- LInf to gray": unit - 20 * obj.LInf(constant=0.5),
        "- BlurDifference": unit - 0.3 * obj.BlurDifference(),
        "- BoundaryComplexity": unit - obj.BoundaryComplexity(16),
    }
    bare = obj.PerImage(*objectives.values())
    return GalleryRow("regularizers", tuple(objectives), bare, model, smoothness=0)


def two_networks(model: ShapesCNN, world: World) -> GalleryRow:
    turned = JointModel({"upright": model, "turned": model}, {"turned": lambda image: image.rot90(1, (2, 3))})
    index = model.categories.index("triangle")
    upright, other = (obj.ClassLogit(index, layer=name) for name in ("upright", "turned"))
    objectives = {"triangle": upright, "turned triangle": other, "both at once": upright + other}
    return GalleryRow("JointModel", tuple(objectives), obj.PerImage(*objectives.values()), turned)


ROWS: tuple[Callable[[ShapesCNN, World], GalleryRow], ...] = (
    units,
    directions,
    references,
    family,
    variety,
    arithmetic,
    regularizers,
    two_networks,
)

# ---------------------------------------------------------------- optimizing and drawing


def optimized(row: GalleryRow, options: argparse.Namespace) -> Tensor:
    """The pictures of a row, (N, 3, H, W)."""
    images = param.FFTImage(len(row.titles), 3, SIZE, SIZE, seed=options.seed)
    shown = param.Transform(images, small_views(SIZE)) if row.moved else images
    pipeline = obj.Pipeline(shown, row.objective).attach(row.model).to(options.device)
    return pipeline.optimize(options.steps, tv_loss=row.smoothness, seed=options.seed).images


def draw(path: str, rows: Sequence[tuple[GalleryRow, Tensor]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 * COLUMNS, 1.75 * len(rows)), layout="constrained", dpi=120)
    places = figure.subplots(len(rows), COLUMNS, squeeze=False)
    for line, (row, pictures) in zip(places, rows, strict=True):
        made = zip(row.titles, pictures[:, None], strict=True)
        for place in line:
            place.set_axis_off()
        for place, (title, picture) in zip(line, [*row.before, *made], strict=False):
            enlarged = nn.functional.interpolate(picture, scale_factor=3, mode="bicubic").clamp(0, 1)
            place.imshow(enlarged[0].permute(1, 2, 0).numpy())
            place.set_title(title)
        line[0].text(-0.08, 0.5, row.name, rotation=90, ha="right", va="center", transform=line[0].transAxes)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
