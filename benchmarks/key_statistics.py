"""Key statistics against their limit: a forward pass cut off behind the layer, and the products of its keys.

GPT-2 small's shape with random weights, texts of random tokens. The contenders take turns batch by batch;
wanted: at most 1.15 times the limit.

    python benchmarks/key_statistics.py [--device cuda] [--json result.json]
"""

import argparse
import statistics

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from common import basic_parser, describe, in_turns, ratios, spread, write
from toumei.core import hooked
from toumei.transformers.rome.statistics import collect_statistics

BATCH = 8


def main(argv: list[str] | None = None) -> dict[str, float]:
    options = parse_arguments(argv)
    torch.set_num_threads(options.threads)
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

    times = in_turns({"limit": limit, "ours": ours}, options.rounds, options.device, warm_up=1)
    found = ratios(times, "ours", "limit")
    machine = describe(torch.device(options.device))
    print(f"{options.texts} texts of {options.tokens} tokens, layers {layers}, {machine}")
    print(f"  limit {statistics.median(times['limit']):.2f} s, ours {statistics.median(times['ours']):.2f} s")
    print(f"  ours / limit: {spread(found)} (wanted: at most 1.15)")
    result = {"ratio": statistics.median(found)} | {
        name: statistics.median(seconds) for name, seconds in times.items()
    }
    write(result, options.json)
    return result


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
