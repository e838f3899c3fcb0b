"""Style transfer: toumei against two forward passes of a stack of three, and against a bare loop.

Multiply-adds of a step, counted by torch, and milliseconds a step on SqueezeNet 1.1, all in strict turns:

- toumei: `StyleTransfer`, one picture a step, cut off behind the deepest layer;
- stack of three: picture, content and style in one batch, passed through the whole network once for the
  content and once for the style, the targets anew and with graph in each step;
- bare loop: the least code that does what toumei does.

    python benchmarks/style_transfer_cost.py [--weights squeezenet1_1.safetensors] [--device cuda]
"""

import argparse
import copy
import statistics
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from timing import Call, basic_parser, describe, squeezenet, steps_in_turns, write
from toumei.cnns import robustness
from toumei.cnns.parameterization import FFTImage
from toumei.misc import StyleTransfer

CONTENT, STYLE = 5, (1, 3, 4, 6, 7)  # modules of `features`


def main(argv: list[str] | None = None) -> dict[str, float]:
    options = parse(argv)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    model = squeezenet(options.weights).to(device)
    generator = torch.Generator().manual_seed(0)
    content, style = torch.rand(2, 1, 3, options.size, options.size, generator=generator).to(device)
    normalize = robustness.preprocess("imagenet").to(device)
    steps: dict[str, Call] = {
        "stack of three": stack_of_three(copy.deepcopy(model), content, style, normalize),
        "bare loop": bare_loop(copy.deepcopy(model), content, style, normalize),
    }
    ours = toumei(model, content, style, normalize)
    print(f"{describe(device)}, torch {torch.__version__}, {options.threads} threads, {options.size} pixels")
    results = counted({"toumei": lambda: ours.optimize(1, verbose=False), **steps})
    results |= in_time(ours, steps, options.steps, device)
    for key, value in results.items():
        print(f"  {key}: {value:.4g}")
    write(results, options.json)
    return results


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = basic_parser(__doc__)
    parser.add_argument("--weights", help="trained weights; random ones cost as much")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=30)
    return parser.parse_args(argv)


def counted(steps: dict[str, Call]) -> dict[str, float]:
    """Millions of multiply-adds of a step, forward and backward."""
    results: dict[str, float] = {}
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            step()
        results[f"{name}, million multiply-adds a step"] = counter.get_total_flops() / 2e6
    ours, theirs, _ = results.values()
    return results | {"multiply-adds, stack of three / toumei (wanted at least 3)": theirs / ours}


def in_time(
    ours: StyleTransfer, steps: dict[str, Call], count: int, device: torch.device
) -> dict[str, float]:
    """Medians of milliseconds, where between two steps of toumei each other one takes a step."""
    times = steps_in_turns(ours.optimize, steps, count, device)
    medians = {name: 1000 * statistics.median(values) for name, values in times.items()}
    return {f"{name}, ms a step": value for name, value in medians.items()} | {
        "time, stack of three / toumei": medians["stack of three"] / medians["toumei"],
        "time, toumei / bare loop": medians["toumei"] / medians["bare loop"],
    }


def toumei(model: nn.Module, content: Tensor, style: Tensor, normalize: nn.Module) -> StyleTransfer:
    layers = [f"features.{index}" for index in STYLE]
    transfer = StyleTransfer(content, 1, style, 1, [f"features.{CONTENT}"], layers, preprocess=normalize)
    return transfer.attach(model)


def stack_of_three(model: Any, content: Tensor, style: Tensor, normalize: nn.Module) -> Call:
    """The old way, with weights that ask for gradients, as they are after loading."""
    image = FFTImage(1, *content.shape[1:], seed=0).to(content.device)
    optimizer = torch.optim.Adam(image.parameters, lr=0.05)
    seen: dict[int, Tensor] = {}
    for index in (CONTENT, *STYLE):
        model.features[index].register_forward_hook(lambda _, __, out, index=index: seen.update({index: out}))

    def step() -> None:
        optimizer.zero_grad()
        stack = normalize(torch.cat([image.get_image(), content, style]))
        model(stack)
        loss = (seen[CONTENT][0] - seen[CONTENT][1]).abs().mean()
        model(stack)
        for index in STYLE:
            loss = loss + (gram(seen[index][:1]) - gram(seen[index][2:])).abs().mean()
        loss.backward()
        optimizer.step()

    return step


def bare_loop(model: Any, content: Tensor, style: Tensor, normalize: nn.Module) -> Call:
    """The limit: targets once, the layers up to the deepest one, and nothing else."""
    features = model.features[: max(CONTENT, *STYLE) + 1].requires_grad_(False).eval()
    image = FFTImage.from_image(content, sigmoid=False, saturation=16)
    optimizer = torch.optim.Adam(image.parameters, lr=0.05)
    memory_format = torch.channels_last if content.device.type == "cpu" else torch.contiguous_format

    def activations(images: Tensor) -> dict[int, Tensor]:
        values, seen = normalize(images).contiguous(memory_format=memory_format), {}
        for index, layer in enumerate(features):
            values = layer(values)
            seen[index] = values.clone() if index in (CONTENT, *STYLE) else values  # ReLUs work in place
        return seen

    with torch.no_grad():
        wanted = activations(content)[CONTENT]
        grams = {index: gram(value) for index, value in activations(style).items() if index in STYLE}

    def step() -> None:
        optimizer.zero_grad()
        own = activations(image.get_image())
        loss = (own[CONTENT] - wanted).abs().mean() / wanted.abs().mean()
        for index, matrix in grams.items():
            loss = loss + (gram(own[index]) - matrix).abs().mean() / matrix.abs().mean()
        loss.backward()
        optimizer.step()

    return step


def gram(activation: Tensor) -> Tensor:
    flat = activation.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


if __name__ == "__main__":
    main()
