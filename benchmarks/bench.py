"""What the bench costs, and what it loses when processes are killed.

    python benchmarks/bench.py
    python benchmarks/bench.py --kills 200 --runs 10000

Prints the time that logging adds to a run (median, with the time of an empty file written as the limit), the
time to list an index of many runs, and how many runs are lost when four processes that write into one bench
are killed at random times, over and over. Processor time counts on machines that others use too.
"""

import argparse
import os
import random
import signal
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from toumei.bench import Bench
from toumei.core.files import atomic_write
from toumei.models import facts_gpt
from toumei.transformers import HookedModel

WRITERS = 4


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=60)
    options = parser.parse_args(argv)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        found |= kills(Path(folder, "kills"), options.kills)
        found |= cost_of_logging(Path(folder, "cost"), options.repeats)
        found |= listing(Path(folder, "many"), options.runs)
    for name, value in found.items():
        print(f"{name:44} {value:,.4g}")
    return found


def cost_of_logging(folder: Path, repeats: int) -> dict[str, float]:
    """Milliseconds that logging adds to a run, without a model and with one, and those of one file."""
    model, tokenizer, _ = facts_gpt()
    found = {}
    for what, given in (
        ("no model", None),
        ("a model of 1.2 million weights", HookedModel(model, tokenizer)),
    ):
        bench = Bench(folder / what, given)

        def add(number: int) -> int:
            return number + 1

        logged = bench.log_experiment(add)
        logged(0)  # the packages of the environment are looked at once in a process
        started = processor_time()
        times = [milliseconds(logged, index) for index in range(repeats)]
        found[f"ms a run, {what}"] = statistics.median(times)
        found[f"ms of processor time, {what}"] = 1000 * (processor_time() - started) / repeats

    def empty(index: int) -> None:
        with atomic_write(folder / f"{index}.json") as partial:
            partial.write_text("{}")

    found["ms of one empty file"] = statistics.median(milliseconds(empty, index) for index in range(repeats))
    return found


def processor_time() -> float:
    """Seconds that this process and those that it has waited for have computed."""
    return sum(os.times()[:4])


def milliseconds(function: Callable[..., object], *given: object) -> float:
    started = time.perf_counter()
    function(*given)
    return 1000 * (time.perf_counter() - started)


def listing(folder: Path, count: int) -> dict[str, float]:
    """Seconds to list many runs, from the index and when it is made again from the folders."""
    bench = Bench(folder)

    def add(number: int) -> dict[str, float]:
        return {"next": number + 1, "half": number / 2}

    logged = bench.log_experiment(add)
    for number in range(count):
        logged(number)
    found = {}
    for what, list_them in (("list", bench.list_versions), ("tabulate", bench.table)):
        before = processor_time()
        times = [milliseconds(partial(list_them, "add")) for _ in range(5)]
        found[f"s to {what} {count:,} runs"] = min(times) / 1000
        found[f"s of processor time to {what} {count:,} runs"] = (processor_time() - before) / 5
    for path in folder.glob("index*"):
        path.unlink()
    found["s to make the index again"] = milliseconds(bench.table, "add") / 1000
    return found


def kills(folder: Path, count: int, seed: int = 0) -> dict[str, float]:
    """How many runs are lost: not found, or not as they were, though the experiment had returned."""
    Bench(folder).log_experiment(nothing)()  # packages are looked at here, not in each process
    draw, writers = random.Random(seed), [start(folder) for _ in range(WRITERS)]
    for _ in range(count):
        time.sleep(draw.uniform(0.0, 0.2))
        victim = draw.randrange(WRITERS)
        os.kill(writers[victim], signal.SIGKILL)
        os.waitpid(writers[victim], 0)
        writers[victim] = start(folder)
    for process in writers:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    return {f"{name}, {count} kills": value for name, value in checked(folder).items()}


def nothing() -> None:
    """An experiment that does nothing."""


def start(folder: Path) -> int:
    """Starts a process that runs experiments until it is killed; returns its number."""
    process = os.fork()
    if process:
        return process
    try:
        bench = Bench(folder)

        def squares(writer: int, number: int) -> dict[str, torch.Tensor]:
            return {"squares": torch.arange(number, number + 50) ** 2}

        logged = bench.log_experiment(squares)
        returned = os.open(folder / "returned.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        number = 0
        while True:
            logged(os.getpid(), number)
            os.write(returned, f"{os.getpid()} {number}\n".encode())
            number += 1
    finally:
        os._exit(1)


def checked(folder: Path) -> dict[str, float]:
    """Compares what the processes had got back with what the bench has."""
    returned = {tuple(map(int, line.split())) for line in (folder / "returned.txt").read_text().splitlines()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a run that cannot be read
        runs = Bench(folder).runs("squares")
    found = {}
    for run in runs:
        given = run.arguments()
        found[given["writer"], given["number"]] = run
    right = {
        pair
        for pair, run in found.items()
        if run.status == "finished"
        and torch.equal(run.result()["squares"], torch.arange(pair[1], pair[1] + 50) ** 2)
    }
    finished = {pair for pair, run in found.items() if run.status == "finished"}
    return {
        "runs that returned": len(returned),
        "runs that were killed": sum(run.status == "killed" for run in runs),
        "lost": len(returned - right),
        "finished with a wrong result": len(finished - right),
        "neither finished nor killed": sum(run.status not in ("finished", "killed") for run in runs),
    }


if __name__ == "__main__":
    main()
