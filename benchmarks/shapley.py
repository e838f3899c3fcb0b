"""Shapley values: KernelSHAP's error against captum's, and exact values against the passes that they need.

Errors are root mean squares over features and seeds against exact values (M = 8, 16) or a very long run
(M = 64), relative to the root mean square of the values, the mean over three random networks. captum gets as
many passes, and three times as many.

    python benchmarks/shapley.py [--seeds 20] [--rounds 3]
"""

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from toumei.attribution import Attribution, ExactShapley, KernelShap, ShapleySampling, grid


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", help="where to write the figures")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    figures: dict[str, float] = {}
    for features, samples in ((8, 64), (16, 256), (64, 512)):
        figures.update(errors(features, samples, options.seeds))
    figures.update(enumeration(options.rounds))
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2))
    return figures


def errors(features: int, samples: int, seeds: int, networks: int = 3) -> dict[str, float]:
    """The error of KernelSHAP at equal passes, and captum's with three times as many; over some networks."""
    found: dict[str, list[float]] = {}
    for network in range(networks):
        torch.manual_seed(network)
        model = nn.Sequential(
            nn.Linear(features, 64), nn.Tanh(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
        )
        inputs = torch.randn(1, features)
        exact = values(
            ExactShapley(model)(inputs, batch_size=4096)
            if features <= 16
            else ShapleySampling(model)(inputs, samples=4000, tolerance=0, batch_size=8192, verbose=False)
        )
        ours = [values(KernelShap(model)(inputs, samples=samples, seed=seed)) for seed in range(seeds)]
        found.setdefault("ours", []).append(error(ours, exact))
        for times in (1, 3):
            peer = [captum_kernel_shap(model, inputs, times * samples, seed) for seed in range(seeds)]
            found.setdefault(f"captum, {times} x the passes", []).append(error(peer, exact))
    result = {name: statistics.mean(own) for name, own in found.items()}
    print(f"M = {features}, {samples} passes: " + ", ".join(f"{k} {v:.4f}" for k, v in result.items()))
    share = result["ours"] / result["captum, 3 x the passes"]
    print(f"  error, ours / captum's with 3 x the passes: {share:.2f}, wanted at most 1")
    return {f"M = {features}, {samples} passes, {name}": value for name, value in result.items()}


def captum_kernel_shap(model: nn.Module, inputs: Tensor, samples: int, seed: int) -> Tensor:
    from captum.attr import KernelShap as Peer

    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Tensor = Peer(lambda x: model(x)[:, 0]).attribute(
            inputs, n_samples=samples, perturbations_per_eval=64
        )
    return found.detach()


def values(result: Attribution) -> Tensor:
    assert isinstance(result.values, Tensor)
    return result.values


def error(estimates: list[Tensor], exact: Tensor) -> float:
    wrong = torch.stack(estimates) - exact
    return float(wrong.square().mean().sqrt() / exact.square().mean().sqrt())


def enumeration(rounds: int) -> dict[str, float]:
    """Exact values of 12 features of a picture against 4096 passes of the network."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10)
    ).eval()
    images = torch.rand(1, 3, 48, 48)
    model(images)
    method, cells = ExactShapley(model), grid(images, 3, 4)
    batch = images.expand(64, -1, -1, -1).clone()
    times: dict[str, list[float]] = {"ours": [], "passes": []}
    for _ in range(rounds):
        start = time.perf_counter()
        method(images, target=0, features=cells)
        times["ours"].append(time.perf_counter() - start)
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(4096 // 64):
                model(batch)
        times["passes"].append(time.perf_counter() - start)
    share = statistics.median(a / b for a, b in zip(times["ours"], times["passes"], strict=True))
    print(
        f"exact values of 12 features: {statistics.median(times['ours']):.2f} s, 4096 batched passes "
        f"{statistics.median(times['passes']):.2f} s, ratio {share:.2f}, wanted at most 1.2"
    )
    return {"exact, M = 12 / 4096 passes": share}


if __name__ == "__main__":
    main()
