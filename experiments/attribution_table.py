"""How well attribution methods find the shape in 100 images, and what is left of it without training.

    python experiments/attribution_table.py
    python experiments/attribution_table.py --out docs/attribution_table.md

Measures on images of `ShapesDataset` that `ShapesCNN` names rightly which share of the contributions lies in
the shape and how often the highest place does, both also by chance and for networks with random weights.
Writes a page with one table to outputs/attribution_table.md.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from attribution import LAYERS, all_methods, compared, named_rightly, other_images
from torch import Tensor

from common import basic_parser
from toumei.attribution import Mean, Method
from toumei.attribution.metrics.localization import located
from toumei.models import ShapesCNN, ShapesDataset

Row = Mapping[str, Tensor]  # measures of each image, by the names of `Comparison.columns`
NOTHING = "no network: image less mean colour"
DEVIATIONS = 1.96  # of a 95 % interval
TEXT = """# Which attribution methods find the object

An attribution says how much each pixel contributed to the score of a class. Here one knows what is right:
`ShapesDataset` draws one shape on a background that has nothing to do with its class, so all evidence lies in
the shape, and its exact mask is known. What follows is measured on {images} images that `ShapesCNN` names
rightly, for the score of the right class.

- **Mass**: which share of the contributions, by magnitude, lies inside the mask.
- **Pointing**: in how many images the place that contributes most lies inside the mask, with its 95 %
  interval. A place just beside the mask is a miss. Where a whole superpixel contributes most, its share
  inside counts.
- **Balance**: how much of all contributions speaks for the class from inside the mask, less what speaks
  against it there. Empty for maps without a sign.
- **In brackets, chance**: the same maps measured with the masks of other images. So much needs no look at the
  image. It is more than the area of the shapes ({area}), since both like the middle (whose pixel alone
  points at {middle} of the shapes).
- **Random**: the same for {networks} networks with random weights, each on a part of the images; in brackets,
  in percentage points, how much that is above its own chance (for the balance: 0), ± two standard errors over
  the networks. A map that explains what was learned falls to chance here. The last column says which measures
  do: those that are above it by no more than the error.

| method | mass | pointing | balance | random: mass | random: pointing | random: balance | random at chance |
| --- | --- | --- | --- | --- | --- | --- | --- |
{table}

Most often right: {best} of the images.

**A map that shows the object need not explain the network.** The first row asks no network at all: it draws
how far each pixel is from the image's mean colour, and points at {nothing} of the shapes. Contributions
against a baseline (integrated gradients, conductance, DeepLift, Shapley values, LIME, occlusion) contain this
difference as a factor, and LRP that from gray, which the first layer of `ShapesCNN` maps to 0, so that they
are large where the shape is with random weights, too (Adebayo et al., Sanity Checks for Saliency Maps, 2018).
What they lose without training is the sign: as much in the shape then speaks against the class as for it, and
the balance falls to a few percent, much alike for all methods, since all are asked about the same random
networks. Of class activation maps only the pointing of Grad-CAM falls to chance; the others and RISE lose
most of theirs, but not all, since random filters, too, answer to what stands out. Guided backpropagation
drops negative gradients on its way and draws edges whatever the layers above have learned (Sixt et al., When
Explanations Lie, 2020); the sign of what it draws says nothing even of the trained network, where its balance
is about 0. So compare a map with that of an untrained network before you believe it.

What tells classes apart is the outline, and plain gradients are high on both sides of it, so that they often
point just beside a shape. Few superpixels, as ExactShapley has them, follow an outline less well than many.
Scores under RISE's masks have most of their height in common, so its mass is spread evenly and only its peak
says something.

Settings were chosen on images of another seed. The baseline is the image's mean colour, or images of the
dataset for ExpectedGradients and DeepLiftShap; class activation maps are those of `{layers[0]}`, and
conductance is that of `{layers[1]}`; all else is as the methods have it by default, but for

{settings}

Made by `python experiments/attribution_table.py --out docs/attribution_table.md`.
"""


def main(argv: Sequence[str] | None = None) -> Path:
    parser = basic_parser(__doc__, Path("outputs/attribution_table.md"))
    parser.add_argument("--seed", type=int, default=11, help="of the images")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--networks", type=int, default=20, help="with random weights, who share the images")
    parser.add_argument("--samples", type=int, default=300, help="of each method that samples")
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
    options.out.parent.mkdir(parents=True, exist_ok=True)
    used = {name: said(one) for name, one in all_methods(model, LAYERS, images, options.samples).items()}
    options.out.write_text(page(trained, random, masks, used))
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def untrained(seed: int) -> ShapesCNN:
    torch.manual_seed(seed)
    return ShapesCNN().eval()


def rows(
    model: ShapesCNN, images: Tensor, labels: Tensor, masks: Tensor, samples: int
) -> dict[str, dict[str, Tensor]]:
    """What is measured of each method, and of a map that asks no network."""
    table = compared(model, LAYERS, images, labels, masks, other_images(), samples)
    print(table)
    difference = (images - Mean().draw(images, 1)[0]).abs()
    found = {NOTHING: located(difference, masks)}
    for index, method in enumerate(table.methods):
        found[method] = {name: table.columns[name][index] for name in found[NOTHING]}
    return found


def page(
    trained: Mapping[str, Row],
    random: Sequence[Mapping[str, Row]],
    masks: Tensor,
    used: Mapping[str, str],
) -> str:
    """The page of the documentation."""
    methods = [method for method in trained if method != NOTHING]
    best = sorted(methods, key=lambda method: -float(trained[method]["pointing"].mean()))
    area, middle = masks.float().mean(), masks[:, masks.shape[1] // 2, masks.shape[2] // 2].float().mean()
    lines = [line(method, trained[method], [rows[method] for rows in random]) for method in trained]
    return TEXT.format(
        images=len(masks),
        networks=len(random),
        layers=LAYERS,
        best=", ".join(f"{method} in {percent(trained[method]['pointing'])}" for method in best[:3]),
        nothing=percent(trained[NOTHING]["pointing"]),
        area=f"{area:.0%}",
        middle=f"{middle:.0%}",
        table="\n".join(lines),
        settings="\n".join(f"- {method}: {words}" for method, words in used.items() if words),
    )


def line(method: str, trained: Row, random: Sequence[Row]) -> str:
    """A row of the table."""
    low, high = wilson(float(trained["pointing"].mean()), len(trained["pointing"]))
    signed = not torch.equal(trained["balance"], trained["inside"])
    cells = [
        f"{percent(trained['inside'])} ({percent(trained['inside_chance'])})",
        f"{percent(trained['pointing'])}, {low:.0%} to {high:.0%} ({percent(trained['pointing_chance'])})",
        percent(trained["balance"]) if signed else "",
    ]
    if method == NOTHING:
        cells[2:] = [""] * 5
    else:
        measures = {"mass": "inside", "pointing": "pointing", **({"balance": "balance"} if signed else {})}
        levels = {words: above_chance(random, name) for words, name in measures.items()}
        cells += [said_above(random, name) for name in ("inside", "pointing")]
        cells += [said_above(random, "balance") if signed else ""]
        cells += [", ".join(words for words, (mean, error) in levels.items() if mean <= error)]
    return f"| {method} | {' | '.join(cells)} |"


def percent(column: Tensor) -> str:
    return f"{float(column.mean()):.0%}"


def said_above(random: Sequence[Row], name: str) -> str:
    """A measure of networks with random weights, and by how much it is above chance."""
    (mean, error), level = above_chance(random, name), torch.cat([row[name] for row in random])
    above = f"{100 * mean:+.0f} ± {100 * error:.0f}"
    return above if name == "balance" else f"{percent(level)} ({above})"


def above_chance(random: Sequence[Row], name: str) -> tuple[float, float]:
    """The mean over networks of what is above chance, and two standard errors."""
    chance = f"{name}_chance"
    means = [row[name] - row[chance] if chance in row else row[name] for row in random]
    differences = torch.stack([own.mean() for own in means])
    return float(differences.mean()), 2 * float(differences.std()) / len(differences) ** 0.5


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share that was counted among so many (Wilson, 1927)."""
    weight = DEVIATIONS**2 / count
    middle = share + weight / 2
    half = (weight * (share * (1 - share) + weight / 4)) ** 0.5
    return (middle - half) / (1 + weight), (middle + half) / (1 + weight)


def said(method: Method) -> str:
    """The settings of a method as a reader would write them."""
    words = {"features": lambda value: f"superpixels, about {int(value.max()) + 1}"}
    return ", ".join(
        f"{name}={words[name](value) if name in words else value}"
        for name, value in method.settings.items()
        if name not in ("layer", "verbose")
    )


if __name__ == "__main__":
    main()
