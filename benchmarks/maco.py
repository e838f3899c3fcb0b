"""MACO: toumei with ten units in one run, Horama with one unit at a time, and a bare loop, in turns.

On SqueezeNet 1.1, for units of one layer, the same canvas, crops and noise, and steps in strict turns, so
that all see the same moods of the machine. Prints milliseconds a step and unit, and their ratios:

- Horama runs on the network cut off behind the layer, once with weights that require gradients, as its
  README has it, and once frozen, in its favour. Its own functions compute the step; its loop is written out
  here, since it measures no steps and fetches a file at each start.
- The bare loop is the least code that does what toumei does for one unit.
- Nobody looks for dead units, as toumei does in the first 16 steps of a run unless told not to; that adds
  about a tenth to these.

    python benchmarks/maco.py --weights squeezenet1_1.safetensors [--canvas 1280] [--device cuda]
"""

import argparse
import copy
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from timing import (
    SQUEEZENET,
    Call,
    Times,
    basic_parser,
    describe,
    spread,
    squeezenet,
    steps_in_turns,
    write,
)
from toumei.cnns import robustness

CROPS, SIZE, SIDES, NOISE = 6, 224, (0.25, 0.30), 0.05  # what Horama's defaults do
NORMALIZE = ((0.5,) * 3, (0.2,) * 3)  # its range of -2.5 to 2.5


def main(argv: list[str] | None = None) -> dict[str, float]:
    options = parse(argv)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    network: Any = squeezenet(options.weights).to(device)
    layer, units, canvas = options.layer, list(range(options.units)), options.canvas
    prefix = network.features[: int(layer.split(".")[1]) + 1]
    print(
        f"{describe(device)}, torch {torch.__version__}, {options.threads} threads; units of {layer}, canvas "
        f"{canvas}, {CROPS} crops of {SIZE} pixels a step; medians of {options.steps} steps in turns"
    )
    one = steps_in_turns(
        toumei(network, layer, units[:1], canvas, device),
        {"bare loop": bare_loop(copy.deepcopy(prefix), units[0], canvas, device)},
        options.steps,
        device,
    )
    many = steps_in_turns(
        toumei(network, layer, units, canvas, device),
        {
            "Horama": horama(copy.deepcopy(prefix), units[0], canvas, device),
            "Horama, frozen": horama(copy.deepcopy(prefix).requires_grad_(False), units[0], canvas, device),
        },
        options.steps,
        device,
    )
    results = {
        "one unit / bare loop": report("toumei, 1 unit", 1, one, "toumei / bare loop", "at most 1.05"),
        "Horama / ten units": report(
            f"toumei, {len(units)} units",
            len(units),
            many,
            f"Horama / toumei, {len(units)} units",
            f"at least {5 if device.type == 'cuda' else 1.5}",
        ),
    }
    write(results, options.json)
    return results


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = basic_parser(__doc__, threads=2)
    parser.add_argument("--weights", default=SQUEEZENET)
    parser.add_argument("--layer", default="features.10")
    parser.add_argument("--units", type=int, default=10, help="units in one run of toumei")
    parser.add_argument("--canvas", type=int, default=512, help="pixels of the pictures; Horama: 1280")
    parser.add_argument("--steps", type=int, default=24, help="steps of each in turns")
    return parser.parse_args(argv)


def report(title: str, units: int, times: Times, ratio: str, wanted: str) -> float:
    """Prints the times a step and unit, and returns the ratio that is wanted: the first of the others'."""
    print()
    ours = [seconds / units for seconds in times.pop("toumei")]
    print(f"{title}: {1000 * statistics.median(ours):.1f} ms a step and unit")
    ratios: dict[str, list[float]] = {}
    for name, theirs in times.items():
        pairs = zip(ours, theirs, strict=True)
        ratios[name] = [mine / its if units == 1 else its / mine for mine, its in pairs]
        print(f"{name}: {1000 * statistics.median(theirs):.1f} ms a step; ratio {spread(ratios[name])}")
    first = statistics.median(next(iter(ratios.values())))
    print(f"{ratio}: {first:.3f}, wanted {wanted}")
    return first


def toumei(
    model: nn.Module, layer: str, units: list[int], canvas: int, device: torch.device
) -> Callable[..., object]:
    shown = param.Transform(
        param.MACO(len(units), 3, canvas, canvas, seed=0),
        robustness.Crops(CROPS, SIZE, SIDES, uniform=True),
        robustness.Normalize(*NORMALIZE),
        robustness.Noise(NOISE, NOISE / 2),
    )
    pipeline = obj.Pipeline(shown, obj.Channel(layer, channels=units)).attach(model).to(device)
    return partial(pipeline.optimize, optimizer=torch.optim.NAdam, lr=1.0, redirect=0)


def bare_loop(prefix: Any, unit: int, canvas: int, device: torch.device) -> Call:
    """The limit: the same arithmetic, written out for this one network, layer and unit."""
    prefix.requires_grad_(False)
    magnitude = param.natural_magnitude(3, canvas, canvas).to(device)
    phase = torch.randn(1, 3, canvas, canvas // 2 + 1, device=device).requires_grad_()
    transparency = torch.zeros(1, 1, canvas, canvas, device=device)
    colors = param.COLOR_CORRELATION.to(device)
    optimizer = torch.optim.NAdam([phase], lr=1.0)
    memory_format = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    pixels = ((2 * torch.arange(SIZE) + 1) / SIZE - 1).to(device)

    def standardized(tensor: torch.Tensor) -> torch.Tensor:
        deviation, mean = torch.std_mean(tensor)
        return (tensor - mean) / (deviation + 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        spectrum = torch.polar(magnitude, standardized(phase))
        plane = standardized(torch.fft.irfft2(spectrum, s=(canvas, canvas)))
        image = torch.einsum("rc,nchw->nrhw", colors, plane).sigmoid()
        image.retain_grad()
        half = (SIDES[0] + (SIDES[1] - SIDES[0]) * torch.rand(CROPS, 1)).to(device)
        centre = 0.3 * torch.randn(2, CROPS, 1).to(device)
        x, y = centre.clamp(half - 1, 1 - half) + half * pixels
        grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=3).flatten(0, 1)
        tall = F.grid_sample(image, grid[None], padding_mode="border", align_corners=False)
        crops = (tall.view(3, CROPS, SIZE, SIZE).transpose(0, 1) - 0.5) / 0.2
        crops = crops + NOISE * torch.randn_like(crops)
        crops = crops + NOISE * (torch.rand_like(crops) - 0.5)
        (-prefix(crops.contiguous(memory_format=memory_format))[:, unit].mean()).backward()
        transparency.add_(image.grad.abs().mean(1, keepdim=True))  # type: ignore[union-attr]
        optimizer.step()

    return step


def horama(prefix: nn.Module, unit: int, canvas: int, device: torch.device) -> Call:
    """A step of `maco` in Horama's maco_fv.py, by its own functions, on the same magnitudes."""
    from horama.common import optimization_step
    from horama.maco_fv import maco_preconditioner

    magnitude = param.natural_magnitude(3, canvas, canvas).to(device)
    phase = torch.randn(3, canvas, canvas // 2 + 1, device=device).requires_grad_()
    transparency = torch.zeros(3, canvas, canvas, device=device)
    optimizer = torch.optim.NAdam([phase], lr=1.0)
    box = (0.20, 0.25)  # from this Horama makes crops of 0.25 to 0.30

    def step() -> None:
        optimizer.zero_grad()
        image = maco_preconditioner(magnitude, phase, (-2.5, 2.5), device)
        loss, image = optimization_step(
            lambda crops: prefix(crops)[:, unit].mean(), image, box, NOISE, CROPS, SIZE
        )
        loss.backward()
        transparency.add_(torch.abs(image.grad))
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
