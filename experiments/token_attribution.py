"""Which words of a prompt decide the answer: the name or the question, by several methods.

    python experiments/token_attribution.py
    python experiments/token_attribution.py --model gpt2 --text "The Eiffel Tower is in" --target " Paris"

Writes outputs/token_attribution.png and outputs/token_attribution.html. By default the network is the small
GPT-2 that ships with toumei, which knows the facts of an invented world. "Why Rendal and not Velmar, another
town?" asks for the name; "why Rendal and not Caldonia, her country?" asks for the other words of the prompt.
The bars show which share of the contributions the name has, over many facts.
"""

import argparse
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from common import basic_parser, language_model
from toumei.attribution import (
    Attribution,
    DeepLift,
    ExactShapley,
    InputXGradient,
    IntegratedGradients,
    Method,
    token_attribution,
)
from toumei.models import facts_gpt
from toumei.plots import diverging_map, look, page, save_figure, save_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS: dict[str, type[Method]] = {
    "input x gradient": InputXGradient,
    "integrated gradients": IntegratedGradients,
    "DeepLift": DeepLift,
    "Shapley values": ExactShapley,
}
MOST_TOKENS = 10  # 2^10 coalitions for exact Shapley values


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    if options.model == "facts":
        rows, shares = facts(options)
    else:
        rows, shares = own_text(options), {}
    draw(rows, shares, Path(options.out))
    page = write_page(rows, Path(options.out).with_suffix(".html"))
    print(f"{len(rows)} questions in {options.out} and {page}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/token_attribution.png")
    parser.add_argument("--model", default="facts", help="facts, or a causal language model of Hugging Face")
    parser.add_argument("--text", help="the prompt for another model")
    parser.add_argument("--target", help="the token that comes next; what the model says by default")
    parser.add_argument("--against", help="another token")
    parser.add_argument("--facts", type=int, default=24, help="facts to take the mean over")
    return parser.parse_args(argv)


Rows = list[tuple[str, dict[str, Attribution]]]


def facts(options: argparse.Namespace) -> tuple[Rows, dict[str, dict[str, list[float]]]]:
    """Attributions of the first fact, and for each question and method the shares of names of all facts."""
    model, tokenizer, world = facts_gpt()
    short = [fact for fact in world.facts if len(tokenizer.tokenize(fact.text)) <= MOST_TOKENS]
    step = max(1, len(short) // options.facts)
    rows: Rows = []
    shares: dict[str, dict[str, list[float]]] = {}
    for fact in short[::step][: options.facts]:
        questions = {
            "true of someone else": world.alternatives(fact)[0],
            "true of the same one": world.others(fact)[0].target,
        }
        for question, against in questions.items():
            results = attributions(model, tokenizer, fact.text, fact.target, against)
            for name, result in results.items():
                own = on_name(result, fact.subject.split())
                shares.setdefault(question, {}).setdefault(name, []).append(own)
            if len(rows) < len(questions):
                rows.append((f"why {fact.target} and not {against}, which is {question}?", results))
    return rows, shares


def own_text(options: argparse.Namespace) -> Rows:
    if options.text is None:
        raise SystemExit("say with --text what the model should go on with")
    model, tokenizer = language_model(options.model)
    results = attributions(model.eval(), tokenizer, options.text, options.target, options.against)
    names = next(iter(results.values())).names or ()
    return [(f"why {names[0]}?", results)]


def attributions(
    model: Any, tokenizer: Any, text: str, target: str | None, against: str | None
) -> dict[str, Attribution]:
    many = len(tokenizer.tokenize(text)) > MOST_TOKENS
    return {
        name: token_attribution(model, tokenizer, text, target, against, method=method(model))
        for name, method in METHODS.items()
        if method is not ExactShapley or not many
    }


def on_name(result: Attribution, name: Sequence[str]) -> float:
    """Which share of the contributions that speak for the target is that of a name's words."""
    positive = of_words(result).clamp(min=0)
    named = torch.tensor([word in name for word in words_of(result)])
    return float(positive[named].sum() / positive.sum())


def of_words(result: Attribution) -> Tensor:
    assert isinstance(result.values, Tensor)
    return result.values[0]


def words_of(result: Attribution) -> list[str]:
    assert result.tokens is not None
    return [token.strip() for token in result.tokens[0]]


def draw(rows: Rows, shares: dict[str, dict[str, list[float]]], path: Path) -> None:
    from matplotlib import pyplot

    count = len(rows) + bool(shares)
    figure, axes = pyplot.subplots(count, 1, figsize=(9, 2.3 * count), layout="constrained", squeeze=False)
    words = (
        "contributions to the log-probability: orange for the answer, blue against it; each row has its scale"
    )
    figure.suptitle(words)
    for ax, (title, results) in zip(axes[:, 0], rows, strict=False):
        draw_words(ax, title, results)
    if shares:
        draw_shares(axes[-1, 0], shares)
    figure.set_dpi(120)
    save_figure(figure, path)
    pyplot.close(figure)


def draw_words(ax: "Axes", title: str, results: dict[str, Attribution]) -> None:
    """A row for each method and a column for each word, orange for the target and blue against it."""
    values = torch.stack([of_words(result) for result in results.values()])
    scaled = values / values.abs().amax(1, keepdim=True).clamp(min=1e-12)
    ax.imshow(scaled.numpy(), cmap=diverging_map(), vmin=-1.5, vmax=1.5, aspect="auto")
    words = words_of(next(iter(results.values())))
    for row, own in enumerate(values.tolist()):
        for column, value in enumerate(own):
            ax.text(column, row, f"{value:.1f}", ha="center", va="center")
    ax.set_xticks(range(len(words)), words)
    ax.set_yticks(range(len(results)), list(results))
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.set_title(title, fontweight="bold")


def draw_shares(ax: "Axes", shares: dict[str, dict[str, list[float]]]) -> None:
    for index, (question, by_method) in enumerate(shares.items()):
        means = [sum(own) / len(own) for own in by_method.values()]
        places = [place + (index - 0.5) * 0.4 for place in range(len(means))]
        bars = ax.bar(places, means, 0.38, label=f"and not what is {question}")
        ax.bar_label(bars, [f"{mean:.0%}" for mean in means])
    count = len(next(iter(by_method.values())))
    ax.set_xticks(range(len(means)), list(by_method))
    ax.set_ylim(0, 1.1)
    ax.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    ax.set_title(f"share of what speaks for the answer that the name has, mean of {count} facts")
    ax.legend(title="why this answer ...")
    ax.spines[["top", "right"]].set_visible(False)


def write_page(rows: Rows, path: Path) -> Path:
    pieces = []
    for title, results in rows:
        pieces.append(f"<h2>{escape(title)}</h2>")
        pieces += [f"<h3>{name}</h3>{result._repr_html_()}" for name, result in results.items()]
    summary = "Red speaks for the answer, blue against it; numbers show under the pointer."
    save_page(page("Token attribution", "\n".join(pieces), summary=summary), path)
    return path


if __name__ == "__main__":
    main()
