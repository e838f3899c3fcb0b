"""A circuit: which units of a layer the strongest units of a later layer are built from, and how.

    python experiments/circuits.py
    python experiments/circuits.py --before conv3 --after conv6

For units of a late layer of `ShapesCNN` that stand out most on images of its world, the weights from the
layer before are shown as kernels, the strongest inputs first: where in its field of view a unit wants an
input (orange) and where it does not (blue), below a picture of what that input looks for. Writes
outputs/circuits.png.
"""

import argparse
import time
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from common import SIZES, basic_parser, outstanding
from toumei.cnns import ExpandedWeights, expanded_weights, robustness
from toumei.core import parse, run
from toumei.models import ShapesCNN, ShapesDataset
from toumei.plots import look, save_figure


@look()
def main(argv: Sequence[str] | None = None) -> ExpandedWeights:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model = ShapesCNN(pretrained=True).eval()
    images = ShapesDataset(seed=7).batch(range(options.images))[0]
    channels = options.channels or strongest(model, options.after, images, options.units)
    weights = expanded_weights(model, options.before, options.after, images[:1], channels)
    inputs = {channel for unit in channels for channel in weights.strongest(unit, options.inputs)}
    units = [f"{options.after}:{channel}" for channel in channels]
    units += [f"{options.before}:{channel}" for channel in sorted(inputs)]
    shown = pictures(model, units, options.steps, options.seed)
    side = 1.1 * (options.inputs + 1)
    height = 0.87 * side * 2 * len(channels) / (options.inputs + 1)  # beside a colour bar
    figure = Figure(figsize=(side, height + 0.5), dpi=100)
    weights.plot(options.inputs, shown, figure.add_axes((0, 0, 1, height / (height + 0.5))))
    figure.suptitle(
        f"left: units (layer:channel) of {options.after}; right: their inputs in {options.before};\n"
        "below each input: where around a place the unit wants it (orange), where not (blue)"
    )
    save_figure(figure, options.out)
    print(f"{weights} in {options.out}, {time.perf_counter() - started:.0f} s")
    return weights


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/circuits.png", steps=192, seed=0)
    parser.add_argument("--before", choices=SIZES, default="conv4")
    parser.add_argument("--after", choices=SIZES, default="conv5")
    parser.add_argument("--channels", type=int, nargs="+", help="units of the later layer")
    parser.add_argument("--units", type=int, default=4, help="how many if none are named")
    parser.add_argument("--inputs", type=int, default=7, help="inputs of each unit that are shown")
    parser.add_argument("--images", type=int, default=500, help="by which units are chosen")
    return parser.parse_args(argv)


@torch.no_grad()
def strongest(model: nn.Module, layer: str, images: Tensor, count: int) -> list[int]:
    """The channels of a layer that stand out most on images."""
    parts = [run(model, batch, record=[layer])[layer].amax((2, 3)) for batch in images.split(100)]
    result: list[int] = outstanding(torch.cat(parts), count)
    return result


def pictures(model: nn.Module, units: Sequence[str], steps: int, seed: int) -> dict[str, Tensor]:
    """What excites each unit, (3, H, W) by unit; those of one layer in one batch."""
    shown: dict[str, Tensor] = {}
    for layer in dict.fromkeys(parse(unit).layer for unit in units):
        mine = [unit for unit in units if parse(unit).layer == layer]
        size = SIZES[layer]
        image = param.FFTImage(len(mine), 3, size, size, seed=seed)
        pipeline = obj.Pipeline(
            param.Transform(image, robustness.light()), [obj.Neuron(unit) for unit in mine]
        )
        result = pipeline.attach(model).optimize(steps, tv_loss=True, seed=seed)
        shown.update(zip(mine, result.images, strict=True))
    return shown


if __name__ == "__main__":
    main()
