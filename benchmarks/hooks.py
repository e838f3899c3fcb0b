"""The hook engine on a 12-layer transformer against the plain forward pass, in turns.

Prints the ratios as medians: every module recorded by reference (wanted: at most 1.05) and with a copy passed
on; the limit, bare hooks of torch that keep each output; one operation, the softmax, of each attention
recorded (wanted: at most 1.03); and a survey.

    python benchmarks/hooks.py [--device cuda]
"""

import statistics
from collections.abc import Callable

import torch
from transformers import GPT2Config, GPT2Model

from timing import basic_parser, in_turns, ratios, spread, write
from toumei.core import hooked, survey


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = basic_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    model = GPT2Model(GPT2Config()).eval().to(options.device)
    model.set_attn_implementation("eager")  # whose softmax is an operation
    tokens = torch.randint(50257, (options.rows, options.tokens), device=options.device)
    modules = [name for name, _ in model.named_modules()]
    softmaxes = [f"h.{layer}.attn/softmax" for layer in range(len(model.h))]

    def recorded(names: list[str], clone: bool) -> Callable[[], None]:
        def forward() -> None:
            with hooked(model, names, clone=clone):
                model(tokens)

        return forward

    def bare() -> None:
        kept: list[object] = []
        handles = [
            module.register_forward_hook(lambda module, given, output: kept.append(output))
            for module in model.modules()
        ]
        model(tokens)
        for handle in handles:
            handle.remove()

    contenders = {
        "plain": lambda: model(tokens),
        "bare hooks": bare,
        "by reference": recorded(modules, False),
        "copied": recorded(modules, True),
        "operations": recorded(softmaxes, False),
        "survey": lambda: survey(model, ["h.11", "h.5.attn/softmax"], lambda: model(tokens)),
    }
    with torch.no_grad():
        times = in_turns(contenders, options.rounds, options.device, warm_up=2)
    size = f"{len(modules)} modules, {len(softmaxes)} operations, {options.rows} x {options.tokens} tokens"
    print(f"GPT-2 small's shape, {size}, {options.device}")
    results = {name: statistics.median(values) for name, values in times.items()}
    for name in ("bare hooks", "by reference", "copied", "operations", "survey"):
        found = ratios(times, name, "plain")
        results[f"{name} / plain"] = statistics.median(found)
        print(f"  {name} / plain: {spread(found)}")
    write(results, options.json)
    return results


if __name__ == "__main__":
    main()
