"""The hook engine: every module of a 12-layer transformer recorded, against the plain forward pass, in turns.

Prints the ratios as medians: by reference (wanted: at most 1.05), and with a copy handed on.

    python benchmarks/hooks.py [--device cuda]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import GPT2Config, GPT2Model

from toumei.core import hooked


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args(argv)
    model = GPT2Model(GPT2Config()).eval().to(options.device)
    tokens = torch.randint(50257, (1, options.tokens), device=options.device)
    names = [name for name, _ in model.named_modules()]

    def recorded(clone: bool) -> Callable[[], None]:
        def forward() -> None:
            with hooked(model, names, clone=clone):
                model(tokens)

        return forward

    contenders = {"plain": lambda: model(tokens), "by reference": recorded(False), "copied": recorded(True)}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with torch.no_grad():
        for count in range(-2, options.rounds):
            for name, call in contenders.items():
                elapsed = timed(call)
                times[name] += [elapsed] if count >= 0 else []
    print(f"GPT-2 small's shape, {len(names)} modules recorded, {options.tokens} tokens, {options.device}")
    results = {name: statistics.median(values) for name, values in times.items()}
    for name in ("by reference", "copied"):
        ratios = [mine / plain for mine, plain in zip(times[name], times["plain"], strict=True)]
        results[f"{name} / plain"] = statistics.median(ratios)
        print(f"  {name} / plain: {statistics.median(ratios):.3f}")
    return results


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
