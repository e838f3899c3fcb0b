"""Feed-forward layers as key-value memories: what triggers each neuron, and what it then promotes.

    python experiments/key_value_memories.py
    python experiments/key_value_memories.py --model gpt2 --texts sentences.txt --count 10000

Geva et al. (2021), figures 4 to 6: how often the value of a neuron promotes the token that follows its
strongest trigger, at which rank that token is, and how sure values are, in each layer. The script writes
outputs/key_value_memories.png, a page to browse all neurons (.html) and a database of them (.db). By default
the network is the small GPT that ships with toumei and the texts are those of its world; any other causal
language model is downloaded.
"""

import argparse
import itertools
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure

from common import basic_parser, model_and_texts
from toumei.instrument.memories.key_value_memories import KeyValueMemories
from toumei.instrument.memories.result import Memories
from toumei.plots import look, palette, save_figure
from toumei.transformers.model import anatomy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTILES = (0.1, 0.5, 0.9)


@look()
def main(argv: Sequence[str] | None = None) -> Memories:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, tokenizer, texts = model_and_texts(options)
    parts = anatomy(model)
    layers = [parts.down(layer) for layer in range(parts.layers)]
    analysis = KeyValueMemories(
        model, tokenizer, layers, triggers=options.triggers, batch_size=options.batch_size
    )
    memories = analysis(list(itertools.islice(texts, options.count)))
    print(memories)
    print(memories.agreement)
    if memories.layers[0].lowest is not None:
        print(f"lowest coefficients and negative values\n{memories.lowest_agreement}")
    report(memories)
    out = Path(options.out)
    figure = Figure(figsize=(14, 3.8), dpi=130, layout="constrained")
    draw(memories, *figure.subplots(1, 3))
    save_figure(figure, out)
    memories.save_html(out.with_suffix(".html"))
    memories.save_sqlite(out.with_suffix(".db"))
    print(f"{out}, {out.with_suffix('.html')}, {time.perf_counter() - started:.0f} s")
    return memories


def draw(memories: Memories, first: "Axes", second: "Axes", third: "Axes") -> None:
    """The agreement rates, the ranks of the next tokens, and the probabilities of the likeliest tokens."""
    memories.agreement.plot(first)
    if memories.layers[0].lowest is not None:
        lowest = memories.lowest_agreement
        color = palette(4)[3]
        first.plot(
            range(len(lowest)), 100 * lowest.rates, color=color, marker="o", label="lowest coefficients"
        )
        first.autoscale(axis="y")  # for both lines
        first.set_ylim(bottom=0)
        first.legend()
    ranks, sure = [], []
    for layer in memories.layers:
        assert layer.promoted is not None
        found = layer.promoted.ranks
        ranks.append(1.0 + found[found >= 0])
        sure.append(100 * layer.promoted.probabilities[:, 0])
    tokens = len(memories.corpus.vocabulary)
    quantiles(second, ranks, (1 + tokens) / 2, palette(3)[2])
    second.set_yscale("log")
    second.set_ylabel("rank")
    second.set_title("Token after the trigger, under the value")
    quantiles(third, sure, 100 / tokens, palette(2)[1])
    third.set_ylim(bottom=0)
    third.set_ylabel("probability (%)")
    third.set_title("Likeliest token under the value")


def quantiles(axes: "Axes", numbers: Iterable[torch.Tensor], chance: float, color: str) -> None:
    """The median of each layer, the range from the 10 to the 90 % quantile, and what chance gives."""
    rows = [layer.float().quantile(torch.tensor(QUANTILES)) for layer in numbers]
    low, middle, high = torch.stack(rows).T
    places = range(len(middle))
    axes.fill_between(places, low, high, color=color, alpha=0.25, linewidth=0, label="10 to 90 % of neurons")
    axes.plot(places, middle, color=color, marker="o", label="median")
    axes.axhline(chance, color="0.6", linestyle="--", label="all tokens alike")
    axes.locator_params("x", integer=True)
    axes.set_xlabel("layer")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)


def report(memories: Memories, count: int = 2) -> None:
    """Prints the neurons of three layers whose strongest trigger stands out most."""
    for place in sorted({0, len(memories) // 2, len(memories) - 1}):
        layer = memories.layers[place]
        z = layer.z(layer.highest.values)[:, :3].nan_to_num(0.0).mean(1)
        for index in z.topk(count).indices.tolist():
            neuron = memories.neuron(place, index)
            words = ", ".join(word.strip() for word, _ in neuron.promoted[:6])
            print(f"\n{neuron.layer}:{index} promotes {words}")
            for trigger in neuron.triggers[:3]:
                print(f"  z {trigger.z:+.1f}  {' '.join(trigger.marked.split())[:120]}")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/key_value_memories.png", device="cpu")
    parser.add_argument("--model", help="smollm2, a causal language model to download, or a folder with one")
    parser.add_argument("--texts", help="a file with a text on each line")
    parser.add_argument("--count", type=int, default=3000, help="most texts")
    parser.add_argument("--triggers", type=int, default=25, help="texts that are kept for each neuron")
    parser.add_argument("--batch-size", type=int, default=32, help="texts in a forward pass")
    options = parser.parse_args(argv)
    if options.model and not options.texts:
        parser.error("--model needs --texts")
    return options


if __name__ == "__main__":
    main()
