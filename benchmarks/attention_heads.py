"""The comparison of 6 x 12 attention heads over texts against the forward passes alone, in turns.

The network has the shape of all-MiniLM-L6-v2 and random weights, the texts have random tokens and the lengths
of paragraphs. Prints the ratios to the plain passes (wanted: a comparison of at most 1.5 times the passes),
the same with a part of the rows, and how far the divergences are from those of SciPy in double precision. An
analyzer goes on from round to round, so that its first batch, which finds the attentions, is not counted.

With `--model` and `--text` it takes a real encoder and the sentences of a file: one comparison of all of
`--texts` sentences, each batch beside its plain pass, and the difference from a plain restatement in double
precision, which runs each of every twentieth sentence alone.

    python benchmarks/attention_heads.py [--texts 1000] [--batch-size 16] [--width 384]
    python benchmarks/attention_heads.py --model FOLDER --text wikitext.txt --texts 1000 [--sorted]
"""

import argparse
import re
import statistics
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from timing import basic_parser, clocks, in_turns, ratios, spread, write
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
    parser.add_argument("--model", help="an encoder: a name, or a folder")
    parser.add_argument("--text", type=Path, help="a file of text, whose sentences are compared")
    parser.add_argument("--sorted", action="store_true", help="batches of sentences of like lengths")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.model is not None:
        return of_sentences(options)
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


def of_sentences(options: argparse.Namespace) -> dict[str, float]:
    """A real model over the sentences of a file, each batch once alone and once compared, in turns."""
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModel.from_pretrained(options.model, dtype=torch.float32).eval().to(options.device)
    sentences = sentences_of(options.text, options.texts)
    lengths = np.array([len(ids) for ids in tokenizer(sentences, truncation=True)["input_ids"]])
    order = np.argsort(lengths, kind="stable") if options.sorted else np.arange(len(lengths))
    groups = [order[start : start + options.batch_size] for start in range(0, len(order), options.batch_size)]
    batches = [
        tokenizer([sentences[index] for index in group], return_tensors="pt", padding=True, truncation=True)
        for group in groups
    ]
    spent = {"plain": np.zeros(2), "compared": np.zeros(2)}

    def run(batch: Any, analyzer: AttentionHeadClusterAnalyzer | None) -> None:
        start = clocks(options.device)
        if analyzer is None:
            model(**batch.to(options.device))
        else:
            with analyzer.track_batch():
                model(**batch.to(options.device))
        spent["plain" if analyzer is None else "compared"] += clocks(options.device) - start

    with instrument(model) as probe, torch.no_grad():
        analyzer = AttentionHeadClusterAnalyzer(probe)
        model(**batches[0].to(options.device))  # to warm up
        for number, batch in enumerate(batches):
            for turn in (None, analyzer) if number % 2 else (analyzer, None):
                run(batch, turn)
        few = AttentionHeadClusterAnalyzer(probe)
        for start in range(0, len(sentences[::20]), options.batch_size):
            some = sentences[::20][start : start + options.batch_size]
            with few.track_batch():
                model(
                    **tokenizer(some, return_tensors="pt", padding=True, truncation=True).to(options.device)
                )
    result, ratio = analyzer.analyze(), spent["compared"] / spent["plain"]
    quartiles = np.percentile(lengths, [0, 25, 50, 75, 90, 100]).astype(int).tolist()
    print(f"{len(result.labels)} heads, {result.texts} texts, {lengths.sum()} tokens, {options.device}")
    print(f"  tokens a sentence: mean {lengths.mean():.1f}; least, quartiles, 90 %, most {quartiles}")
    print(f"  passes alone {spent['plain'][0]:.1f} s, passes and comparison {spent['compared'][0]:.1f} s")
    print(f"  ratio {ratio[0]:.2f} by the clock, {ratio[1]:.2f} by processor time")
    worst = error_of_sentences(options.model, tokenizer, sentences[::20], few.analyze().divergences)
    print(f"  largest difference from the restatement of every twentieth: {worst:.1e} nats a row")
    found = {"ratio": float(ratio[0]), "ratio of processor time": float(ratio[1]), "error": worst}
    write(found, options.json)
    return found


def sentences_of(path: Path, count: int) -> list[str]:
    """The first sentences of a text of at least three words, without its headings."""
    lines = (line.strip() for line in path.read_text().splitlines())
    paragraphs = [line for line in lines if line and not line.startswith("=")]
    found = [one for line in paragraphs for one in re.split(r"(?<=[.!?]) +(?=[A-Z\"])", line)]
    return [one for one in found if len(one.split()) > 2][:count]


def error_of_sentences(name: str, tokenizer: Any, sentences: list[str], found: Tensor) -> float:
    """The largest difference from divergences in double precision, of each sentence alone."""
    model = AutoModel.from_pretrained(name, dtype=torch.float64, attn_implementation="eager").eval()
    total, rows = 0.0, 0
    for sentence in sentences:
        with torch.no_grad():
            output = model(
                **tokenizer(sentence, return_tensors="pt", truncation=True), output_attentions=True
            )
        weights = torch.cat(output.attentions, 1)[0].numpy()
        smooth = (1 - SMOOTHING) * weights + SMOOTHING / weights.shape[-1]
        entropies = -(smooth * np.log(smooth)).sum(-1)  # (heads, rows)
        for head, of_head in enumerate(smooth):
            mixed = (smooth + of_head) / 2
            rows_of_pair = -(mixed * np.log(mixed)).sum(-1) - (entropies + entropies[head]) / 2
            total = total + np.eye(len(smooth))[head][:, None] * rows_of_pair.sum(-1)
        rows += weights.shape[-1]
    return float(np.abs(found.numpy() - total / rows).max())


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
