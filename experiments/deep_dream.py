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
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from toumei.cnns import deep_dream, robustness
from toumei.models import ShapesCNN, load_state_dict
from toumei.plots.images import save_grid


def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, preprocess = network(options)
    image = photograph(options.image, options.height)
    objective = options.objective or ("conv6" if options.model == "shapes" else None)
    if objective is None:
        raise SystemExit(f"which layer or channel of {options.model}? Name it with --objective")
    animated = options.out.endswith(".gif")
    dream = deep_dream(
        model.to(options.device),
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="shapes", help="shapes, or a classifier of torchvision")
    parser.add_argument("--weights", help="DEFAULT to download the trained ones, or a file; else random ones")
    parser.add_argument("--objective", help="a layer, or a unit such as conv6:12")
    parser.add_argument("--image", help="a photograph; else the pagoda of scikit-learn")
    parser.add_argument("--height", type=int, default=300, help="of the picture")
    parser.add_argument("--octaves", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10, help="steps at each size")
    parser.add_argument("--lr", type=float, default=0.01, help="how far a step goes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="outputs/deep_dream.png")
    return parser.parse_args(argv)


def network(options: argparse.Namespace) -> tuple[nn.Module, Callable[[Tensor], Tensor] | None]:
    if options.model == "shapes":
        return ShapesCNN(pretrained=True), None
    import torchvision

    if options.model not in torchvision.models.list_models(torchvision.models):
        raise SystemExit(f"no model {options.model!r}: there are shapes and torchvision's classifiers")
    model = torchvision.models.get_model(
        options.model, weights="DEFAULT" if options.weights == "DEFAULT" else None
    )
    if options.weights not in (None, "DEFAULT"):
        model.load_state_dict(load_state_dict(options.weights))
    trained = torchvision.models.get_model_weights(options.model).DEFAULT
    return model, robustness.preprocess(trained)


def photograph(path: str | None, height: int) -> Tensor:
    """A photograph (3, height, W), or the pagoda of scikit-learn."""
    if path is None:
        from sklearn.datasets import load_sample_image

        picture = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1) / 255
    else:
        from PIL import Image
        from torchvision.transforms import functional

        with Image.open(path) as image:
            picture = functional.to_tensor(image.convert("RGB"))
    width = round(picture.shape[2] * height / picture.shape[1])
    smaller = nn.functional.interpolate(picture[None], size=(height, width), mode="bilinear", antialias=True)
    return smaller[0].clamp(0, 1)


if __name__ == "__main__":
    main()
