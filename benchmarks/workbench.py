"""Caching activations against the plain pass, in turns, on GPT-2 small's shape and 4 x 64 tokens.

Prints the ratios as medians: all residual streams cached (wanted: at most 1.05), the attention weights of
all layers cached and looked at (wanted: at most 1.10), every activation cached; and TransformerLens' bridge
of the same model with the same names, if it is installed.

    python benchmarks/workbench.py [--device cuda]
"""

import statistics
from collections.abc import Callable
from copy import deepcopy
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from timing import basic_parser, describe, in_turns, ratios, spread, write
from toumei.models import facts_gpt
from toumei.transformers import HookedModel


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = basic_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--layers", type=int, default=12)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    model = GPT2LMHeadModel(GPT2Config(n_layer=options.layers)).eval().to(device)
    tokens = torch.randint(50257, (4, 64), device=device)
    contenders = {"plain": lambda: model(tokens), **ours(model, tokens), **bridge(model, tokens)}
    with torch.no_grad():
        times = in_turns(contenders, options.rounds, device, warm_up=2)
    results = {name: statistics.median(values) for name, values in times.items()}
    print(f"{describe(device)}, {options.threads} threads, {tokens.shape[0]} x {tokens.shape[1]} tokens")
    print(f"  plain: {1000 * results['plain']:.1f} ms")
    for name in times:
        found = ratios(times, name, "plain")
        results[f"{name} / plain"] = statistics.median(found)
        print(f"  {name} / plain: {spread(found)}")
    write(results, options.json)
    return results


def ours(model: nn.Module, tokens: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Passes of a hooked model."""
    hooked = HookedModel(model)

    def patterns() -> None:
        cache = hooked.run_with_cache(tokens, "pattern")[1]
        for layer in range(hooked.layers):
            cache["pattern", layer]

    return {
        "streams": lambda: hooked.run_with_cache(tokens, ["resid_pre", "resid_mid", "resid_post"]),
        "patterns": patterns,
        "all names": lambda: hooked.run_with_cache(tokens),
    }


def bridge(model: nn.Module, tokens: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Passes of TransformerLens' bridge around the same model; none where it is not installed."""
    try:
        from transformer_lens.model_bridge import TransformerBridge
    except ImportError:
        print("TransformerLens is not installed: pip install transformer-lens")
        return {}
    inside: Any = deepcopy(model)  # whose modules the bridge changes
    inside.config.architectures = [type(model).__name__]
    with TemporaryDirectory() as folder:
        inside.config.save_pretrained(folder)
        facts_gpt()[1].save_pretrained(folder)
        bridged: Any = TransformerBridge.boot_transformers(folder, hf_model=inside, device=str(tokens.device))

    def cached(ends: tuple[str, ...]) -> Callable[[], Any]:
        return lambda: bridged.run_with_cache(tokens, names_filter=lambda name: name.endswith(ends))

    return {
        "bridge": lambda: bridged(tokens),
        "bridge streams": cached(("hook_resid_pre", "hook_resid_mid", "hook_resid_post")),
        "bridge patterns": cached(("hook_pattern",)),
    }


if __name__ == "__main__":
    main()
