"""An activation atlas: everything that a layer tells apart, laid out as a map of pictures.

    python experiments/atlas.py

Activations of a layer of `ShapesCNN`, each at a random place of one of 10,000 images, are laid out in two
dimensions and averaged over the cells of a grid; a picture is optimized for each average. The map is written
to outputs/atlas.png, and to outputs/atlas.html as a page that shows the cell under the pointer in large, with
the shapes that it speaks for.
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import DataLoader

from common import basic_parser
from toumei.cnns import ActivationAtlas, activation_atlas
from toumei.models import ShapesCNN, ShapesDataset


def main(argv: Sequence[str] | None = None) -> ActivationAtlas:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model = ShapesCNN(pretrained=True).to(options.device)
    loader = DataLoader(ShapesDataset(seed=5, size=options.count), batch_size=200)
    atlas = activation_atlas(
        model,
        options.layer,
        loader,
        count=options.count,
        grid=options.grid,
        min_count=options.min_count,
        layout=options.layout,
        whiten=options.whiten,
        size=options.size,
        steps=options.steps,
        seed=options.seed,
    )
    for ending in (".png", ".html"):
        atlas.save(Path(options.out).with_suffix(ending))
    regions = ", ".join(f"{label} {cells}" for label, cells in Counter(atlas.labels).most_common())
    print(f"{atlas}; cells that speak for each class: {regions}")
    print(f"{options.out} as .png and .html, {time.perf_counter() - started:.0f} s")
    return atlas


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/atlas", steps=64, seed=0, device="auto")
    parser.add_argument("--layer", default="relu6")
    parser.add_argument("--count", type=int, default=10_000, help="activations, one from each image")
    parser.add_argument("--grid", type=int, default=20, help="cells in a row and in a column")
    parser.add_argument("--min-count", type=int, default=6, help="activations that a cell needs")
    parser.add_argument("--layout", choices=("tsne", "umap", "pca"), default="tsne")
    parser.add_argument("--whiten", action="store_true", help="optimize for whitened directions")
    parser.add_argument("--size", type=int, default=32, help="height and width of an icon")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
