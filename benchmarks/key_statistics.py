"""Key statistics against their limit: a forward pass cut off behind the layer, and the products of its keys.

GPT-2 small's shape with random weights, texts of random tokens. The contenders take turns batch by batch;
wanted: at most 1.15 times the limit.

    python benchmarks/key_statistics.py [--device cuda] [--json result.json]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from toumei.core import hooked
from toumei.transformers.rome.statistics import collect_statistics

BATCH = 8


def main(argv: list[str] | None = None) -> dict[str, float]:
    options = parse_arguments(argv)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=options.blocks)).eval().to(options.device)
    layers = list(range(options.layer - options.layers + 1, options.layer + 1))
    # As many texts as are sorted by length at once, so that a call of the library is one turn.
    ids = torch.randint(1000, (options.texts, options.tokens))
    texts = [" ".join(f"w{i}" for i in row) for row in ids.tolist()]
    tokenizer = word_tokenizer()

    def ours() -> None:
        collect_statistics(model, tokenizer, texts, layers, batch_size=BATCH, verbose=False)

    def limit() -> None:
        names = [f"transformer.h.{layer}.mlp.c_proj" for layer in layers]
        for batch in ids.to(options.device).split(BATCH):
            with torch.no_grad(), hooked(model, names, inputs=True, stop=True, clone=False) as given:
                model(batch, use_cache=False)
            for name in names:
                keys = given[name].flatten(0, 1)
                keys.T @ keys

    times: dict[str, list[float]] = {"limit": [], "ours": []}
    for turn in range(-1, options.rounds):
        for name, call in (("limit", limit), ("ours", ours)):
            elapsed = timed(call)
            times[name] += [elapsed] if turn >= 0 else []
    ratio = statistics.median(mine / least for mine, least in zip(times["ours"], times["limit"], strict=True))
    print(f"{options.texts} texts of {options.tokens} tokens, layers {layers}, {options.device}")
    print(f"  limit {statistics.median(times['limit']):.2f} s, ours {statistics.median(times['ours']):.2f} s")
    print(f"  ours / limit: {ratio:.3f} (wanted: at most 1.15)")
    result = {"ratio": ratio, **{name: statistics.median(found) for name, found in times.items()}}
    if options.json:
        Path(options.json).write_text(json.dumps(result))
    return result


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--layer", type=int, default=5, help="the deepest layer")
    parser.add_argument("--layers", type=int, default=1, help="how many layers, ending there")
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    return parser.parse_args(argv)


def word_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(1000)}, "w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
