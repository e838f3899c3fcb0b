"""Editing methods compared: one fact at a time, and 1, 10 and 100 facts at once.

    python experiments/mass_editing.py
    python experiments/mass_editing.py --facts 20 --at-once 1 20 --weights 5
    python experiments/mass_editing.py --model gpt2-xl --records counterfact.json --corpus texts.txt

Facts of the small GPT that ships with toumei are changed to other values of the same kind. The script prints
tables of efficacy, paraphrase, neighbourhood, subjects that share a part of the name, and the subject's other
facts. In the figure outputs/mass_editing.png the left side shows the methods over the number of facts. The
right side shows settings of single edits: the large steps of the ROME paper, smaller steps for this network,
and the subject's other continuations held while a value is optimized. A larger weight of what is held keeps
more of the subject's other facts. With another model the facts are CounterFact's, and the settings the
papers'.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from common import basic_parser, language_model
from toumei.models import facts_gpt
from toumei.plots import look, save_figure
from toumei.transformers import (
    CausalTracer,
    EditCase,
    Evaluation,
    RankOneEditor,
    collect_statistics,
    counterfact_cases,
    evaluate_edits,
    world_cases,
)
from toumei.transformers.rome.evaluation import evaluate, known_only

AT_ONCE = ("memit", "emmet", "alphaedit")
LARGE_STEPS: dict[str, Any] = {"steps": 20, "lr": 0.5, "clamp": 4.0}
HELD: dict[str, Any] = {"hold": 20, "steps": 40, "prefixes": ((3, 5),)}
Cases = Callable[..., list[EditCase]]
MEANINGS = {
    "efficacy": "the new fact (efficacy)",
    "paraphrase": "in other words (paraphrase)",
    "neighbourhood": "other subjects keep theirs (neighbourhood)",
    "namesakes": "so do subjects with a similar name",
    "others": "the subject's other facts stay",
}
METRICS = tuple(MEANINGS)


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, tokenizer, texts, cases = loaded(options)
    layer = traced_layer(model, tokenizer, cases(10, 1)) if options.layer is None else options.layer
    statistics = collect_statistics(model, tokenizer, texts, [layer])
    editor = RankOneEditor(model, tokenizer, statistics)
    single = singles(editor, layer, cases(options.facts, options.cases), options)
    together = {
        (method, count): at_once(editor, layer, method, cases(count, options.cases))
        for count in options.at_once
        for method in (*AT_ONCE, "r-rome")
    }
    draw(options.out, together, single, options)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/mass_editing.png", device="cpu")
    parser.add_argument("--facts", type=int, default=100, help="single edits for each weight")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 10, 100], help="facts in one edit")
    parser.add_argument("--weights", type=float, nargs="+", default=[1, 5, 10], help="of what is held")
    parser.add_argument("--cases", type=int, default=0, help="seed that draws the facts and what they become")
    parser.add_argument("--network", help="other weights of the small GPT, from train_facts_gpt.py")
    parser.add_argument("--layer", type=int, help="by default the one that causal traces find")
    parser.add_argument("--texts", type=int, default=2000, help="for the key statistics")
    parser.add_argument("--model", help="a causal language model to download, or a folder with one")
    parser.add_argument("--records", help="a file in CounterFact's format, for --model")
    parser.add_argument("--corpus", help="a file with a text on each line, for the statistics of --model")
    options = parser.parse_args(argv)
    if options.model and not (options.records and options.corpus):
        parser.error("--model needs --records and --corpus")
    return options


def loaded(options: argparse.Namespace) -> tuple[Any, Any, Iterable[str], Cases]:
    """The model, its tokenizer, texts for statistics, and a function that draws cases with a seed."""
    model: Any
    tokenizer: Any
    if options.model is None:
        model, tokenizer, world = facts_gpt(options.network or True)
        texts: Iterable[str] = world.texts(seed=1)
        cases: Cases = partial(world_cases, world)
    else:
        model, tokenizer = language_model(options.model)
        texts = Path(options.corpus).read_text(encoding="utf-8").splitlines()
        records = counterfact_cases(options.records)

        def cases(count: int, seed: int = 0) -> list[EditCase]:
            return random.Random(seed).sample(records, min(count, len(records)))

    return model.to(options.device), tokenizer, islice(texts, options.texts), cases


def traced_layer(model: Any, tokenizer: Any, cases: list[EditCase]) -> int:
    """The layer whose MLP restores most of a corrupted fact at the subject's last token."""
    tracer = CausalTracer(model, tokenizer)
    traces = [tracer.trace(case.request.prompt, case.request.subject, kind="mlp", window=1) for case in cases]
    effects = [trace.scores[trace.subject_range[1] - 1] - trace.low for trace in traces]
    return int(sum(effects[1:], effects[0]).argmax())


def singles(
    editor: RankOneEditor, layer: int, cases: list[EditCase], options: argparse.Namespace
) -> dict[str, Evaluation]:
    """One edit after the other, each reverted before the next, in several settings."""
    settings: dict[str, dict[str, Any]] = {"the paper's": {}}
    if options.model is None:
        settings = {"large steps": LARGE_STEPS, "small steps": {}}
    settings |= {f"held, {weight:g}": {**HELD, "hold_weight": weight} for weight in options.weights}
    print(f"{len(cases)} single edits, r-rome in layer {layer}\n{'settings':>14}{header()}")
    found = {}
    for name, options_of_edit in settings.items():
        found[name] = evaluate_edits(editor, cases, layer=layer, verbose=False, **options_of_edit)
        print(f"{name:>14}{row(found[name])}", flush=True)
    return found


def at_once(editor: RankOneEditor, layer: int, method: str, cases: list[EditCase]) -> Evaluation:
    """All facts in the model at the same time: in one edit, for R-ROME in one edit after the other."""
    cases = known_only(editor.parts, editor.tokenizer, cases)
    requests = [case.request for case in cases]
    if method == "r-rome":
        edits = []
        for request in requests:  # each edit is made in the model with the earlier edits
            edits.append(editor.edit(request.prompt, request.subject, request.target, layer=layer).apply())
    else:
        many = editor.edit_many(requests, layers=[layer], method=method, verbose=False)
        edits = [many.apply()]
    found = evaluate(editor.model, editor.tokenizer, cases)
    for edit in edits:
        edit.revert()
    print(f"{method:>10}{len(cases):4}{row(found)}", flush=True)
    return found


def header() -> str:
    return "".join(f"{metric:>16}" for metric in METRICS)


def row(found: Evaluation) -> str:
    return "".join(f"{found.text(metric):>16}" for metric in METRICS)


def draw(
    path: str,
    together: dict[tuple[str, int], Evaluation],
    single: dict[str, Evaluation],
    options: argparse.Namespace,
) -> None:
    figure = Figure(figsize=(11, 4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    for method in dict.fromkeys(method for method, _ in together):
        scores = [100 * together[method, count].score for count in options.at_once]
        left.plot(options.at_once, scores, marker="o", label=method)
    left.set_xscale("log")
    left.minorticks_off()
    left.set_xticks(options.at_once, [str(count) for count in options.at_once])
    left.set_xlabel("facts in the model at once")
    left.set_ylabel("harmonic mean of efficacy, paraphrase, neighbourhood (%)")
    left.set_title("many facts in the model at once, by method")
    left.legend()
    places = range(len(single))
    for metric in METRICS:
        means = [100 * found.mean(metric) for found in single.values()]
        errors = [100 * found.interval(metric) for found in single.values()]
        width = 2.5 if metric == "others" else 1.2
        right.errorbar(places, means, errors, marker="o", capsize=2, label=MEANINGS[metric], linewidth=width)
    right.set_xticks(list(places), list(single))
    right.set_xlabel("settings; with the weight of the subject's held continuations")
    right.set_ylabel("cases (%), with 95 % confidence interval")
    right.set_ylim(0, 105)
    right.set_title(f"{options.facts} edits by R-ROME, one fact at a time")
    right.legend(loc="lower right")
    save_figure(figure, path)


if __name__ == "__main__":
    main()
