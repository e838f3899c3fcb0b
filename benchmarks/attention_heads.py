"""The comparison of 6 x 12 attention heads over texts against the forward passes alone, in turns.

The network has the shape of all-MiniLM-L6-v2 and random weights, the texts have random tokens and the lengths
of paragraphs. Prints the ratios to the plain passes (wanted: a comparison of at most 1.5 times the passes),
the same with a part of the rows, and how far the divergences are from those of SciPy in double precision. An
analyzer goes on from round to round, so that its first batch, which finds the attentions, is not counted.

    python benchmarks/attention_heads.py [--texts 1000] [--batch-size 16] [--width 384]
"""

import statistics
from collections.abc import Iterator
from itertools import combinations

import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor
from transformers import BertConfig, BertModel

from timing import basic_parser, in_turns, ratios, spread, write
from toumei.instrument import AttentionHeadClusterAnalyzer, cluster_attention_heads, instrument

SMOOTHING = 0.001
Batch = dict[str, Tensor]


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = basic_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=64, help="in a round")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--rows-per-text", type=int, default=32)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=options.width,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=4 * options.width,
        initializer_range=0.2,  # so that rows are not nearly uniform
    )
    model = BertModel(config, add_pooling_layer=False).eval().to(options.device)
    batches = list(texts_of(config.vocab_size, options.texts, options.batch_size, options.device))

    def plain() -> None:
        for batch in batches:
            model(**batch)

    def comparing(analyzer: AttentionHeadClusterAnalyzer) -> None:
        for batch in batches:
            with analyzer.track_batch():
                model(**batch)

    with instrument(model) as probe, torch.no_grad():
        every = AttentionHeadClusterAnalyzer(probe)
        some = AttentionHeadClusterAnalyzer(probe, rows_per_text=options.rows_per_text)
        contenders = {
            "plain": plain,
            "all rows": lambda: comparing(every),
            f"{options.rows_per_text} rows": lambda: comparing(some),
        }
        times = in_turns(contenders, options.rounds, options.device, warm_up=1)
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    print(f"6 x 12 heads, {options.texts} texts of {tokens} tokens, {options.device}")
    results = {name: statistics.median(values) for name, values in times.items()}
    for name in list(contenders)[1:]:
        found = ratios(times, name, "plain")
        results[f"{name} / plain"] = statistics.median(found)
        print(f"  passes and comparison of {name} / passes: {spread(found)}")
    results["error"] = error_of_a_few()
    print(f"  largest difference from SciPy's Jensen-Shannon divergence: {results['error']:.1e} nats a row")
    write(results, options.json)
    return results


def texts_of(vocabulary: int, count: int, batch_size: int, device: str) -> Iterator[Batch]:
    """Batches of random texts of 50 to 150 tokens, padded."""
    for start in range(0, count, batch_size):
        lengths = torch.randint(50, 151, (min(batch_size, count - start),))
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = torch.randint(vocabulary, mask.shape) * mask
        yield {"input_ids": ids.to(device), "attention_mask": mask.long().to(device)}


def error_of_a_few(heads: int = 6, tokens: int = 60) -> float:
    """The largest difference from a plain restatement on two texts of single precision."""
    texts = [torch.randn(1, heads, length, length).mul(4).softmax(-1) for length in (tokens, tokens // 2)]
    found = cluster_attention_heads([[text] for text in texts], verbose=False).divergences
    worst = 0.0
    for one, other in combinations(range(heads), 2):
        total = 0.0
        for text in texts:
            length = text.shape[-1]
            smooth = (1 - SMOOTHING) * text[0].double().numpy() + SMOOTHING / length
            total += float((jensenshannon(smooth[one], smooth[other], axis=1) ** 2).sum())
        rows = sum(text.shape[-1] for text in texts)
        worst = max(worst, abs(total / rows - float(found[one, other])))
    return worst


if __name__ == "__main__":
    main()
