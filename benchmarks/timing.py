"""What the benchmarks share: the network, contenders that take turns, and the ratios of their times."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

REALDATA = Path(os.environ.get("TOUMEI_REALDATA", Path(__file__).parents[2] / "shared" / "realdata"))
SQUEEZENET = REALDATA / "squeezenet1_1" / "model.safetensors"

Call = Callable[[], object]
Times = dict[str, list[float]]


def basic_parser(
    description: str | None, *, threads: int | None = None, device: bool = True
) -> argparse.ArgumentParser:
    """A parser that asks how many threads to use, where to write the figures, and on which device to run."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if device:
        parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=threads or torch.get_num_threads())
    parser.add_argument("--json", help="where to write the figures")
    return parser


def write(figures: object, path: str | None) -> None:
    """Writes the figures as JSON if that was asked for."""
    if path:
        Path(path).write_text(json.dumps(figures, indent=2))


def squeezenet(weights: str | Path | None) -> nn.Module:
    """SqueezeNet 1.1 with these weights, or with random ones."""
    from safetensors.torch import load_file
    from torchvision.models import squeezenet1_1

    model = squeezenet1_1()
    if weights is not None:
        if not Path(weights).is_file():
            raise SystemExit(
                f"no weights at {weights}: give those of torchvision's squeezenet1_1 as --weights"
            )
        model.load_state_dict(load_file(weights))
    result: nn.Module = model.eval()
    return result


def describe(device: torch.device) -> str:
    """The name of the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def timed(call: Call, device: torch.device | str = "cpu") -> float:
    """Seconds of a call, until its work on the device is done."""
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def clocks(device: torch.device | str) -> np.ndarray:
    """Time and CPU time, once the work on the device is done."""
    synchronize(device)
    return np.array([time.perf_counter(), time.process_time()])


def in_turns(
    contenders: Mapping[str, Call], rounds: int, device: torch.device | str = "cpu", warm_up: int = 0
) -> Times:
    """Seconds of the calls of each contender, round by round; rounds to warm up are not counted.

    The order is turned, so that nobody always runs behind the same neighbour.
    """
    names = list(contenders)
    times: Times = {name: [] for name in names}
    for count in range(-warm_up, rounds):
        first = count % len(names)
        for name in names[first:] + names[:first]:
            seconds = timed(contenders[name], device)
            times[name] += [seconds] if count >= 0 else []
    return times


def steps_in_turns(
    optimize: Callable[..., object], others: Mapping[str, Call], steps: int, device: torch.device
) -> Times:
    """Seconds of each step of an `optimize` of toumei, as "toumei", and of the others' between its steps.

    So all see the machine in the same mood. The first two steps are left out.
    """
    times: Times = {name: [] for name in ("toumei", *others)}
    started: list[float] = []

    def turn(progress: object) -> None:
        synchronize(device)
        if started:
            times["toumei"].append(time.perf_counter() - started.pop())
        for name, step in others.items():
            times[name].append(timed(step, device))
        started.append(time.perf_counter())

    optimize(steps + 2, verbose=False, callback=turn)
    return {name: values[-steps:] for name, values in times.items()}


def ratios(times: Mapping[str, list[float]], name: str, over: str) -> list[float]:
    """What one contender took over what another took in the same turn."""
    return [mine / theirs for mine, theirs in zip(times[name], times[over], strict=True)]


def spread(values: list[float]) -> str:
    """The median, the lowest and the highest."""
    return f"{statistics.median(values):.3f} ({min(values):.2f} to {max(values):.2f})"
