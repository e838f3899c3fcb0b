"""Where a language model keeps a fact, the edit of it, and how several methods edit the facts that it knows.

    python experiments/rome_on_a_real_model.py
    python experiments/rome_on_a_real_model.py --model smollm2 --corpus wikitext.txt --records known_1000.json

With SmolLM2 the fact is that the Eiffel Tower is in Paris. A causal trace shows where the fact is found,
statistics of keys are collected over the corpus (and kept in outputs/), and a rank-one edit moves the tower
to Rome. The script prints the answers to paraphrases and to questions about other places, and texts that the
model writes, before and inside the edit. Then some facts of known_1000.json that the model knows are changed
by R-ROME, one at a time, and by MEMIT, all at once, each with and without the subject's continuations held.
By default the same is done with facts of the small GPT that ships with toumei, offline. The figure is
outputs/rome_on_a_real_model.png.
"""

import argparse
import json
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common import basic_parser, language_model
from toumei.models import facts_gpt
from toumei.plots import look, save_figure, style
from toumei.transformers import (
    CausalTrace,
    CausalTracer,
    EditCase,
    EditRequest,
    Evaluation,
    RankOneEditor,
    collect_statistics,
    evaluate_edits,
    world_cases,
)
from toumei.transformers.model.scoring import score_answers
from toumei.transformers.rome.evaluation import generate

EDIT: dict[str, Any] = {"prefixes": ((3, 5),), "verbose": False}
HELD: dict[str, Any] = {"hold": 10, "hold_weight": 5.0}
METRICS = ("efficacy", "paraphrase", "neighbourhood", "others")
KINDS = ("the edited prompt", "paraphrase", "other subject")

TOWER = EditCase(
    request=EditRequest("{} is located in the city of", "The Eiffel Tower", "Rome"),
    truth="Paris",
    paraphrases=(
        "To see the Eiffel Tower, you have to travel to the city of",
        "Every year millions of people visit the Eiffel Tower in",
        "The Eiffel Tower can be seen from everywhere in",
    ),
    neighbours=(
        ("The Louvre is located in the city of", "Paris"),
        ("The Arc de Triomphe is located in the city of", "Paris"),
        ("The capital of France is", "Paris"),
        ("The Brandenburg Gate is located in the city of", "Berlin"),
    ),
    generation=("The Eiffel Tower", "Tourists who visit the Eiffel Tower can also see"),
)


@dataclass(frozen=True)
class Study:
    """A model, the fact that is edited first, and the facts that methods are compared on.

    Attributes:
        model: The language model.
        tokenizer: Its tokenizer.
        case: The first fact, with paraphrases and neighbours.
        records: Facts; the comparison takes those that the model knows.
        cases: The facts of the comparison, where they are known.
        texts: The corpus for the statistics.
        layers: The layers that MEMIT changes; R-ROME changes the last of them.
    """

    model: Any
    tokenizer: Any
    case: EditCase
    records: list[dict[str, str]]
    cases: list[EditCase]
    texts: Iterable[str]
    layers: list[int]


@dataclass(frozen=True)
class Answer:
    """A question, with the probabilities of the true answer and of the target, before and inside the edit."""

    kind: str
    prompt: str
    truth: tuple[float, float]
    target: tuple[float, float]


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    study = loaded(options)
    request = study.case.request
    tracer = CausalTracer(study.model, study.tokenizer)
    trace = tracer.trace(request.text, request.subject, samples=options.samples, verbose=True)
    print(trace, found_at(trace), sep="\n")
    cache = options.statistics or Path(options.out).with_name(
        f"keys_of_{Path(options.model or 'facts_gpt').name}.safetensors"
    )
    Path(cache).parent.mkdir(parents=True, exist_ok=True)
    statistics = collect_statistics(
        study.model, study.tokenizer, study.texts, study.layers, enough=options.enough, checkpoint=cache
    )
    print(statistics)
    editor = RankOneEditor(study.model, study.tokenizer, statistics)
    answers = before_and_after(editor, study, options)
    cases = study.cases or known_cases(editor, study.records, options.facts)
    found = compared(editor, cases, study.layers)
    draw(options.out, trace, study.case, answers, found)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = basic_parser(__doc__, "outputs/rome_on_a_real_model.png", device="cpu")
    parser.add_argument(
        "--model", help="smollm2, or a causal language model to download, or a folder with one"
    )
    parser.add_argument("--corpus", help="a file with a text on each line, for --model")
    parser.add_argument("--records", help="facts in the format of known_1000.json, for --model")
    parser.add_argument("--facts", type=int, default=2, help="how many facts are compared")
    parser.add_argument("--searched", type=int, default=100, help="records in which facts are looked for")
    parser.add_argument("--samples", type=int, default=4, help="draws of noise in the trace")
    parser.add_argument("--enough", type=float, default=4.0, help="keys for each entry of a key")
    parser.add_argument("--statistics", help="where statistics are kept; by default beside the figure")
    parser.add_argument("--layers", type=int, nargs="+", help="that MEMIT changes; R-ROME the last of them")
    parser.add_argument("--tokens", type=int, default=20, help="length of the generated texts")
    options: argparse.Namespace = parser.parse_args(argv)
    if options.model and not (options.corpus and options.records):
        parser.error("--model needs --corpus (such as WikiText-2) and --records (known_1000.json of ROME)")
    return options


def loaded(options: argparse.Namespace) -> Study:
    if options.model is None:
        model, tokenizer, world = facts_gpt()
        first, *cases = world_cases(world, options.facts + 1)
        texts: Iterable[str] = islice(world.texts(seed=1), 2000)
        layers = options.layers or [2]
        return Study(model.to(options.device), tokenizer, first, [], cases, texts, layers)
    real, tokenizer = language_model(options.model)
    lines = Path(options.corpus).read_text(encoding="utf-8").splitlines()
    texts = [line.strip() for line in lines if len(line.split()) > 20]
    records = json.loads(Path(options.records).read_text(encoding="utf-8"))[: options.searched]
    layers = options.layers or [3, 4, 5]
    return Study(real.to(options.device), tokenizer, TOWER, records, [], texts, layers)


# ---------------------------------------------------------------- facts


def found_at(trace: CausalTrace) -> str:
    """The place among the subject's tokens that restores most of the fact, in words."""
    first, end = trace.subject_range
    effects = trace.effects[first:end]
    token, layer = divmod(int(effects.argmax()), effects.shape[1])
    return f"most comes back at {trace.tokens[first + token]!r} after layer {layer}: {effects.max():+.2f}"


def known_cases(editor: RankOneEditor, records: list[dict[str, str]], count: int) -> list[EditCase]:
    """Edits of facts of known_1000.json that the model knows, to values of other facts of the same relation.

    The paraphrases are the prompt after another sentence, the neighbours known facts of the same relation,
    the other facts what the model itself says next about the subject.
    """
    records = [one for one in records if one["prompt"].count(one["subject"]) == 1]
    scores = score_answers(
        editor.parts, editor.tokenizer, [(one["prompt"], one["attribute"]) for one in records]
    )
    known = [one for one, score in zip(records, scores, strict=False) if score.likeliest]
    print(f"the model knows {len(known)} of the first {len(scores)} facts")
    draw = random.Random(0)
    cases: list[Any] = []
    for one in draw.sample(known, len(known)):
        alike = [other for other in known if other["relation_id"] == one["relation_id"] and other != one]
        targets = sorted({other["attribute"] for other in alike} - {one["attribute"]})
        if targets and len(cases) < count:
            cases.append(known_case(editor, one, draw.choice(targets), alike))
    return cases


def known_case(
    editor: RankOneEditor, record: dict[str, str], target: str, alike: list[dict[str, str]]
) -> EditCase:
    subject = record["subject"]
    beginnings = [f"{subject} {words}" for words in ("is a", "was the", "has been", "and", ", which")]
    said = [(beginning, likeliest(editor, beginning)) for beginning in beginnings]
    return EditCase(
        request=EditRequest(record["prompt"].replace(subject, "{}"), subject, target),
        truth=record["attribute"],
        paraphrases=tuple(
            f"{sentence} {record['prompt']}"
            for sentence in ("It rained for the whole day.", "The book was published last year.")
        ),
        neighbours=tuple((other["prompt"], other["attribute"]) for other in alike[:8]),
        others=tuple((beginning, word) for beginning, word in said if word.strip()),
    )


def likeliest(editor: RankOneEditor, prompt: str) -> str:
    """The token that the model says next."""
    tokens = editor.tokenizer(prompt, return_tensors="pt").to(editor.parts.device)
    return str(editor.tokenizer.decode(editor.model(**tokens).logits[0, -1].argmax()))


# ---------------------------------------------------------------- edits


def before_and_after(editor: RankOneEditor, study: Study, options: argparse.Namespace) -> list[Answer]:
    """The answers to the edited prompt, to paraphrases and to questions about neighbours."""
    case, request = study.case, study.case.request
    edit = editor.edit(request.prompt, request.subject, request.target, layer=study.layers[-1], **EDIT)
    asked = [(KINDS[0], request.text, case.truth)]
    asked += [(KINDS[1], prompt, case.truth) for prompt in case.paraphrases]
    asked += [(KINDS[2], prompt, truth) for prompt, truth in case.neighbours[:4]]
    questions = [(prompt, answer) for _, prompt, truth in asked for answer in (truth, request.target)]
    scores, texts = [], []
    for active in (False, True):
        if active:
            edit.apply()
        scores.append(
            [score.probability for score in score_answers(editor.parts, editor.tokenizer, questions)]
        )
        texts.append(generate(editor.parts, editor.tokenizer, case.generation, options.tokens))
    edit.revert()
    print(f"\n{edit}\n{'probability of':60}{case.truth:>18}{request.target:>18}")
    rows, (before, inside) = [], scores
    for number, (kind, prompt, truth) in enumerate(asked):
        first, second = ((before[2 * number + i], inside[2 * number + i]) for i in (0, 1))
        rows.append(Answer(kind, f"{prompt} ({truth})" if truth != case.truth else prompt, first, second))
        print(f"{prompt:60}{first[0]:>9.2f} -> {first[1]:.2f}{second[0]:>10.2f} -> {second[1]:.2f}")
    for title, written in zip(("before", "inside the edit"), texts, strict=True):
        print(f"{title}:", *written, sep="\n  ")
    return rows


def compared(editor: RankOneEditor, cases: list[EditCase], layers: list[int]) -> dict[str, Evaluation]:
    """R-ROME one fact at a time and MEMIT for all at once, with and without held continuations."""
    print(f"\n{len(cases)} facts{'':14}" + "".join(f"{metric:>18}" for metric in METRICS))
    found = {}
    for method in ("r-rome", "memit"):
        for name, held in ((method, {}), (f"{method}, held", HELD)):
            where: dict[str, Any] = {"layer": layers[-1]}
            if method == "memit":
                where = {"layers": layers, "together": True}
            found[name] = evaluate_edits(editor, cases, method=method, **where, **EDIT, **held)
            print(f"{name:21}" + "".join(f"{found[name].text(metric):>18}" for metric in METRICS), flush=True)
    return found


# ---------------------------------------------------------------- figure


def draw(
    path: str,
    trace: CausalTrace,
    case: EditCase,
    answers: list[Answer],
    found: dict[str, Evaluation],
) -> None:
    figure = Figure(figsize=(13, 8), dpi=110, layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.15, 1))
    trace.plot(figure.add_subplot(grid[0, 0]))
    draw_methods(figure.add_subplot(grid[1, 0]), found)
    draw_answers(figure.add_subplot(grid[:, 1]), case, answers)
    figure.suptitle(f"{case.request.text} {case.truth}: traced and edited")
    save_figure(figure, path)


def draw_answers(axes: Axes, case: EditCase, answers: list[Answer]) -> None:
    """For each question an arrow from the probability before the edit to that inside it."""
    names = (f"the true answer ({case.truth})", case.request.target)
    for place, found in enumerate(answers):
        pairs = ((found.truth, style.BLUE, names[0], -0.1), (found.target, style.RED, names[1], 0.2))
        for (before, after), color, name, shift in pairs:
            y = place + shift
            if abs(after - before) > 0.02:
                axes.annotate("", (after, y), (before, y), arrowprops={"arrowstyle": "->", "color": color})
            axes.plot(before, y, "o", color="white", markeredgecolor=color)
            axes.plot(after, y, "o", color=color, label=name if not place else None)
        axes.text(0.0, place - 0.36, f"{found.kind}: {found.prompt} ...", fontsize=style.LABEL, va="center")
    axes.plot([], [], "o", color="white", markeredgecolor="black", label="before the edit")
    axes.set(xlim=(-0.03, 1.03), ylim=(len(answers) - 0.5, -0.7), yticks=[], xlabel="probability")
    axes.set_title(f"{case.request.subject}: {case.truth} edited to {case.request.target}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3)


def draw_methods(axes: Axes, found: dict[str, Evaluation]) -> None:
    width = 0.8 / len(found)
    for number, (name, evaluation) in enumerate(found.items()):
        places = [place + (number - (len(found) - 1) / 2) * width for place in range(len(METRICS))]
        means = [100 * evaluation.mean(metric) for metric in METRICS]
        axes.bar(places, means, width, label=name, color=style.COLORS[number])
    count = len(next(iter(next(iter(found.values())).values.values())))
    axes.set_xticks(range(len(METRICS)), ["new answer", "after other text", "same relation", "same subject"])
    axes.set(ylim=(0, 105), ylabel="questions as wanted (%)")
    axes.set_title(f"{count} known facts changed, by each method")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4)


if __name__ == "__main__":
    main()
