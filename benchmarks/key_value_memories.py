"""Reading the memories of all neurons of a Llama over texts against the forward passes alone, in turns.

The network has the shape of SmolLM2-135M, or its first `--layers`, and random weights; the texts are those of
the world of facts_gpt, several in a row. Prints the ratio of reading all coefficients to the plain passes
(wanted: at most 1.3 with the values, over 10,000 texts), the seconds that the values take once, and that what
is kept of the neurons takes the same bytes for twice as many texts. The first texts of a corpus cost most,
while every neuron still gets new triggers: with few texts the ratio is higher than over thousands.

    python benchmarks/key_value_memories.py [--layers 30] [--texts 320]
"""

import statistics
import time
from itertools import islice
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from timing import basic_parser, in_turns, ratios, spread, write
from toumei.instrument import KeyValueMemories, Memories
from toumei.models import facts_gpt

TEXTS = 10_000
"""Over so many texts the values are shared out."""


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = basic_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--texts", type=int, default=128, help="in a round")
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=options.layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).eval().to(options.device)
    _, tokenizer, world = facts_gpt()
    facts = list(islice(world.texts(seed=0), 4 * 2 * options.texts))
    texts = [" ".join(facts[start : start + 4]) for start in range(0, len(facts), 4)]
    layers = [f"model.layers.{layer}.mlp.down_proj" for layer in range(options.layers)]

    def memories(count: int, promoted: int = 0) -> Memories:
        read = KeyValueMemories(
            model, tokenizer, layers, promoted=promoted, batch_size=options.batch_size, verbose=False
        )
        return read(texts[:count])

    batches = list(batches_of(tokenizer, texts[: options.texts], options.batch_size, options.device))

    def plain() -> None:
        for batch in batches:
            model(**batch, use_cache=False)

    def without_head() -> None:
        for batch in batches:
            model.model(**batch, use_cache=False)

    contenders = {"plain": plain, "no head": without_head, "reading": lambda: memories(options.texts)}
    with torch.no_grad():
        times = in_turns(contenders, options.rounds, options.device, warm_up=1)
    found = ratios(times, "reading", "plain")
    results = {name: statistics.median(values) for name, values in times.items()}
    inner = ratios(times, "reading", "no head")
    results["reading / plain"], results["reading / no head"] = map(statistics.median, (found, inner))
    start = time.perf_counter()
    once = memories(8, promoted=10)
    results["values"] = time.perf_counter() - start
    whole = results["reading"] + results["values"] * options.texts / TEXTS
    results["with values / plain"] = whole / results["plain"]
    results["bytes"], twice = kept(memories(options.texts)), kept(memories(2 * options.texts))
    print(f"{options.layers} layers of SmolLM2's shape, {options.texts} texts, {options.device}")
    print(f"  reading / passes: {spread(found)}; without the head, where reading ends: {spread(inner)}")
    print(f"  values of {sum(map(len, once.layers)):,} neurons, once: {results['values']:.1f} s")
    print(f"  both over {TEXTS:,} such texts / passes: {results['with values / plain']:.3f}")
    print(f"  kept of the neurons: {results['bytes'] / 1e6:.1f} MB, of twice the texts {twice / 1e6:.1f} MB")
    write(results, options.json)
    return results


def batches_of(tokenizer: Any, texts: list[str], batch_size: int, device: str) -> Any:
    """The texts as batches of about the same length, padded, as the analysis makes them."""
    texts = sorted(texts, key=lambda text: len(tokenizer(text)["input_ids"]))
    for start in range(0, len(texts), batch_size):
        batch = tokenizer(texts[start : start + batch_size], padding=True, return_tensors="pt")
        yield {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}


def kept(memories: Memories) -> int:
    """Bytes of the triggers and moments of all neurons."""
    tensors = [
        tensor
        for layer in memories.layers
        for found in (layer.highest, layer.lowest)
        if found is not None
        for tensor in (found.values, found.texts, found.positions)
    ]
    moments = [tensor for layer in memories.layers for tensor in (layer.mean, layer.variance)]
    return sum(tensor.nbytes for tensor in (*tensors, *moments))


if __name__ == "__main__":
    main()
