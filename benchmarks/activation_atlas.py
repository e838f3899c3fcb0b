"""The atlas of 10,000 activations with 400 cells: how long each stage takes, and against the limit.

The whole must take under five minutes on two cores. The pictures, its longest stage, are also timed against a
hand-written bare loop that does the same arithmetic on the same batch, in turns in one run.

    python benchmarks/activation_atlas.py [--threads 2] [--out outputs/atlas]
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import toumei.cnns.parameterization as param
from timing import basic_parser, in_turns, ratios, spread, write
from toumei.cnns import ActivationAtlas, render_icons, robustness
from toumei.cnns.layers.atlas_points import cell_means, grid_cells, lay_out, sample_activations
from toumei.models import ShapesCNN, ShapesDataset

LAYER, SIZE, BATCH = "relu6", 32, 64


def main(argv: list[str] | None = None) -> dict[str, float]:
    options = parse(argv)
    torch.set_num_threads(options.threads)
    model = ShapesCNN(pretrained=True).eval()
    result, directions = stages(model, options)
    print(f"whole atlas {result['whole']:.0f} s, wanted under 300")
    if options.rounds:
        result["toumei / bare loop"] = against_limit(
            model, directions[:BATCH], options.rounds, options.round_steps
        )
    write(result, options.json)
    return result


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = basic_parser(__doc__, threads=2, device=False)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--grid", type=int, default=20)
    parser.add_argument("--min-count", type=int, default=6)
    parser.add_argument("--steps", type=int, default=64, help="for each icon")
    parser.add_argument("--rounds", type=int, default=3, help="against the bare loop; 0 for none")
    parser.add_argument("--round-steps", type=int, default=24)
    parser.add_argument("--out", help="where to write the atlas, as .png and .html")
    return parser.parse_args(argv)


def stages(model: nn.Module, options: argparse.Namespace) -> tuple[dict[str, float], Tensor]:
    """The seconds of each stage of `activation_atlas`, and the directions of the cells."""
    seconds: dict[str, float] = {}

    def timed(name: str, function: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        value = function()
        seconds[name] = time.perf_counter() - started
        print(f"{name} {seconds[name]:.1f} s", flush=True)
        return value

    dataset = ShapesDataset(seed=5, size=options.count)
    batches = timed("drawing the images", lambda: list(DataLoader(dataset, batch_size=200)))
    samples = timed(
        "activations and attributions",
        lambda: sample_activations(model, LAYER, batches, options.count, logits="head", verbose=False),
    )
    points = timed("layout", lambda: lay_out(samples.activations))
    cells, members = grid_cells(points, options.grid, options.min_count)
    directions, attributions = (
        cell_means(values, members) for values in (samples.activations, samples.attributions)
    )
    pictures = timed(f"{len(cells)} icons", partial(icons, model, directions, options.steps))
    seconds["whole"] = sum(seconds.values())
    if options.out:
        counts = members[members >= 0].bincount()
        atlas = ActivationAtlas(
            LAYER, options.grid, points, members, cells, counts, directions, pictures, attributions,
            ShapesCNN.categories,
        )  # fmt: skip
        for ending in (".png", ".html"):
            atlas.save(Path(options.out).with_suffix(ending))
    return seconds, directions


def against_limit(model: nn.Module, directions: Tensor, rounds: int, steps: int) -> float:
    """The median over rounds of the time of a batch of icons over that of the bare loop."""
    bare = bare_loop(model, directions)
    times = in_turns(
        {"toumei": lambda: icons(model, directions, steps), "bare loop": lambda: bare(steps)},
        rounds,
        warm_up=1,
    )
    found = ratios(times, "toumei", "bare loop")
    print(f"a batch of icons, toumei / bare loop: {spread(found)}")
    return statistics.median(found)


def icons(model: nn.Module, directions: Tensor, steps: int) -> Tensor:
    return render_icons(model, LAYER, directions, size=SIZE, steps=steps, batch_size=BATCH, verbose=False)


def bare_loop(model: nn.Module, directions: Tensor) -> Callable[[int], object]:
    """The limit: the same arithmetic, written out for this one network and layer."""
    names = [name for name, _ in model.named_children()]
    prefix = nn.Sequential(*list(copy.deepcopy(model).children())[: names.index(LAYER) + 1])
    prefix.requires_grad_(False)
    views = robustness.light(same_on_batch=True)
    frequency = torch.hypot(torch.fft.fftfreq(SIZE)[:, None], torch.fft.rfftfreq(SIZE)[None])
    scale = (0.25 / frequency.clamp(min=1 / SIZE))[..., None].repeat(1, 1, 2)
    start = 0.01 * torch.randn(1, 3, SIZE, SIZE // 2 + 1, 2)
    norms = directions.norm(dim=1) + 1e-4

    def steps(count: int) -> None:
        coefficients = start.repeat(len(directions), 1, 1, 1, 1).requires_grad_()
        optimizer = torch.optim.Adam([coefficients], lr=0.05)
        for _ in range(count):
            optimizer.zero_grad()
            spectrum = torch.view_as_complex(scale * coefficients)
            plane = torch.fft.irfft2(spectrum, s=(SIZE, SIZE), norm="ortho")
            image = torch.einsum("rc,nchw->nrhw", param.COLOR_CORRELATION, plane).sigmoid()
            maps = prefix(views(image).contiguous(memory_format=torch.channels_last))
            vectors = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]
            dot = (vectors * directions).sum(1)
            cosine = dot / (vectors.norm(dim=1) + 1e-4) / norms
            (-dot * cosine.clamp(min=0.1) ** 2).sum().backward()
            optimizer.step()

    return steps


if __name__ == "__main__":
    main()
