"""Are pictures of units processed like images that excite them? The sanity check of Geirhos et al. 2024.

    python experiments/sanity.py

For units of three layers of `ShapesCNN`, compares, layer by layer, the optimized picture of each with crops
that excite it, on a scale where such crops have 1 and crops at random places 0. Noise and one more crop that
excites the unit, which the scale has not seen, stand beside the pictures. Draws the curves to
outputs/sanity.png.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import DataLoader

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from common import SIZES, basic_parser
from toumei.cnns import DatasetExamples, SanityScore, dataset_examples, robustness, sanity_check
from toumei.models import ShapesCNN, ShapesDataset
from toumei.plots import look, save_figure, style

LAYERS = ("conv2", "conv4", "conv6")


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model = ShapesCNN(pretrained=True).to(options.device)
    dataset = ShapesDataset(seed=7, size=options.images)
    examples = dataset_examples(model, LAYERS, DataLoader(dataset, batch_size=100), 9, lowest=False)
    figure = Figure(figsize=(12, 4), dpi=130, layout="constrained")
    for place, layer in zip(figure.subplots(1, len(LAYERS), sharey=True), LAYERS, strict=True):
        scores = compared(model, layer, examples, dataset, options)
        for what, score in scores.items():
            print(f"{layer}, {what}: {score.scores.mean():.2f} on average, {score}")
        scores["pictures"].plot(place)
        for what, color in (("noise", style.RED), ("one more exciting image", style.PURPLE)):
            curve = scores[what].similarities.mean(0).tolist()
            place.plot(curve, color=color, linestyle=":", label=what)
        place.get_legend().remove()
        means = [f"{what} {score.scores.mean():.2f}" for what, score in scores.items()]
        place.label_outer()
        place.set_title(
            f"{options.per_layer} units of {layer}, mean scores:\n{', '.join(means[:2])},\n{means[2]}"
        )
    words = (
        "Are pictures processed like images that excite the unit? Score 1: like these, 0: like other images"
    )
    figure.suptitle(words)
    figure.axes[0].legend(loc="lower left")
    save_figure(figure, options.out)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/sanity.png", steps=128, device="auto")
    parser.add_argument("--per-layer", type=int, default=8, help="units of each layer")
    parser.add_argument("--images", type=int, default=2000)
    return parser.parse_args(argv)


def compared(
    model: ShapesCNN,
    layer: str,
    examples: DatasetExamples,
    dataset: ShapesDataset,
    options: argparse.Namespace,
) -> dict[str, SanityScore]:
    """The scores of pictures, noise and natural images for units of a layer."""
    size = SIZES[layer]
    units = [f"{layer}:{channel}" for channel in range(options.per_layer)]
    crops = [examples.crops(unit, size=size) for unit in units]
    exciting, others = [crop[1:] for crop in crops], random_crops(dataset, 32, size)
    subjects = {
        "pictures": pictures(model, units, size, options),
        "noise": torch.rand(len(units), 3, size, size, generator=torch.Generator().manual_seed(0)),
        "one more exciting image": torch.stack([crop[0] for crop in crops]),
    }
    return {what: sanity_check(model, units, images, exciting, others) for what, images in subjects.items()}


def pictures(model: ShapesCNN, units: Sequence[str], size: int, options: argparse.Namespace) -> Tensor:
    """A picture of each unit, (N, 3, H, W)."""
    views = robustness.Views(robustness.Pad(2), robustness.Jitter(max(1, size // 16)))
    shown = param.Transform(param.FFTImage(len(units), 3, size, size, seed=0), views)
    pipeline = obj.Pipeline(shown, [obj.Neuron(unit) for unit in units]).attach(model).to(options.device)
    return pipeline.optimize(options.steps, tv_loss=1e-3, seed=0, verbose=False).images


def random_crops(dataset: ShapesDataset, count: int, size: int) -> Tensor:
    """Crops of images at random places, (count, 3, size, size)."""
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(len(dataset), (count,), generator=generator).tolist()
    images = dataset.batch(indices)[0]
    corners = torch.randint(images.shape[-1] - size + 1, (count, 2), generator=generator).tolist()
    return torch.stack(
        [image[:, y : y + size, x : x + size] for image, (y, x) in zip(images, corners, strict=True)]
    )


if __name__ == "__main__":
    main()
