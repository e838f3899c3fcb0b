"""Style transfer: the content of one photograph in the textures and colours of another.

    python experiments/style_transfer.py
    python experiments/style_transfer.py --model squeezenet1_1 --weights DEFAULT
    python experiments/style_transfer.py --model inception5h --weights DEFAULT --content a.jpg --style b.jpg

By default it paints a pagoda in the style of a dahlia, two photographs that scikit-learn ships, as
`ShapesCNN` sees them, which ships with toumei. Writes outputs/style_transfer.png: content, style and result.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from common import add_network, basic_parser, map_layers, photograph, resized, vision_network
from toumei.misc import StyleTransfer
from toumei.models import Inception5h, ShapesCNN
from toumei.plots import save_grid

Layers = list[str] | None


def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, preprocess = vision_network(options, "inception5h")
    content = resized(photograph(options.content or "china.jpg"), options.height)
    style = resized(photograph(options.style or "flower.jpg"), options.height)
    kept, taken = layers(model, content)
    transfer = StyleTransfer(
        content_image=content,
        content_weight=1.0,
        style_image=style,
        style_weight=options.style_weight,
        content_layers=options.content_layers or kept,
        style_layers=taken,
        preprocess=preprocess,
    )
    transfer.to(options.device).attach(model)
    result = transfer.optimize(options.steps, tv_loss=options.smoothness)
    pictures = torch.stack([content, resized(style, *content.shape[1:]), result.images[0]])
    save_grid(pictures, options.out, ["content", "style", f"as {type(model).__name__} sees it"], columns=3)
    print(f"{tuple(content.shape[1:])} pixels in {options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(
        __doc__, "outputs/style_transfer.png", steps=200, device="auto"
    )
    add_network(parser, "inception5h")
    parser.add_argument("--content", help="a photograph; else the pagoda of scikit-learn")
    parser.add_argument("--style", help="a photograph; else the dahlia of scikit-learn")
    parser.add_argument("--style-weight", type=float, default=0.5, help="the content has weight 1")
    parser.add_argument("--content-layers", nargs="+", help="else one in the middle")
    parser.add_argument("--smoothness", type=float, default=1e-5, help="weight of the total variation")
    parser.add_argument("--height", type=int, default=200, help="of the pictures")
    return parser.parse_args(argv)


def layers(model: nn.Module, content: Tensor) -> tuple[Layers, Layers]:
    """The layers of content and style: by default for Inception5h, else some in the first half."""
    if isinstance(model, Inception5h):
        return None, None
    if isinstance(model, ShapesCNN):
        return ["relu2"], ["relu1", "relu2", "relu3", "relu4", "relu5"]
    style = map_layers(model, content[None], (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2))
    return map_layers(model, content[None], (3 / 8,)), style


if __name__ == "__main__":
    main()
