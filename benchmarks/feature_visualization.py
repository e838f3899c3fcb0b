"""Feature visualization: toumei, a hand-written bare loop and lucent, in turns in one run.

On SqueezeNet 1.1 at 224 pixels, for units of features.4, features.7 and features.10:

- milliseconds a step and unit of toumei with one unit and with eight in a batch, of the bare loop (the least
  code that does the same work) and of lucent, and their ratios, as medians over rounds;
- the activation of the unit that the finished, untransformed picture reaches after equal steps on the same
  transforms, toumei against lucent, from the same start.

    python benchmarks/feature_visualization.py --weights squeezenet1_1.safetensors [--device cuda]
"""

import argparse
import copy
import statistics
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from timing import (
    SQUEEZENET,
    basic_parser,
    describe,
    in_turns,
    ratios,
    spread,
    squeezenet,
    steps_in_turns,
    write,
)
from toumei.cnns import robustness
from toumei.core import run

LAYERS = ("features.4", "features.7", "features.10")
SIZE = 224
BATCH = 8


def main(argv: list[str] | None = None) -> dict[str, object]:
    options = parse(argv)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    model = squeezenet(options.weights).to(device)
    print(f"{describe(device)}, torch {torch.__version__}, {options.threads} threads, {SIZE} pixels")
    results: dict[str, object] = {"machine": describe(device)}
    results["speed"] = {layer: speed(model, layer, options.steps, options.rounds, device) for layer in LAYERS}
    if options.units:
        results["activation"] = activation(model, options.units, options.activation_steps, device)
    write(results, options.json)
    return results


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = basic_parser(__doc__)
    parser.add_argument("--weights", default=SQUEEZENET)
    parser.add_argument("--rounds", type=int, default=9, help="rounds in which all are timed in turn")
    parser.add_argument("--steps", type=int, default=48, help="steps in each round")
    parser.add_argument(
        "--units", type=int, default=16, help="units whose activation is compared; 0 for none"
    )
    parser.add_argument("--activation-steps", type=int, default=256)
    return parser.parse_args(argv)


def speed(model: nn.Module, layer: str, steps: int, rounds: int, device: torch.device) -> dict[str, float]:
    result = against_limit(model, layer, steps * rounds, device)
    one, eight = (toumei(model, layer, list(range(units)), device) for units in (1, BATCH))
    many = f"toumei, {BATCH} units"
    peer = lucent(model, layer, 0, device)
    times = in_turns(
        {
            "toumei": lambda: one.optimize(steps, verbose=False),
            "lucent": lambda: peer(steps),
            many: lambda: eight.optimize(steps, verbose=False),
        },
        rounds,
        device,
        warm_up=1,
    )
    times[many] = [seconds / BATCH for seconds in times[many]]
    for name, values in times.items():
        result[name] = 1000 * statistics.median(values) / steps
        print(f"  {name}: {result[name]:.1f} ms a step and unit")
    for name, over, wanted in (
        ("lucent", "toumei", "at least 1.5" if layer != LAYERS[2] else ""),
        (many, "toumei", "below 1"),
    ):
        found = ratios(times, name, over)
        result[f"{name} / {over}"] = statistics.median(found)
        print(f"  {name} / {over}: {spread(found)} {wanted and f'wanted {wanted}'}")
    return result


def against_limit(model: nn.Module, layer: str, steps: int, device: torch.device) -> dict[str, float]:
    """Steps of toumei and of the bare loop in strict turns, so that both see the machine in the same mood."""
    pipeline, bare = toumei(model, layer, [0], device), bare_loop(model, layer, 0, device)
    times = steps_in_turns(pipeline.optimize, {"bare loop": lambda: bare(1)}, steps, device)
    ours, limit = times["toumei"], times["bare loop"]
    parts = [slice(start, start + steps // 9) for start in range(0, steps - steps // 9 + 1, steps // 9)]
    found = [statistics.median(ours[part]) / statistics.median(limit[part]) for part in parts]
    result = {
        "toumei, in turns": 1000 * statistics.median(ours),
        "bare loop, in turns": 1000 * statistics.median(limit),
        "toumei / bare loop": statistics.median(ours) / statistics.median(limit),
    }
    print(
        f"\n{layer}: in turns toumei {result['toumei, in turns']:.2f} ms, bare loop "
        f"{result['bare loop, in turns']:.2f} ms a step\n  toumei / bare loop: "
        f"{result['toumei / bare loop']:.3f} ({min(found):.2f} to {max(found):.2f}) wanted at most 1.05"
    )
    return result


def toumei(model: nn.Module, layer: str, units: list[int], device: torch.device) -> obj.Pipeline:
    image = param.FFTImage(len(units), 3, SIZE, SIZE, seed=0)
    shown = param.Transform(image, robustness.lucid(), robustness.preprocess("imagenet"))
    one_or_many = (
        obj.Channel(f"{layer}:{units[0]}") if len(units) == 1 else obj.Channel(layer, channels=units)
    )
    return obj.Pipeline(shown, one_or_many).attach(model).to(device)


def bare_loop(model: nn.Module, layer: str, unit: int, device: torch.device) -> Callable[[int], object]:
    """The limit: the same arithmetic, written out for this one network, layer and unit."""
    features: Any = model.features
    prefix = copy.deepcopy(features[: int(layer.split(".")[1]) + 1]).requires_grad_(False)
    views, normalize = robustness.lucid(), robustness.preprocess("imagenet").to(device)
    frequency = torch.hypot(torch.fft.fftfreq(SIZE)[:, None], torch.fft.rfftfreq(SIZE)[None])
    scale = (0.25 / frequency.clamp(min=1 / SIZE))[..., None].repeat(1, 1, 2).to(device)
    colors = param.COLOR_CORRELATION.to(device)
    coefficients = (0.01 * torch.randn(1, 3, SIZE, SIZE // 2 + 1, 2)).to(device).requires_grad_()
    optimizer = torch.optim.Adam([coefficients], lr=0.05)
    memory_format = torch.channels_last if device.type == "cpu" else torch.contiguous_format

    def steps(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            spectrum = torch.view_as_complex(scale * coefficients)
            plane = torch.fft.irfft2(spectrum, s=(SIZE, SIZE), norm="ortho")
            image = torch.einsum("rc,nchw->nrhw", colors, plane).sigmoid()
            seen = normalize(views(image)).contiguous(memory_format=memory_format)
            (-prefix(seen)[:, unit].mean()).backward()
            optimizer.step()

    return steps


def lucent(model: nn.Module, layer: str, unit: int, device: torch.device) -> Callable[[int], object]:
    network = copy.deepcopy(model)  # lucent leaves its hooks behind
    unit_name = f"{layer.replace('.', '_')}:{unit}"

    def steps(count: int) -> Tensor:
        for module in network.modules():
            module._forward_hooks.clear()
        return lucent_picture(network, unit_name, count, robustness.lucid())

    return steps


def lucent_picture(model: nn.Module, unit: str, steps: int, views: nn.Module) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lucent.optvis import param as lucent_param
        from lucent.optvis import render

        picture = render.render_vis(
            model,
            unit,
            param_f=lambda: lucent_param.image(SIZE),
            transforms=[views],
            thresholds=(steps,),
            progress=False,
            show_image=False,
        )[0]
    return torch.from_numpy(picture).permute(0, 3, 1, 2)


def activation(model: nn.Module, count: int, steps: int, device: torch.device) -> dict[str, float]:
    """Activations of pictures after equal steps on the same transforms, from the same start and draws."""
    reached: dict[str, list[float]] = {"toumei": [], "lucent": []}
    for index in range(count):
        layer = LAYERS[index % len(LAYERS)]
        unit = (7 * index + 3) % 128  # each of the layers has at least so many channels
        normalize = robustness.preprocess("imagenet").to(device)
        pictures = {}
        torch.manual_seed(index)  # both draw the same start, then the same views
        image = param.FFTImage(1, 3, SIZE, SIZE)
        shown = param.Transform(image, robustness.lucid(), normalize)
        pipeline = obj.Pipeline(shown, obj.Channel(f"{layer}:{unit}")).attach(model).to(device)
        pictures["toumei"] = pipeline.optimize(steps, verbose=False).images
        torch.manual_seed(index)
        network = copy.deepcopy(model)
        pictures["lucent"] = lucent_picture(
            network, f"{layer.replace('.', '_')}:{unit}", steps, robustness.lucid()
        )
        with torch.no_grad():
            for name, picture in pictures.items():
                activations = run(model, normalize(picture.to(device)), record=[layer])[layer]
                reached[name].append(activations[:, unit].mean().item())
        print(
            f"{layer}:{unit}: toumei {reached['toumei'][-1]:.1f}, lucent {reached['lucent'][-1]:.1f}",
            flush=True,
        )
    means = {name: statistics.mean(values) for name, values in reached.items()}
    pairs = [(mine, theirs) for mine, theirs in zip(*reached.values(), strict=True) if theirs]
    found = [mine / theirs for mine, theirs in pairs]
    error = statistics.stdev(found) / len(found) ** 0.5 if len(found) > 1 else 0.0
    print(
        f"activation after {steps} steps, mean of {count} units: toumei {means['toumei']:.1f}, lucent "
        f"{means['lucent']:.1f}, wanted at least as much; ratio over the {len(found)} units that "
        f"lucent wakes: {statistics.mean(found):.4f} +- {error:.4f}"
    )
    return {**means, "mean ratio": statistics.mean(found), "standard error": error}


if __name__ == "__main__":
    main()
