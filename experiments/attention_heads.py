"""Which attention heads of a network behave alike, and what they attend to (Clark et al. 2019).

    python experiments/attention_heads.py
    python experiments/attention_heads.py --model sentence-transformers/all-MiniLM-L6-v2 --texts lines.txt

Every head attends to the tokens of every text; the Jensen-Shannon divergences of all pairs of heads, averaged
over the tokens, are their distances. The script writes outputs/attention_heads.png: a map of the heads, near
each other where they attend alike, with what they attend to (figure 6 of the paper), and the divergences as a
heat map. By default the network is the small GPT that ships with toumei and the texts are those of its world;
any other encoder or decoder is downloaded.
"""

import argparse
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from common import basic_parser, model_and_texts
from toumei.core import evaluating
from toumei.instrument import AttentionHeadClusterAnalyzer, AttentionHeadClusteringResult, instrument
from toumei.models import minilm, smollm2
from toumei.plots import look, save_figure

MARKS = (".", ",")
"""What the paper takes for punctuation."""


@look()
def main(argv: Sequence[str] | None = None) -> AttentionHeadClusteringResult:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, tokenizer, texts = model_and_texts(options, encoder)
    result = compared(model, tokenizer, list(itertools.islice(texts, options.count)), options)
    print(result)
    report(result)
    figure = Figure(figsize=(17, 8.5), dpi=130, layout="constrained")
    first, second = figure.subplots(1, 2)
    result.plot(ax=first)
    result.plot_divergences(second)
    save_figure(figure, options.out)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return result


def compared(
    model: Any, tokenizer: Any, texts: Sequence[str], options: argparse.Namespace
) -> AttentionHeadClusteringResult:
    """The comparison of all heads over the texts."""
    separator = tokenizer.sep_token_id
    with instrument(model) as probe, evaluating(model), torch.no_grad():
        analyzer = AttentionHeadClusterAnalyzer(
            probe,
            separators=() if separator is None else [separator],
            punctuation=tokenizer.convert_tokens_to_ids(list(MARKS)),
            rows_per_text=options.rows_per_text,
            seed=options.seed,
        )
        for start in tqdm(range(0, len(texts), options.batch_size), "batches"):
            batch = tokenizer(
                texts[start : start + options.batch_size],
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=options.max_length,
            )
            with analyzer.track_batch():
                model(**batch.to(options.device))
        return analyzer.analyze(seed=options.seed)


def report(result: AttentionHeadClusteringResult, count: int = 3) -> None:
    """Prints the heads that attend most to each thing, and the clusters of several heads."""
    for name, values in vars(result.behaviours).items():
        if values is not None:
            best = values.topk(min(count, len(values)))
            heads = ", ".join(
                f"{result.names[head]} ({value:.2f})"
                for value, head in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            )
            print(f"{name:<12}{heads}")
    clusters = result.clusters(max(2, len(result) // 6)).tolist()
    for cluster in sorted(set(clusters), key=clusters.count, reverse=True)[:6]:
        names = [name for name, given in zip(result.names, clusters, strict=True) if given == cluster]
        print(f"cluster of {len(names)}: {', '.join(names[:20])}")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(
        __doc__, Path("outputs/attention_heads.png"), seed=0, device="cpu"
    )
    parser.add_argument(
        "--model", help="minilm, smollm2, a model of Hugging Face to download, or a folder with one"
    )
    parser.add_argument("--texts", help="a file with a text on each line")
    parser.add_argument("--count", type=int, default=500, help="most texts")
    parser.add_argument("--max-length", type=int, default=128, help="most tokens of a text")
    parser.add_argument("--rows-per-text", type=int, help="query rows that are compared; by default all")
    parser.add_argument("--batch-size", type=int, default=16, help="texts in a forward pass")
    options = parser.parse_args(argv)
    if options.model and not options.texts:
        parser.error("--model needs --texts")
    return options


def encoder(name: str) -> tuple[Any, Any]:
    """An encoder, or a decoder without its head, and its tokenizer."""
    from transformers import AutoModel, AutoTokenizer

    if name == "minilm":
        return minilm()
    if name == "smollm2":
        decoder, tokenizer = smollm2()
        return decoder.base_model, tokenizer
    return AutoModel.from_pretrained(name, dtype=torch.float32), AutoTokenizer.from_pretrained(name)


if __name__ == "__main__":
    main()
