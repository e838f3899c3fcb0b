"""Ablation and patching of heads against one full pass for each, in turns; and what the operations allow.

Three shapes with random weights: GPT-2's blocks 12 x 12 of width 192, GPT-2 small, SmolLM2-135M (30 x 9). The
plain way is timed on some heads and multiplied, in the same round; heads are patched at each position, in the
first, the middle and the last layer. With `--threads 1` times are those of the process, so that others
disturb less; with all threads, as models run by default, and on a GPU those of the clock.

Two limits are printed for the ablation. The first counts products of weights: heads of layer l need the
blocks above l, the MLP of l and the logits, at all positions but the last, where a pass needs everything. The
second divides both by the measured speed of products with the rows of one text and with a thousand rows, in
the way in which each is computed. A pass of a small model takes longer than its products, so that the second
limit can be exceeded there.

    python benchmarks/interventions.py [--models small gpt2 smollm2] [--lengths 6 12 96] [--threads 1]
"""

import os
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from timing import basic_parser, clocks, describe, spread, write
from toumei.core.products import onednn_products
from toumei.transformers import HookedModel, ablation, activation_patching, head_ablation, logit_difference

Seconds = Callable[[Callable[[], object]], float]


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = basic_parser(__doc__, threads=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["small", "gpt2", "smollm2"], choices=list(MODELS))
    parser.add_argument("--lengths", type=int, nargs="+", default=[6, 12, 96])
    parser.add_argument("--sample", type=int, default=4, help="full passes of a round")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    print(f"{describe(device)}, {options.threads} threads, one text")
    results: dict[str, float] = {}
    for name in options.models:
        torch.manual_seed(0)
        model = HookedModel(MODELS[name]().eval().to(device))
        for length in options.lengths:
            for what, found in compared(model, length, options.rounds, options.sample, device):
                results[f"{name}, {length} tokens: {what}"] = statistics.median(found)
                print(f"  {name}, {length} tokens: {what}: {spread(found)}", flush=True)
    write(results, options.json)
    return results


def compared(
    model: HookedModel, length: int, rounds: int, sample: int, device: torch.device
) -> Iterator[tuple[str, list[float]]]:
    """What is measured for texts of a length, a number for each round."""
    network: Any = model.model
    tokens = torch.randint(3, network.config.vocab_size, (1, length), device=device)
    other = tokens.clone()
    other[:, 2] = 2
    metric = logit_difference(0, 1)

    def ablated() -> object:
        return head_ablation(model, tokens)

    layers = [0, model.layers // 2, model.layers - 1]

    def patched() -> object:
        return activation_patching(model, tokens, other, metric, "z", "head_position", layers=layers)

    heads = model.layers * model.heads
    for what, fast, count in (
        ("one pass for each head / head_ablation", ablated, heads),
        ("one pass for each patch / activation_patching", patched, len(layers) * model.heads * (length - 2)),
    ):
        fast()
        found = []
        for _ in range(rounds):
            ours = seconds(fast, device)
            plain = [seconds(one, device) for one in passes(model, tokens, sample)]
            found.append(statistics.mean(plain) * count / ours)
        yield what, found
    for what, limit in limits(model, length, device).items():
        yield what, [limit]


def passes(model: HookedModel, tokens: Tensor, sample: int) -> Iterator[Callable[[], object]]:
    """Full passes with an ablated head, of layers from the first to the last."""
    for place in range(sample):
        layer = place * (model.layers - 1) // max(sample - 1, 1)

        @torch.no_grad()
        def plain(layer: int = layer, head: int = place % model.heads) -> float:
            with model.edit({("z", layer): ablation(heads=[head])}):
                logits = model(tokens)
            return float(nn.functional.cross_entropy(logits[0, :-1].float(), tokens[0, 1:]))

        yield plain


def seconds(call: Callable[[], object], device: torch.device) -> float:
    clock = 1 if device.type == "cpu" and torch.get_num_threads() == 1 else 0
    start = clocks(device)[clock]
    call()
    return float(clocks(device)[clock] - start)


def limits(model: HookedModel, length: int, device: torch.device) -> dict[str, float]:
    """How much faster the ablation of all heads can be, by counting and by the speed of products."""
    network: Any = model.model
    blocks = network.get_submodule(BLOCKS[type(network)])
    block, mlp = weights_of(blocks[0]), weights_of(blocks[0].mlp)
    head = network.lm_head.weight.numel()
    whole, above, last = model.layers * block, (model.layers - 1) / 2 * block + mlp, head
    widths = 4 * model.width, head // model.width
    slow = [speed(length, model.width, width, device) for width in widths]
    with torch.no_grad(), onednn_products():
        fast = [speed(1024, model.width, width, device) for width in widths]
    positions = length / (length - 1)
    return {
        "limit by counting": (whole + last) / (above + last) * positions,
        "limit by the speed of products": (whole / slow[0] + last / slow[1])
        / (above / fast[0] + last / fast[1])
        * positions,
    }


def weights_of(module: nn.Module) -> int:
    """How many multiplications for each token."""
    return sum(one.numel() for one in module.parameters() if one.dim() == 2)


def speed(rows: int, width: int, outputs: int, device: torch.device) -> float:
    """Multiplications a second of a product with several weights, more than stay in a cache."""
    given = torch.randn(rows, width, device=device)
    weights = [torch.randn(outputs, width, device=device) for _ in range(max(1, 2**24 // (width * outputs)))]

    def products() -> None:
        for weight in weights:
            nn.functional.linear(given, weight)

    products()
    return rows * width * outputs * len(weights) / min(seconds(products, device) for _ in range(3))


def small() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(n_embd=192, vocab_size=2000, bos_token_id=0, eos_token_id=0))


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config())


def smollm2() -> nn.Module:
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


MODELS: dict[str, Callable[[], Any]] = {"small": small, "gpt2": gpt2, "smollm2": smollm2}
BLOCKS: dict[type, str] = {GPT2LMHeadModel: "transformer.h", LlamaForCausalLM: "model.layers"}

if __name__ == "__main__":
    main()
