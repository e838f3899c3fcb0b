"""One fact rewritten: the predictions before and after the edit, layer by layer, and what else changed.

    python experiments/rank_one_editing.py
    python experiments/rank_one_editing.py --fact 40 --hold 20
    python experiments/rank_one_editing.py --model gpt2-xl --prompt "{} is located in the country of" \
        --subject "Karlsruhe Institute of Technology" --target France --truth Germany --texts corpus.txt

By default a fact of the small GPT that ships with toumei is changed to another value of the same kind. The
picture outputs/rank_one_editing.png shows the predictions after each layer (logit lens) without and with the
edit. The edit is saved in outputs/edit.safetensors.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from common import basic_parser, language_model
from toumei.models import facts_gpt
from toumei.plots import look, save_figure, style
from toumei.transformers import (
    CausalTracer,
    EditCase,
    EditRequest,
    LogitLens,
    RankOneEditor,
    collect_statistics,
    logit_lens,
)
from toumei.transformers.rome.evaluation import evaluate, generate

HELD: dict[str, Any] = {"steps": 40, "prefixes": ((3, 5),), "hold_weight": 5.0}


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, tokenizer, case, texts = loaded(options)
    request = case.request
    layer = traced_layer(model, tokenizer, request) if options.layer is None else options.layer
    statistics = None if texts is None else collect_statistics(model, tokenizer, texts, [layer])
    editor = RankOneEditor(model, tokenizer, statistics)
    settings = {**(HELD if options.hold else {}), **({"steps": options.steps} if options.steps else {})}
    edit = editor.edit(
        request.prompt,
        request.subject,
        request.target,
        layer=layer,
        method=options.method,
        hold=options.hold,
        **settings,
    )
    lenses: list[tuple[str, LogitLens]] = []
    for title in ("before", "inside the edit"):
        if title != "before":
            edit.apply()
        print(f"\n{title}: {edit}")
        for answer in (case.truth, request.target):
            lenses.append((title, logit_lens(model, tokenizer, request.text, answer)))
            print(f"  {lenses[-1][1]}")
        for text in generate(editor.parts, tokenizer, case.generation or (request.text,), options.tokens):
            print(f"  {text}")
        if case.others:
            print(f"  {evaluate(model, tokenizer, [case])}")
    edit.revert()
    edit.save(Path(options.out).with_name("edit.safetensors"))
    draw(options.out, lenses, request)
    print(f"\n{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def traced_layer(model: Any, tokenizer: Any, request: EditRequest) -> int:
    """The layer whose window of MLPs restores most of the fact, as `edit(layer="trace")` finds it.

    It is found first, so that statistics are collected for this layer only.
    """
    tracer = CausalTracer(model, tokenizer)
    window = max(1, tracer.parts.layers // 5)
    return tracer.trace(request.prompt, request.subject, kind="mlp", window=window).best_layer


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/rank_one_editing.png", device="cpu")
    parser.add_argument("--model", help="a causal language model to download, or a folder with one")
    parser.add_argument("--prompt", help="a template with {} for the subject")
    parser.add_argument("--subject")
    parser.add_argument("--target", help="the new answer")
    parser.add_argument("--truth", default="", help="the old answer, for the picture")
    parser.add_argument("--texts", help="a file with a text on each line, for the key statistics")
    parser.add_argument("--fact", type=int, default=4, help="which fact of the model that ships with toumei")
    parser.add_argument("--layer", type=int, help="by default the one that a causal trace finds")
    parser.add_argument("--method", default="r-rome")
    parser.add_argument("--hold", type=int, default=0, help="continuations of the subject to hold")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--tokens", type=int, default=12, help="length of the generated texts")
    return parser.parse_args(argv)


def loaded(options: argparse.Namespace) -> tuple[Any, Any, EditCase, Any]:
    if options.model is None:
        model, tokenizer, world = facts_gpt()
        fact = world.facts[options.fact]
        request = EditRequest(fact.prompt, fact.subject, options.target or world.alternatives(fact)[0])
        others = tuple((other.text, other.target) for other in world.others(fact))
        neighbours = tuple((prompt, fact.target) for prompt in fact.neighbourhood)
        case = EditCase(
            request=request,
            truth=fact.target,
            paraphrases=fact.paraphrases,
            neighbours=neighbours,
            others=others,
            generation=fact.generation,
        )
        return model.to(options.device), tokenizer, case, islice(world.texts(seed=1), 1000)
    if None in (options.prompt, options.subject, options.target):
        raise SystemExit("--model needs --prompt, --subject and --target")
    model, tokenizer = language_model(options.model)
    request = EditRequest(options.prompt, options.subject, options.target)
    case = EditCase(request, options.truth or options.target)
    return model.to(options.device), tokenizer, case, options.texts


def draw(path: str, lenses: Sequence[tuple[str, LogitLens]], request: EditRequest) -> None:
    figure = Figure(figsize=(11, 3.6), dpi=120, layout="constrained")
    for column, axes in enumerate(figure.subplots(1, 2, sharey=True)):
        pair = lenses[2 * column : 2 * column + 2]
        for _, found in pair:
            layers = range(len(found.probabilities))
            axes.plot(layers, found.probabilities, marker="o", label=found.answer.strip())
        top = pair[0][1]
        for layer, (words, probability) in enumerate(zip(top.top, top.top_probabilities[:, 0], strict=True)):
            axes.annotate(
                words[0],
                (layer, float(probability)),
                (0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=style.LABEL,
            )
        axes.plot(
            range(len(top.top)), top.top_probabilities[:, 0], color=style.GRAY, ls=":", label="likeliest word"
        )
        axes.set_title(pair[0][0])
        axes.set_xlabel("read out after layer")
        axes.set_ylim(0, 1.12)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.axes[0].set_ylabel("probability")
    figure.suptitle(f"{request.text} ...")
    save_figure(figure, path)


if __name__ == "__main__":
    main()
