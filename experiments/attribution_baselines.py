"""What stands for absence changes what an attribution says (Sturmfels et al., 2020).

    python experiments/attribution_baselines.py

DeepLift and KernelSHAP of `ShapesCNN` against every kind of baseline: draws both on five images to
outputs/attribution_baselines.png, and prints how much of their mass lies in the mask of the shape. A constant
is blind to its own colour, a far one lights up the whole background, noise and other images spread what they
cannot place.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

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
    mass_inside,
)
from toumei.attribution.baselines import Baseline
from toumei.attribution.plots import heat_map
from toumei.models import ShapesCNN, ShapesDataset
from toumei.plots import save_figure


def main(argv: Sequence[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--samples", type=int, default=200, help="coalitions of KernelSHAP")
    parser.add_argument("--draws", type=int, default=10, help="of each random baseline")
    parser.add_argument("--out", type=Path, default=Path("outputs/attribution_baselines.png"))
    options = parser.parse_args(argv)
    started = time.perf_counter()
    model = ShapesCNN(pretrained=True).eval()
    images, labels, masks = ShapesDataset(seed=11).batch(range(options.images))
    kernel = {"features": grid(images, 8), "samples": options.samples, "background": 3, "verbose": False}
    rows: list[tuple[str, Tensor, Tensor]] = []
    for name, baseline in kinds().items():
        if baseline.is_random:
            deep = DeepLiftShap(model)(images, labels, baseline, samples=options.draws)
        else:
            deep = DeepLift(model)(images, labels, baseline)
        shap = KernelShap(model)(images, labels, baseline, **kernel)
        assert isinstance(deep.values, Tensor) and isinstance(shap.values, Tensor)
        rows.append((name, deep.values, shap.values))
        inside = [float(mass_inside(values, masks).mean()) for values in (deep.values, shap.values)]
        print(f"{name:22} mass inside: DeepLift {inside[0]:.2f}, KernelSHAP {inside[1]:.2f}")
    save_figure(drawn(images, rows), options.out)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


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


def drawn(images: Tensor, rows: Sequence[tuple[str, Tensor, Tensor]]) -> Figure:
    """A row a baseline; the images above, DeepLift at the left and KernelSHAP at the right."""
    count = len(images)
    figure = Figure(figsize=(2.2 * count + 1.5, 1.15 * (len(rows) + 1)), dpi=90, layout="constrained")
    axes = figure.subplots(len(rows) + 1, 2 * count, squeeze=False)
    for index, image in enumerate(torch.cat((images, images))):
        axes[0, index].imshow(image.permute(1, 2, 0).numpy())
    for place, (name, *both) in enumerate(rows, 1):
        for index, heat in enumerate(torch.cat([heat_map(values) for values in both])):
            axes[place, index].imshow(heat.numpy(), cmap="bwr", vmin=-1, vmax=1)
        axes[place, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    axes[0, count // 2].set_title("DeepLift")
    axes[0, count + count // 2].set_title("KernelSHAP")
    return figure


if __name__ == "__main__":
    main()
