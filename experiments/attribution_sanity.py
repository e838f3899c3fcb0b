"""Do attributions depend on what the network has learned? The sanity check of Adebayo et al., 2018.

    python experiments/attribution_sanity.py

`ShapesCNN` forgets its weights layer by layer, from the output on. A method that explains what was learned
loses its likeness to what it said of the trained network; guided backpropagation, the known exception, keeps
drawing edges. Draws pictures of every stage to outputs/attribution_sanity.png, and the rank correlations of
magnitudes, the mean over images and over several draws of new weights.
"""

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from common import basic_parser
from toumei.attribution import (
    DeepLift,
    GradCam,
    GuidedBackprop,
    InputXGradient,
    Method,
    Randomization,
    Saliency,
    randomization,
)
from toumei.attribution.plots import heat_map
from toumei.models import ShapesCNN, ShapesDataset
from toumei.plots import color_bar, diverging_map, look, save_figure

LAYERS = ("head", "conv6", "conv5", "conv4", "conv3", "conv2", "conv1")


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    parser = basic_parser(__doc__, Path("outputs/attribution_sanity.png"))
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--draws", type=int, default=5, help="of new weights")
    options = parser.parse_args(argv)
    started = time.perf_counter()
    model = ShapesCNN(pretrained=True).eval()
    images, labels, masks = ShapesDataset(seed=11).batch(range(options.images))
    methods = {type(method).__name__: method for method in methods_of(model)}

    figure = Figure(figsize=(15, 5.2), dpi=110, layout="constrained")
    sides: Any = figure.subfigures(1, 2, width_ratios=(1.5, 1))
    left, right = sides
    stages = forgotten(model)
    grid: Any = left.subplots(len(methods), len(stages), squeeze=False)
    for row, (name, method) in zip(grid, methods.items(), strict=True):
        for ax, stage in zip(row, stages, strict=True):
            values = method.with_model(stages[stage], method.layer)(images[:1], labels[:1], 0.5).values
            assert isinstance(values, torch.Tensor)
            ax.imshow(heat_map(values)[0].numpy(), cmap=diverging_map(), vmin=-1, vmax=1)
            ax.contour(masks[0].float(), [0.5], colors="black", linewidths=0.5)
            ax.set_xticks([])
            ax.set_yticks([])
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for ax, stage in zip(grid[0], stages, strict=True):
        ax.set_title(stage)
    left.suptitle(
        "the same image, as layers forget from the output (left) to the input (right):\n"
        "orange speaks for the class, blue against it; the shape is outlined"
    )
    color_bar(grid, "contribution, 1: strongest of each map")
    curves = right.subplots()
    for name, method in methods.items():
        results = [
            randomization(method, images, labels, 0.5, layers=LAYERS, seed=seed)
            for seed in range(options.draws)
        ]
        result = Randomization(LAYERS, torch.cat([own.correlations for own in results], 1))
        result.plot(curves, name)
        print(f"{name:20} {'  '.join(f'{mean:5.2f}' for mean in result.correlations.mean(1).tolist())}")
    curves.axhline(0, color="black", linewidth=0.6)
    curves.legend()
    curves.set_title("likeness to the trained network")
    save_figure(figure, options.out)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def methods_of(model: nn.Module) -> list[Method]:
    return [
        Saliency(model),
        InputXGradient(model),
        DeepLift(model),
        GradCam(model, "relu5"),
        GuidedBackprop(model),
    ]


def forgotten(model: nn.Module) -> dict[str, nn.Module]:
    """The network, and copies of it that have forgotten the layers up to each."""
    stages, own = {"trained": model}, model
    torch.manual_seed(0)
    for layer in LAYERS:
        own = copy.deepcopy(own)
        own.get_submodule(layer).reset_parameters()  # type: ignore[operator]
        stages[layer] = own
    return stages


if __name__ == "__main__":
    main()
