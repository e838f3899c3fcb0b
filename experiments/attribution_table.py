"""How well attribution methods find the shape in 100 images, and what is left of it without training.

    python experiments/attribution_table.py
    python experiments/attribution_table.py --out docs/attribution_table.md

Measures on images of `ShapesDataset` that `ShapesCNN` names rightly which share of the contributions lies in
the shape and how often the highest place does, both also by chance and for networks with random weights.
Writes a page with one table to outputs/attribution_table.md.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attribution import LAYER, compared, named_rightly, other_images, settings
from torch import Tensor

from toumei.attribution import Mean
from toumei.attribution.comparison import located
from toumei.models import ShapesCNN, ShapesDataset

Row = Mapping[str, Tensor]  # measures of each image, by the names of `Comparison.columns`
NOTHING = "no network: image less mean colour"
DEVIATIONS = 1.96  # of a 95 % interval
TEXT = """# Which attribution methods find the object

An attribution says how much each pixel contributed to the score of a class. Here one knows what is right:
`ShapesDataset` draws one shape on a background that has nothing to do with its class, so all evidence lies in
the shape, and its exact mask is known. What follows is measured on {images} images that `ShapesCNN` names
rightly, for the score of the right class.

- **Mass inside**: which share of the contributions, by magnitude, lies in the mask.
- **Pointing**: in how many images the place that contributes most lies in the mask, with its 95 % interval.
  A place just beside the mask is a miss. Where a whole superpixel contributes most, its share in the mask
  counts.
- **By chance**: the same maps, measured with the masks of other images. So much needs no look at the image;
  it is more than the area of the shapes ({area}) as shapes are often in the middle (the middle pixel alone
  points at {middle} of them).
- **Random weights**: the same for {networks} networks that were never trained, each on a part of the images.
  In brackets how much it is above its own chance, ± its 95 % interval, in percentage points. A method that
  explains what was learned falls to **chance** here: neither measure is above it by more than the interval.

| method | mass inside | by chance | pointing | by chance | random weights: mass | pointing | chance |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |
{table}

Most often right are {best}.

Without training at chance: {fallen}. The others are not, and for most of them it is no fault of the network:
a contribution against a baseline contains the difference between image and baseline, which shows
the shape whatever the network says of it. The first row draws this difference and asks no network at all; it
points at {nothing} of the shapes. So a map that looks like the object proves little (Adebayo et al., Sanity
Checks for Saliency Maps, 2018); compare it with that of an untrained network, as here. Backward passes that
drop negative gradients, as in guided backpropagation, draw edges by themselves (Sixt et al., When
Explanations Lie, 2020).

What tells classes apart is the outline, and plain gradients are high on both sides of it, so that they often
point just beside a shape. The scores that RISE averages all have the mean score in common, so its mass is
spread evenly and only its peak says something.

Settings, chosen on images of other seeds: the baseline is the image's mean colour, or images of the dataset
for ExpectedGradients and DeepLiftShap; class activation maps are those of `{layer}`; all else is as the
methods have it by default, but for

{settings}

Made by `python experiments/attribution_table.py --out docs/attribution_table.md`.
"""


def main(argv: Sequence[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=11, help="of the images")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--networks", type=int, default=10, help="with random weights, who share the images")
    parser.add_argument("--samples", type=int, default=300, help="of each method that samples")
    parser.add_argument("--out", type=Path, default=Path("outputs/attribution_table.md"))
    options = parser.parse_args(argv)
    started = time.perf_counter()
    model = ShapesCNN(pretrained=True).eval()
    images, labels, masks = named_rightly(model, ShapesDataset(options.seed), options.images)
    trained = rows(model, images, labels, masks, options.samples)
    batches = torch.arange(len(images)).chunk(options.networks)
    random = [
        rows(untrained(seed), images[own], labels[own], masks[own], options.samples)
        for seed, own in enumerate(batches)
    ]
    together = {
        method: {name: torch.cat([part[method][name] for part in random]) for name in columns}
        for method, columns in trained.items()
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    used = settings(images, other_images(), options.samples)
    options.out.write_text(page(trained, together, masks, len(batches), used))
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def untrained(seed: int) -> ShapesCNN:
    torch.manual_seed(seed)
    return ShapesCNN().eval()


def rows(
    model: ShapesCNN, images: Tensor, labels: Tensor, masks: Tensor, samples: int
) -> dict[str, dict[str, Tensor]]:
    """What is measured of each method, and of a map that asks no network."""
    table = compared(model, LAYER, images, labels, masks, other_images(), samples)
    print(table)
    difference = (images - Mean().draw(images, 1)[0]).abs()
    found = {NOTHING: located(difference, masks)}
    for index, method in enumerate(table.methods):
        found[method] = {name: table.columns[name][index] for name in found[NOTHING]}
    return found


def page(
    trained: Mapping[str, Row],
    random: Mapping[str, Row],
    masks: Tensor,
    networks: int,
    used: Mapping[str, Mapping[str, Any]],
) -> str:
    """The page of the documentation."""
    lines = [line(method, trained[method], random[method]) for method in trained]
    methods = [method for method in trained if method != NOTHING]
    best = sorted(methods, key=lambda method: -float(trained[method]["pointing"].mean()))
    found = ", ".join(f"{method} {percent(trained[method]['pointing'])}" for method in best[:3])
    fallen = [method for method in methods if at_chance(random[method])]
    area, middle = masks.float().mean(), masks[:, masks.shape[1] // 2, masks.shape[2] // 2].float().mean()
    return TEXT.format(
        images=len(masks),
        networks=networks,
        layer=LAYER,
        best=found,
        nothing=percent(trained[NOTHING]["pointing"]),
        fallen=", ".join(fallen) or "none",
        area=f"{area:.0%}",
        middle=f"{middle:.0%}",
        table="\n".join(lines),
        settings="\n".join(f"- {method}: {said(options)}" for method, options in used.items()),
    )


def line(method: str, trained: Row, random: Row) -> str:
    """A row of the table."""
    low, high = wilson(float(trained["pointing"].mean()), len(trained["pointing"]))
    cells = [
        percent(trained["inside"]),
        percent(trained["inside_chance"]),
        f"{percent(trained['pointing'])} ({low:.0%} to {high:.0%})",
        percent(trained["pointing_chance"]),
    ]
    if method == NOTHING:
        cells += ["", "", ""]
    else:
        cells += [f"{percent(random[name])} ({above(random, name)})" for name in ("inside", "pointing")]
        cells += ["yes" if at_chance(random) else "no"]
    return f"| {method} | {' | '.join(cells)} |"


def percent(column: Tensor) -> str:
    return f"{float(column.mean()):.0%}"


def above(row: Row, name: str) -> str:
    mean, error = above_chance(row, name)
    return f"{100 * mean:+.0f} ± {100 * error:.0f}"


def above_chance(row: Row, name: str) -> tuple[float, float]:
    """The mean over images of what is above chance, and half of its 95 % interval."""
    difference = row[name] - row[f"{name}_chance"]
    return float(difference.mean()), DEVIATIONS * float(difference.std()) / len(difference) ** 0.5


def at_chance(row: Row) -> bool:
    """Whether neither measure is significantly above chance."""
    return all(mean <= error for mean, error in (above_chance(row, name) for name in ("inside", "pointing")))


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share that was counted among so many (Wilson, 1927)."""
    weight = DEVIATIONS**2 / count
    middle = share + weight / 2
    half = (weight * (share * (1 - share) + weight / 4)) ** 0.5
    return (middle - half) / (1 + weight), (middle + half) / (1 + weight)


def said(options: Mapping[str, Any]) -> str:
    """Options as a reader would write them."""
    words = {"features": lambda value: f"superpixels, about {int(value.max()) + 1}"}
    return ", ".join(
        f"{name}={words[name](value) if name in words else value}"
        for name, value in options.items()
        if name not in ("verbose", "baselines")
    )


if __name__ == "__main__":
    main()
