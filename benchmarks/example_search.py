"""Dataset examples: the search for all units of three layers against the plain forward pass, and its memory.

Both go over the same loader in strict turns, batch by batch: when the search asks for a batch, the batch is
run through the network up to the deepest layer, as a limit, before the search gets it. Printed are the ratio
of the times, with and without the time that the loader takes itself, and how many numbers are alive between
batches at most (those of the last batch included), over a tenth of the images and over all of them.

    python benchmarks/example_search.py [--images 20000] [--threads 2]
"""

import gc
import statistics
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from timing import basic_parser, write
from toumei.cnns import dataset_examples
from toumei.models import ShapesCNN, ShapesDataset

LAYERS = ("conv2", "conv4", "conv6")


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = basic_parser(__doc__, device=False)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--k", type=int, default=9)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    results: dict[str, float] = {}
    for images in (options.images // 10, options.images):
        turns = Turns(images, options.batch_size)
        dataset_examples(turns.model, LAYERS, turns, options.k, verbose=False)
        results.update(turns.told(images))
    write(results, options.json)
    return results


class Turns:
    """A loader that runs the limit on each batch before it hands the batch out, and times both."""

    def __init__(self, images: int, batch_size: int) -> None:
        self.model = ShapesCNN(pretrained=True).eval()
        end = [name for name, _ in self.model.named_children()].index(LAYERS[-1])
        self.limit_model = nn.Sequential(*list(self.model.children())[: end + 1])
        self.loader = DataLoader(ShapesDataset(seed=7, size=images), batch_size=batch_size)
        self.loading: list[float] = []
        self.limit: list[float] = []
        self.ours: list[float] = []
        self.kept: list[int] = []

    def __iter__(self) -> Iterator[Tensor]:
        started = time.perf_counter()
        for number, batch in enumerate(self.loader):
            loaded = time.perf_counter()
            with torch.no_grad():
                self.limit_model(batch[0])
            handed = time.perf_counter()
            yield batch[0]
            asked = time.perf_counter()
            if number % 20 == 0:
                self.kept.append(alive())
            if number:  # the first batch also finds out how much the units see
                self.loading.append(loaded - started)
                self.limit.append(handed - loaded)
                self.ours.append(asked - handed)
            started = time.perf_counter()

    def told(self, images: int) -> dict[str, float]:
        """The figures, printed."""
        ours, limit, loading = sum(self.ours), sum(self.limit), sum(self.loading)
        rounds = [mine / bare for mine, bare in zip(self.ours, self.limit, strict=True)]
        figures = {
            "search / forward pass": ours / limit,
            "median of the batches": statistics.median(rounds),
            "with the loader": (ours + loading) / (limit + loading),
            "numbers alive between batches, thousands": max(self.kept) / 1000,
        }
        print(f"{images} images: forward pass {limit:.1f} s, search {ours:.1f} s, loader {loading:.1f} s")
        for name, value in figures.items():
            print(f"  {name}: {value:.3f}")
        return {f"{name}, {images} images": value for name, value in figures.items()}


def alive() -> int:
    """How many numbers all tensors hold that Python can reach now, but for those of symbolic sizes."""
    gc.collect()
    counts = [item.numel() for item in gc.get_objects() if issubclass(type(item), Tensor)]
    return sum(count for count in counts if type(count) is int)


if __name__ == "__main__":
    main()
