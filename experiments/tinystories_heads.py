"""The attention of all heads of a small model, and what the loss gains when each of them is ablated.

    python experiments/tinystories_heads.py
    python experiments/tinystories_heads.py --model ../shared/realdata/stories260k \
        --texts ../shared/realdata/text/tinystories_1000.json --count 100 --tokens 128

Writes outputs/tinystories_heads.html, a page with the attention of all heads, and
outputs/tinystories_heads.png: the rise of the loss after zero and after mean ablation of each head, and the
heads that matter most with intervals over the texts. By default the model is the small GPT that ships with
toumei and the texts are facts of its world.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from common import basic_parser, language_model
from toumei.models import facts_gpt
from toumei.plots import attention_page, look, save_figure
from toumei.transformers import HeadAblation, HookedModel, head_ablation

STRONGEST = 8


@look()
def main(argv: Sequence[str] | None = None) -> HeadAblation:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, texts = loaded(options)
    rows = [model.to_tokens(text)[0, : options.tokens].tolist() for text in texts]
    out = Path(options.out)
    page_of(model, rows[: options.shown], out.with_suffix(".html"))
    zero, mean = (head_ablation(model, rows, kind, verbose=True) for kind in ("zero", "mean"))
    print(zero, mean, sep="\n\n")
    figure = Figure(figsize=(12, 2.5 + 0.25 * len(zero.layer_names)), dpi=130, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    zero.plot(left)
    mean.plot(middle)
    draw_intervals(right, zero)
    save_figure(figure, out)
    print(f"{out} and {out.with_suffix('.html')}, {time.perf_counter() - started:.0f} s")
    return zero


def page_of(model: HookedModel, rows: Sequence[Sequence[int]], path: Path) -> None:
    """Writes the page with the attention of all heads to some texts."""
    weights, tokens = [], []
    for row in rows:
        _, cache = model.run_with_cache(list(row), "pattern")
        weights.append([cache["pattern", layer].detach() for layer in sorted(model.points.attentions)])
        tokens.append(model.to_str_tokens(list(row)))
    longest = max(map(len, rows))
    layers = [
        torch.cat([padded(one, longest) for one in of_layer]) for of_layer in zip(*weights, strict=True)
    ]
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    texts = [[*one, *[""] * (longest - len(one))] for one in tokens]
    attention_page(layers, texts, mask=mask, title="Attention of all heads").save(path)


def padded(weights: Tensor, longest: int) -> Tensor:
    """Attention weights (1, heads, tokens, tokens) with room for the longest text."""
    missing = longest - weights.shape[-1]
    return torch.nn.functional.pad(weights, (0, missing, 0, missing))


def draw_intervals(ax, result: HeadAblation) -> None:  # type: ignore[no-untyped-def]
    """The strongest heads with their confidence intervals."""
    names = [name for name, _ in result.top(STRONGEST)][::-1]
    places = [(result.layer_names.index(name.split(".")[0]), int(name.split(".")[1])) for name in names]
    values = torch.stack([result.values[place] for place in places])
    intervals = torch.stack([result.intervals[place] for place in places])
    errors = (intervals - values[:, None]).abs().T.nan_to_num()
    ax.barh(names, values.tolist(), xerr=errors.numpy(), color="0.7", error_kw={"linewidth": 1})
    ax.set(xlabel="rise of the loss (nats)", ylabel="head")
    ax.set_title(f"{result.kind} ablation, with {result.confidence:.0%} intervals over texts")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/tinystories_heads.png", device="cpu")
    parser.add_argument("--model", help="a causal language model to download, or a folder with one")
    parser.add_argument(
        "--texts", help="with --model: a JSON list of texts, or a file with a text on each line"
    )
    parser.add_argument("--count", type=int, default=100, help="texts to take the loss of")
    parser.add_argument("--tokens", type=int, default=128, help="most tokens of a text")
    parser.add_argument("--shown", type=int, default=3, help="texts on the page of attention")
    options = parser.parse_args(argv)
    if options.model and not options.texts:
        parser.error("--model needs --texts")
    return options


def loaded(options: argparse.Namespace) -> tuple[HookedModel, list[str]]:
    """The model and the texts."""
    if options.model is None:
        model, tokenizer, world = facts_gpt()
        texts = [f"{fact.text} {fact.target}" for fact in world.facts]
        step = max(1, len(texts) // options.count)
        return HookedModel(model.to(options.device), tokenizer), texts[::step][: options.count]
    model, tokenizer = language_model(options.model)
    written = Path(options.texts).read_text(encoding="utf-8")
    texts = json.loads(written) if options.texts.endswith(".json") else written.splitlines()
    chosen = [text for text in texts if text.strip()][: options.count]
    return HookedModel(model.to(options.device).eval(), tokenizer), chosen


if __name__ == "__main__":
    main()
