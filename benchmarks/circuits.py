"""Scores of all edges of a transformer against its forward pass, in turns, on SmolLM2's shape.

Prints the ratios as medians: edge attribution patching of all edges over a forward pass of the same prompts
(wanted: at most 6), integrated gradients for each step, and exact patches of some edges, extended to all.

    python benchmarks/circuits.py [--device cuda]
"""

import statistics
import time
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from timing import basic_parser, describe, in_turns, ratios, spread, synchronize, write
from toumei.transformers import HookedModel, logit_difference
from toumei.transformers.circuits import attribution_graph

STEPS = 3


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = basic_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--length", type=int, default=16)
    parser.add_argument("--patched", type=int, default=32, help="edges that are patched exactly")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    model = network(options.layers).to(device)
    clean = torch.randint(49152, (options.prompts, options.length), device=device)
    corrupt = clean.clone()
    corrupt[:, 2] = (corrupt[:, 2] + 1) % 49152
    given = HookedModel(model), clean, corrupt, logit_difference(5, 7)

    def forward() -> None:
        with torch.no_grad():
            model(clean, logits_to_keep=1)

    contenders = {
        "forward": forward,
        "eap": lambda: attribution_graph(*given, "eap"),
        f"eap-ig, {STEPS} steps": lambda: attribution_graph(*given, "eap-ig", steps=STEPS),
    }
    times = in_turns(contenders, options.rounds, device, warm_up=1)
    print(
        f"{describe(device)}, {options.threads} threads, {options.prompts} x {options.length} tokens, "
        f"{options.layers} layers"
    )
    results = {name: statistics.median(values) for name, values in times.items()}
    print(f"  forward: {1000 * results['forward']:.1f} ms")
    for name in list(times)[1:]:
        found = ratios(times, name, "forward")
        results[f"{name} / forward"] = statistics.median(found)
        print(f"  {name} / forward: {spread(found)}")
    results |= exact(given, options.patched, results["forward"], device)
    write(results, options.json)
    return results


def exact(given: Any, patched: int, forward: float, device: torch.device) -> dict[str, float]:
    """What patches of some edges take, and of all of them."""
    started = time.perf_counter()
    graph = attribution_graph(*given, "exact", sample=patched)
    synchronize(device)
    edge = (time.perf_counter() - started) / patched / forward
    total = int(graph.allowed.sum())
    print(f"  exact, an edge / forward: {edge:.2f}; all {total:,} edges: {edge * total:,.0f} forward passes")
    return {"exact, an edge / forward": edge, "edges": float(total)}


def network(layers: int) -> LlamaForCausalLM:
    """A model of SmolLM2's shape with random weights."""
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


if __name__ == "__main__":
    main()
