"""Channel groups: the many channels of a layer on some images, as a few groups that fire together.

    python experiments/channel_groups.py

The activations of a layer of `ShapesCNN` on images of its world are factorized into groups. Below the images
stands where each group fires, each in its colour, and below that what each group looks for, in a frame of its
colour. Writes outputs/channel_groups.png.
"""

import argparse
import time
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure

import toumei.cnns.parameterization as param
from common import basic_parser
from toumei.cnns import ChannelGroups, Pipeline, group_channels, robustness
from toumei.models import ShapesCNN, ShapesDataset
from toumei.plots import look, save_figure


@look()
def main(argv: Sequence[str] | None = None) -> ChannelGroups:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model = ShapesCNN(pretrained=True)
    dataset = ShapesDataset(seed=options.world)
    # Every shape is shown, large enough to see its parts.
    large = (dataset.placement(range(400)).radius > 20).nonzero().flatten()[: options.images].tolist()
    images = dataset.batch(large, labels=torch.arange(len(large)) % len(dataset.classes))[0]
    groups = group_channels(model, options.layer, images, options.groups, seed=options.seed)
    image = param.FFTImage(options.groups, 3, options.size, options.size, seed=options.seed)
    pipeline = Pipeline(param.Transform(image, robustness.light()), groups.objective()).attach(model)
    shown = pipeline.optimize(options.steps, seed=options.seed).images
    columns = max(options.groups, min(options.images, 8))
    figure = Figure(figsize=(1.4 * columns, 1.4 * 3.5), dpi=130)
    groups.plot(shown, figure.add_axes((0, 0, 1, 0.95)), columns)
    words = "where in an image each is active, in its colour, and what it looks for"
    figure.suptitle(f"channels of {options.layer} in {options.groups} groups: {words}")
    save_figure(figure, options.out)
    print(f"{groups} in {options.out}, {time.perf_counter() - started:.0f} s")
    return groups


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/channel_groups.png", steps=128, seed=0)
    parser.add_argument("--layer", default="relu5")
    parser.add_argument("--groups", type=int, default=6)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--world", type=int, default=11, help="seed of the images")
    parser.add_argument("--size", type=int, default=48, help="height and width of the pictures")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
