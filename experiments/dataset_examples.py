"""What units look for, and what they find: pictures beside the images that excite the units most and least.

    python experiments/dataset_examples.py
    python experiments/dataset_examples.py --units conv4:12 conv6:3 --images 2000

Searches 20,000 images of the shapes world for all units of three layers of `ShapesCNN` in one pass, optimizes
a picture for some of the units, and draws them beside each other to outputs/dataset_examples.png. The search
is kept there too: a run that was killed goes on where it was, and a second one is done at once.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import DataLoader

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from common import SIZES, basic_parser
from toumei.cnns import dataset_examples, robustness
from toumei.core import parse
from toumei.models import ShapesCNN, ShapesDataset
from toumei.plots import look, save_figure

LAYERS = ("conv2", "conv4", "conv6")
UNITS = ("conv2:9", "conv2:26", "conv4:11", "conv4:44", "conv6:5", "conv6:41")


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model = ShapesCNN(pretrained=True).to(options.device)
    loader = DataLoader(ShapesDataset(seed=7, size=options.images), batch_size=100)
    out = Path(options.out)
    kept = out.with_name(f"{out.stem}_{options.images}_{options.k}.safetensors")
    examples = dataset_examples(model, LAYERS, loader, options.k, resume=kept)
    print(f"{examples} in {time.perf_counter() - started:.0f} s")
    pictures = [picture(model, unit, options.steps, options.device) for unit in options.units]
    inches = (4.8, 1.55 * len(options.units) + 0.2)
    figure = Figure(figsize=inches, dpi=150, layout="constrained")
    examples.plot(options.units, pictures, figure.add_subplot())
    figure.suptitle("what excites units (layer:channel) most, and least")
    save_figure(figure, out)
    print(f"{len(options.units)} units in {out}, {time.perf_counter() - started:.0f} s")
    return out


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(
        __doc__, "outputs/dataset_examples.png", steps=256, device="auto"
    )
    parser.add_argument("--units", nargs="+", default=UNITS, help="units of conv2, conv4 and conv6 to draw")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--k", type=int, default=9, help="examples of each end")
    return parser.parse_args(argv)


def picture(model: ShapesCNN, unit: str, steps: int, device: str) -> Tensor:
    """A picture (3, H, W) of the unit, optimized before its ReLU."""
    size = SIZES[parse(unit).layer]
    moved = robustness.Jitter(max(1, size // 16))
    views = robustness.Views(
        robustness.Pad(2), moved, robustness.Scale([0.95, 1, 1.05]), robustness.Rotate(range(-5, 6))
    )
    shown = param.Transform(param.FFTImage(1, 3, size, size, seed=0), views)
    pipeline = obj.Pipeline(shown, obj.Neuron(unit)).attach(model).to(device)
    return pipeline.optimize(steps, tv_loss=1e-3, seed=0, verbose=False).images[0]


if __name__ == "__main__":
    main()
