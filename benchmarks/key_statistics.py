"""Key statistics against their limit: a forward pass that ends after the layer, and the products of its keys.

GPT-2 small's shape with random weights, texts of random tokens. The limit runs on the same batch before each
batch of toumei, and its time is measured separately, so other load on the machine affects both. Expected: at
most 1.15 times the limit.

    python benchmarks/key_statistics.py [--device cuda] [--json result.json]
"""

import argparse
import copy
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from timing import basic_parser, clocks, describe, ratios, spread, write
from toumei.core import hooked
from toumei.transformers import collect_statistics

BATCH = 8


def main(argv: list[str] | None = None) -> dict[str, float]:
    options = parse_arguments(argv)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=options.blocks)).eval().to(options.device)
    layers = list(range(options.layer - options.layers + 1, options.layer + 1))
    names = [f"transformer.h.{layer}.mlp.c_proj" for layer in layers]
    ids = torch.randint(1000, (options.texts, options.tokens))
    texts = [" ".join(f"w{i}" for i in row) for row in ids.tolist()]
    tokenizer = word_tokenizer()
    times: dict[str, list[np.ndarray]] = {"limit": [], "ours": []}
    for turn in range(-1, options.rounds):
        with beside(model, names) as spent:
            start = clocks(options.device)
            collect_statistics(model, tokenizer, texts, layers, batch_size=BATCH, verbose=False)
            total = clocks(options.device) - start
        if turn >= 0:
            times["limit"].append(spent)
            times["ours"].append(total - spent)
    machine = describe(torch.device(options.device))
    print(f"{options.texts} texts of {options.tokens} tokens, layers {layers}, {machine}")
    result: dict[str, float] = {}
    for place, clock in enumerate(("time", "CPU time")):
        seconds = {name: [float(pair[place]) for pair in found] for name, found in times.items()}
        quotients = ratios(seconds, "ours", "limit")
        limit, ours, ratio = map(statistics.median, (*seconds.values(), quotients))
        print(f"  {clock}: limit {limit:.2f} s, ours {ours:.2f} s, ratio {spread(quotients)} (at most 1.15)")
        result |= {f"{clock}, limit": limit, f"{clock}, ours": ours, f"{clock}, ratio": ratio}
    write(result, options.json)
    return result


@contextmanager
def beside(model: nn.Module, names: list[str]) -> Iterator[np.ndarray]:
    """Runs the limit before each batch inside the block; yields its time and CPU time."""
    twin, forward = copy.deepcopy(model), model.forward
    runs = [f"{name}#0" for name in names]  # the pass ends after a run that has a number
    spent = np.zeros(2)

    def both(tokens: Tensor, **options: Any) -> Any:
        start = clocks(tokens.device)
        with hooked(twin, runs, inputs=True, stop=True, clone=False) as given:
            twin(tokens, use_cache=False)
        for name in runs:
            keys = given[name].flatten(0, 1)
            keys.T @ keys
        spent[:] += clocks(tokens.device) - start
        return forward(tokens, **options)

    model.forward = both
    try:
        yield spent
    finally:
        del model.forward


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = basic_parser(__doc__)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--layer", type=int, default=5, help="the deepest layer")
    parser.add_argument("--layers", type=int, default=1, help="how many layers, ending there")
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args(argv)


def word_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(1000)}, "w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")


if __name__ == "__main__":
    main()
