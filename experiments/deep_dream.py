"""Deep dream: a photograph in which a network is made to see more of what it sees.

    python experiments/deep_dream.py
    python experiments/deep_dream.py --model squeezenet1_1 --weights DEFAULT --objective features.7
    python experiments/deep_dream.py --image photograph.jpg --objective conv6:12 --out outputs/dream.gif

By default `ShapesCNN`, which ships with toumei, dreams into a photograph that scikit-learn ships: its sixth
layer, which knows shapes, turns a pagoda into rims, stripes and triangles. Writes outputs/deep_dream.png, the
photograph beside the dream, or the way from one to the other where the path ends in .gif.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from common import add_network, basic_parser, photograph, resized, vision_network
from toumei.cnns import deep_dream
from toumei.plots import save_grid


def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, preprocess = vision_network(options)
    image = resized(photograph(options.image or "china.jpg"), options.height)
    objective = options.objective or ("conv6" if options.model == "shapes" else None)
    if objective is None:
        raise SystemExit(f"which layer or channel of {options.model}? Name it with --objective")
    animated = options.out.endswith(".gif")
    dream = deep_dream(
        model,
        image,
        objective,
        octaves=options.octaves,
        steps=options.steps,
        lr=options.lr,
        preprocess=preprocess,
        snapshots=2 if animated else 0,
        seed=options.seed,
    )
    if animated:
        dream.save(options.out)
    else:
        pair = torch.cat([image[None], dream.images])
        title = f"{type(model).__name__} dreams of {objective}"
        save_grid(pair, options.out, ["photograph", title], columns=2)
    print(f"{tuple(image.shape[1:])} pixels in {options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/deep_dream.png", seed=0, device="auto")
    add_network(parser)
    parser.add_argument("--objective", help="a layer, or a unit such as conv6:12")
    parser.add_argument("--image", help="a photograph; else the pagoda of scikit-learn")
    parser.add_argument("--height", type=int, default=300, help="of the picture")
    parser.add_argument("--octaves", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10, help="steps at each size")
    parser.add_argument("--lr", type=float, default=0.01, help="how far a step goes")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
