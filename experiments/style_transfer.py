"""Style transfer: the content of one photograph in the textures and colours of another.

    python experiments/style_transfer.py
    python experiments/style_transfer.py --model squeezenet1_1 --weights DEFAULT
    python experiments/style_transfer.py --model inception5h --weights DEFAULT --content a.jpg --style b.jpg

By default it paints a pagoda in the style of a dahlia, two photographs that scikit-learn ships, as
`ShapesCNN` sees them, which ships with toumei. Writes outputs/style_transfer.png: content, style and result.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from toumei.cnns import robustness
from toumei.core import evaluating, run
from toumei.misc import StyleTransfer
from toumei.models import Inception5h, ShapesCNN, load_state_dict
from toumei.plots.images import save_grid

Layers = list[str] | None
SHIPPED = ("china.jpg", "flower.jpg")


def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, preprocess = network(options)
    content = photograph(options.content or "china.jpg", options.height)
    style = photograph(options.style or "flower.jpg", options.height)
    kept, taken = layers(model.to(options.device), content)
    transfer = StyleTransfer(
        content,
        1.0,
        style,
        options.style_weight,
        options.content_layers or kept,
        taken,
        preprocess=preprocess,
    )
    transfer.to(options.device).attach(model)
    result = transfer.optimize(options.steps, tv_loss=options.smoothness)
    pictures = torch.stack([content, fitted(style, content), result.images[0]])
    save_grid(pictures, options.out, ["content", "style", f"as {type(model).__name__} sees it"], columns=3)
    print(f"{tuple(content.shape[1:])} pixels in {options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="shapes", help="shapes, inception5h, or a classifier of torchvision"
    )
    parser.add_argument("--weights", help="DEFAULT to download the trained ones, or a file; else random ones")
    parser.add_argument("--content", help="a photograph; else the pagoda of scikit-learn")
    parser.add_argument("--style", help="a photograph; else the dahlia of scikit-learn")
    parser.add_argument("--style-weight", type=float, default=0.5, help="the content has weight 1")
    parser.add_argument("--content-layers", nargs="+", help="else one in the middle")
    parser.add_argument("--smoothness", type=float, default=1e-5, help="weight of the total variation")
    parser.add_argument("--height", type=int, default=200, help="of the pictures")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", default="outputs/style_transfer.png")
    return parser.parse_args(argv)


def network(options: argparse.Namespace) -> tuple[nn.Module, Callable[[Tensor], Tensor] | None]:
    download, path = options.weights == "DEFAULT", options.weights
    if options.model == "shapes":
        return ShapesCNN(pretrained=True), None
    if options.model == "inception5h":
        return Inception5h(pretrained=download, weights=None if download else path), None
    import torchvision

    if options.model not in torchvision.models.list_models(torchvision.models):
        raise SystemExit(
            f"no model {options.model!r}: there are shapes, inception5h and torchvision's classifiers"
        )
    model = torchvision.models.get_model(options.model, weights="DEFAULT" if download else None)
    if path and not download:
        model.load_state_dict(load_state_dict(path))
    trained = torchvision.models.get_model_weights(options.model).DEFAULT
    return model, robustness.preprocess(trained).to(options.device)


def layers(model: nn.Module, content: Tensor) -> tuple[Layers, Layers]:
    """The layers of content and style: StyleTransfer's own for Inception5h, else some from the first on."""
    if isinstance(model, Inception5h):
        return None, None
    if isinstance(model, ShapesCNN):
        return ["relu2"], ["relu1", "relu2", "relu3", "relu4", "relu5"]
    names = [name for name, module in model.named_modules() if name and name.count(".") <= 1]
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        activations = run(model, content[None].to(device), record=names, stop=False)
    maps = [name for name in names if name in activations and activations[name].dim() == 4]
    style = [maps[round(share * (len(maps) - 1))] for share in (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2)]
    return [maps[round(3 / 8 * (len(maps) - 1))]], list(dict.fromkeys(style))


def photograph(path: str, height: int) -> Tensor:
    """A photograph (3, height, W): a file, or one of scikit-learn's by its name."""
    from PIL import Image
    from sklearn.datasets import load_sample_image
    from torchvision.transforms import functional

    if path in SHIPPED:
        picture = torch.from_numpy(load_sample_image(path).copy()).permute(2, 0, 1) / 255
    else:
        with Image.open(path) as image:
            picture = functional.to_tensor(image.convert("RGB"))
    return resized(picture, height, round(picture.shape[2] * height / picture.shape[1]))


def fitted(style: Tensor, content: Tensor) -> Tensor:
    """The style, to be shown in the size of the content."""
    return resized(style, content.shape[1], content.shape[2])


def resized(picture: Tensor, height: int, width: int) -> Tensor:
    size = (height, width)
    return nn.functional.interpolate(picture[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)


if __name__ == "__main__":
    main()
