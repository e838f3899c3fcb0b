"""Shapley values: KernelSHAP's error against captum's, and exact values against the passes that they need.

Errors are root mean squares over features and seeds against exact values (M = 8, 16) or a very long run
(M = 64), relative to the root mean square of the values, the mean over three random networks. captum gets as
many passes, and three times as many.

    python benchmarks/shapley.py [--seeds 20] [--rounds 3]
"""

import statistics
import warnings

import torch
from torch import Tensor, nn

from timing import basic_parser, describe, in_turns, ratios, spread, write
from toumei.attribution import Attribution, ExactShapley, KernelShap, ShapleySampling, grid

CASES = ((8, 64), (16, 256), (64, 512))  # features, and passes of KernelSHAP
WANTED_ERROR, WANTED_TIME = 1.0, 1.2  # of captum's with three times the passes, and of 4096 passes


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = basic_parser(__doc__, device=False)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", type=int, default=4000, help="orders of features in the very long run")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    print(f"{describe(torch.device('cpu'))}, torch {torch.__version__}, {options.threads} threads")
    figures: dict[str, float] = {}
    for features, samples in CASES:
        figures |= errors(features, samples, options.seeds, options.long)
    figures |= enumeration(options.rounds)
    write(figures, options.json)
    return figures


def errors(features: int, samples: int, seeds: int, long: int, networks: int = 3) -> dict[str, float]:
    """The error of KernelSHAP at equal passes, and captum's with three times as many; over some networks."""
    found: dict[str, list[float]] = {}
    for network in range(networks):
        torch.manual_seed(network)
        layers = nn.Linear(features, 64), nn.Tanh(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
        model, inputs = nn.Sequential(*layers), torch.randn(1, features)
        exact = reference(model, inputs, long)
        ours = [values(KernelShap(model, samples=samples, seed=seed)(inputs)) for seed in range(seeds)]
        found.setdefault("ours", []).append(error(ours, exact))
        for times in (1, 3):
            peer = [captum_kernel_shap(model, inputs, times * samples, seed) for seed in range(seeds)]
            found.setdefault(f"captum, {times} x the passes", []).append(error(peer, exact))
    result = {name: statistics.mean(own) for name, own in found.items()}
    result["ours / captum, 3 x the passes"] = result["ours"] / result["captum, 3 x the passes"]
    print(
        f"M = {features}, {samples} passes, error over {seeds} seeds (wanted: ratio at most {WANTED_ERROR})"
    )
    print("".join(f"  {name}: {value:.4f}\n" for name, value in result.items()), end="")
    return {f"M = {features}, {samples} passes, {name}": value for name, value in result.items()}


def reference(model: nn.Module, inputs: Tensor, long: int) -> Tensor:
    """Exact values of few features, of many those of a very long run."""
    if inputs.shape[1] <= 16:
        return values(ExactShapley(model, batch_size=4096)(inputs))
    method = ShapleySampling(model, samples=long, tolerance=0, batch_size=8192, verbose=False)
    return values(method(inputs))


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
    method = ExactShapley(model, features=grid(images, 3, 4))
    batch = images.expand(64, -1, -1, -1).clone()

    @torch.inference_mode()
    def passes() -> None:
        for _ in range(4096 // len(batch)):
            model(batch)

    contenders = {"ours": lambda: method(images, target=0), "passes": passes}
    times = in_turns(contenders, rounds, warm_up=1)
    found = ratios(times, "ours", "passes")
    print(f"exact values of 12 features (wanted: at most {WANTED_TIME})")
    print("".join(f"  {name}: {statistics.median(own):.2f} s\n" for name, own in times.items()), end="")
    print(f"  ours / 4096 batched passes: {spread(found)}")
    return {"exact, M = 12 / 4096 passes": statistics.median(found)}


if __name__ == "__main__":
    main()
