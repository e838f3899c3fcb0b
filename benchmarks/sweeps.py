"""A sweep over short items with two workers against one, in turns, and what a sweep adds to an item.

Items sleep, so that a machine that others use too can show what the sweep costs and not what they take.
Prints the time of two workers over half of the time of one (wanted: at most 1.2), with functions that hold
weights of some size, which are sent once; and the bytes that travel for each item.

    python benchmarks/sweeps.py [--dask | --ray] [--items 1000] [--milliseconds 10]

With --dask or --ray, workers are processes of such a cluster on this machine, else those of loky.
"""

import os
import pickle
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import joblib
import torch
from torch import Tensor

from timing import basic_parser, in_turns, ratios, spread, write
from toumei.core import sweep


@dataclass
class Wait:
    """A function that holds weights and waits."""

    weights: Tensor
    seconds: float
    numbers: int

    def __call__(self, item: int) -> Tensor:
        """Returns so many numbers."""
        time.sleep(self.seconds)
        return torch.full((self.numbers,), float(item))


@contextmanager
def ray_cluster() -> Iterator[None]:
    """A Ray cluster of two processes on this machine."""
    import ray
    from ray.util.joblib import register_ray

    path = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": path})
    try:
        register_ray()
        with joblib.parallel_config("ray"):
            yield
    finally:
        ray.shutdown()


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = basic_parser(__doc__, device=False)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--milliseconds", type=float, default=10)
    parser.add_argument("--megabytes", type=float, default=20, help="of the weights")
    parser.add_argument("--kilobytes", type=float, default=0, help="of each result")
    parser.add_argument("--dask", action="store_true")
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args(argv)
    weights = torch.zeros(int(options.megabytes * 2**18))
    wait = Wait(weights, options.milliseconds / 1000, max(1, int(options.kilobytes * 256)))
    items = range(options.items)

    with ExitStack() as stack:
        if options.dask:
            import distributed

            sizes = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
            stack.enter_context(distributed.Client(stack.enter_context(distributed.LocalCluster(**sizes))))
            stack.enter_context(joblib.parallel_config("dask"))
        if options.ray:
            stack.enter_context(ray_cluster())
        contenders = {
            "one": lambda: sweep(wait, items, verbose=False),
            "two workers": lambda: sweep(wait, items, jobs=2, verbose=False),
        }
        times = in_turns(contenders, options.rounds, warm_up=1)
    found = [2 * ratio for ratio in ratios(times, "two workers", "one")]
    cluster = "Dask" if options.dask else "Ray" if options.ray else "loky"
    print(
        f"{options.items} items of {options.milliseconds:g} ms, {cluster}, {options.megabytes:g} MB sent once"
    )
    print(f"  two workers over half of one: {spread(found)}")
    extra = statistics.median(times["two workers"]) / options.items * 2e3 - options.milliseconds
    print(f"  added to an item by two workers: {extra:.2f} ms")
    print(f"  an item and its result: {len(pickle.dumps((0, wait(0))))} bytes beside what names the function")
    results = {"two workers over half of one": statistics.median(found), "milliseconds an item": extra}
    write(results, options.json)
    return results


if __name__ == "__main__":
    main()
