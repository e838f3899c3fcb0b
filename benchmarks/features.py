"""Training of dictionaries against the bare matrix products, in turns, and what its buffer holds in memory.

Prints the median ratios of a step to the five dense products that it stands for: encode, decode, and the
gradients of features, decoder and encoder (wanted: at most 1.3). TopK and BatchTopK compute only the first of
them whole. Then the memory that a training adds while it reads four times as many activations (wanted: the
same), and the share of known features that are found at a larger size (wanted: at least 95 % at cosine .95).

    python benchmarks/features.py [--device cuda]
"""

import resource
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from timing import basic_parser, describe, in_turns, ratios, spread, write
from toumei.transformers.features import (
    DictionarySettings,
    SyntheticFeatures,
    match_features,
    train_dictionary,
)


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = basic_parser(__doc__, threads=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--features", type=int, default=4608)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--known", type=int, default=512, help="features of the synthetic data")
    parser.add_argument("--known-tokens", type=int, default=1_500_000)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    shape = options.batch_size, options.width, options.features
    print(f"{describe(device)}, {options.threads} threads, {shape[0]} x {shape[1]} to {shape[2]} features")
    results = throughput(shape, options.rounds, device)
    results |= memory(options.batch_size, options.width)
    results |= recovered(options.known, options.known_tokens)
    write(results, options.json)
    return results


def throughput(shape: tuple[int, int, int], rounds: int, device: torch.device) -> dict[str, float]:
    """Ratios of a step to the bare products."""
    batch_size, width, features = shape
    contenders: dict[str, Callable[[], object]] = {"products": products(*shape, device)}
    for activation in ("topk", "batch_topk", "jump_relu", "relu"):
        contenders[activation] = step(activation, batch_size, width, features, device)
    times = in_turns(contenders, rounds, device, warm_up=1)
    results = {}
    print(f"  products: {1000 * statistics.median(times['products']):.0f} ms")
    for name in list(times)[1:]:
        found = ratios(times, name, "products")
        results[f"{name} / products"] = statistics.median(found)
        print(f"  {name} / products: {spread(found)}")
    return results


def products(batch_size: int, width: int, features: int, device: torch.device) -> Callable[[], object]:
    """The five products of a step."""
    inputs = torch.randn(batch_size, width, device=device)
    encoder = torch.randn(width, features, device=device)
    decoder = torch.randn(features, width, device=device)

    def run() -> None:
        active = inputs @ encoder
        error = active @ decoder
        gradient = error @ decoder.T
        active.T @ error
        inputs.T @ gradient

    return run


class Steps:
    """Activations that let a training take one step at a time."""

    names, fingerprint = ("activations",), ""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def blocks(self, seed: int) -> Iterator[dict[str, Tensor]]:
        """Yields all rows."""
        yield {"activations": self.rows}


def step(
    activation: str, batch_size: int, width: int, features: int, device: torch.device
) -> Callable[[], object]:
    """A step of a training in the middle of its course, as the library takes it."""
    from toumei.transformers.features import training

    rows = torch.randn(4 * batch_size, width)
    settings = DictionarySettings(
        features=features,
        activation=activation,  # type: ignore[arg-type]
        tokens=10**7,
        batch_size=batch_size,
        buffer=4 * batch_size,
    )
    state = training.Training(Steps(rows), settings, "activations", "activations", device)
    batches = iter(state.batches)
    return lambda: state.step(0, next(batches))


def memory(batch_size: int, width: int) -> dict[str, float]:
    """The most memory after a training, and after one that reads four times as many activations."""

    class Stream:
        names, fingerprint = ("activations",), ""

        def blocks(self, seed: int) -> Iterator[dict[str, Tensor]]:
            for _ in range(10_000):
                yield {"activations": torch.randn(batch_size, width)}

    found = {}
    for times in (1, 4):
        settings = DictionarySettings(
            features=64, k=4, tokens=times * 20 * batch_size, batch_size=batch_size, buffer=8 * batch_size
        )
        train_dictionary(Stream(), settings, verbose=False)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found[f"MB after {times * 20} batches"] = peak
        print(f"  peak memory after {times * 20} batches, a buffer of 8: {peak:.0f} MB")
    return found


def recovered(known: int, tokens: int) -> dict[str, float]:
    """The share of known features at cosine .95 or above."""
    world = SyntheticFeatures(features=known, width=known // 4, active=4)
    settings = DictionarySettings(
        features=known, k=4, tokens=tokens, batch_size=1024, learning_rate=2e-3, buffer=2**15
    )
    started = time.perf_counter()
    matches = match_features(
        train_dictionary(world, settings, verbose=False).dictionary.W_dec, world.directions
    )
    print(f"  {matches}, {time.perf_counter() - started:.0f} s")
    return {"known features found": matches.share_above(), "mean cosine": matches.mean}


if __name__ == "__main__":
    main()
