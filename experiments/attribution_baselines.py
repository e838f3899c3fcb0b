"""What stands for absence changes what an attribution says (Sturmfels et al., 2020).

    python experiments/attribution_baselines.py

DeepLift and KernelSHAP of `ShapesCNN` against every kind of baseline: draws both on five images to
outputs/attribution_baselines.png, with the share of their mass that lies in the mask of the shape. What is
near the background, such as the image's mean colour, leaves the shape; a constant lights up what differs from
it, the farthest image everything, and noise and other images spread what they cannot place.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from common import basic_parser
from toumei.attribution import (
    Blur,
    Constant,
    DeepLift,
    DeepLiftShap,
    FromData,
    Gaussian,
    Inpaint,
    KernelShap,
    MaxDistance,
    Mean,
    Uniform,
    grid,
    relevance_mass_accuracy,
)
from toumei.attribution.base.baselines import Baseline
from toumei.attribution.plots import heat_map
from toumei.models import ShapesCNN, ShapesDataset
from toumei.plots import color_bar, diverging_map, look, save_figure

CELLS = 6  # from side to side, features of KernelSHAP


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    parser = basic_parser(__doc__, Path("outputs/attribution_baselines.png"))
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--samples", type=int, default=200, help="coalitions of KernelSHAP")
    parser.add_argument("--draws", type=int, default=10, help="of each random baseline")
    options = parser.parse_args(argv)
    started = time.perf_counter()
    model = ShapesCNN(pretrained=True).eval()
    images, labels, masks = of_classes(options.images)
    cells = grid(images, CELLS)
    kernel = KernelShap(model, samples=options.samples, features=cells, baseline_samples=3, verbose=False)
    rows: list[tuple[str, list[Tensor]]] = []
    for name, baseline in kinds().items():
        if baseline.is_random:
            deep = DeepLiftShap(model, samples=options.draws)(images, labels, baseline)
        else:
            deep = DeepLift(model)(images, labels, baseline)
        shap = kernel(images, labels, baseline)
        both = [result.values for result in (deep, shap) if isinstance(result.values, Tensor)]
        inside = [f"{float(relevance_mass_accuracy(values, masks).mean()):.0%}" for values in both]
        rows.append((f"{name}\n{inside[0]} and {inside[1]} inside", both))
        print(f"{name:22} mass inside: DeepLift {inside[0]}, KernelSHAP {inside[1]}")
    save_figure(drawn(images, masks, rows), options.out)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def of_classes(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images of different classes, their labels and masks."""
    images, labels, masks = ShapesDataset(seed=11).batch(range(40))
    rows = [int((labels == label).nonzero()[0]) for label in labels.unique()][-count:]
    return images[rows], labels[rows], masks[rows]


def kinds() -> dict[str, Baseline]:
    """The baselines by name."""
    data, _, _ = ShapesDataset(seed=12).batch(range(50))
    return {
        "black": Constant(0.0),
        "gray": Constant(0.5),
        "white": Constant(1.0),
        "mean colour": Mean(),
        "farthest": MaxDistance(),
        "blur": Blur(10.0),
        "inpainted": Inpaint(),
        "uniform noise": Uniform(),
        "noise about the image": Gaussian(0.5, low=0.0, high=1.0),
        "other images": FromData(data),
    }


def drawn(images: Tensor, masks: Tensor, rows: Sequence[tuple[str, Sequence[Tensor]]]) -> Figure:
    """A row a baseline; the images above, DeepLift at the left and KernelSHAP at the right."""
    count = len(images)
    figure = Figure(figsize=(2.2 * count + 1.9, 1.15 * len(rows) + 1.7), dpi=90, layout="constrained")
    words = "orange speaks for the class, blue against it; the shape is outlined"
    figure.suptitle(f"DeepLift (left) and KernelSHAP (right): {words}")
    axes = figure.subplots(len(rows) + 1, 2 * count, squeeze=False)
    for index in range(2 * count):
        axes[0, index].imshow(images[index % count].permute(1, 2, 0).numpy())
    for row, (label, both) in enumerate(rows, 1):
        for index, heat in enumerate(torch.cat([heat_map(values) for values in both])):
            axes[row, index].imshow(heat.numpy(), cmap=diverging_map(), vmin=-1, vmax=1)
            axes[row, index].contour(masks[index % count].float(), [0.5], colors="black", linewidths=0.5)
        axes[row, 0].set_ylabel(label, rotation=0, ha="right", va="center")
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    color_bar(axes[1:5], "contribution, 1: strongest of each map")
    return figure


if __name__ == "__main__":
    main()
