"""Scores of edits: whether the new fact is predicted, and which other predictions changed.

Efficacy, paraphrase and neighbourhood scores, their magnitudes and their harmonic mean are those of
CounterFact (Meng et al., 2022, sec. 3.3 and app. C), and so are generation entropy and reference score.
CounterFact does not measure changes of the subject's other facts, nor of subjects with a similar name;
`others` and `namesakes` do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ....core.checks import checked
from ....core.content import content_of_model
from ....core.errors import ArgumentError
from ....core.parallel import sweep
from ....core.serialization import Saved
from ....core.summaries import counted
from ....core.tensor_specs import specs
from ....core.threads import alone
from ....plots import style
from ....plots.style import drawing
from ...model.families import Anatomy, anatomy
from ...model.scoring import AnswerScore, score_answers
from ..editing.editor import RankOneEditor
from ..tracing.averages import mean_and_half_width
from .cases import EditCase, Questions
from .generation import entropy, fitted_vectorizer, generate, reference_score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from sklearn.feature_extraction.text import TfidfVectorizer

METRICS = (
    "efficacy",
    "efficacy_magnitude",
    "paraphrase",
    "paraphrase_magnitude",
    "neighbourhood",
    "neighbourhood_magnitude",
    "namesakes",
    "others",
    "entropy",
    "reference",
)
_SHOWN = ("efficacy", "paraphrase", "neighbourhood", "namesakes", "others")


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation(Saved):
    """The scores of edits, case by case.

    Attributes:
        values: For each metric of `METRICS` a number for each case, NaN where it was not measured. Efficacy,
            paraphrase, neighbourhood, namesakes and others are shares from 0 to 1, magnitudes are differences
            of probabilities. Entropy is in bits, the reference score is a cosine (both without CounterFact's
            factor of 100).

    Example:
        >>> Evaluation({"efficacy": torch.tensor([1.0, 1.0, 0.0, 1.0])})
        Evaluation(4 cases: efficacy 75.0 +- 49.0 %)
    """

    values: Mapping[str, Tensor]

    _specs = specs(values="cases")

    @checked
    def mean(self, metric: str) -> float:
        """Returns the mean over the cases in which a metric was measured, NaN if there are none.

        Raises:
            ArgumentError: There is no such metric.
        """
        return float(self._measured(metric).mean())

    @checked
    def interval(self, metric: str) -> float:
        """Returns half the width of the mean's 95 % confidence interval, 1.96 standard errors."""
        return mean_and_half_width(self._measured(metric))[1]

    @property
    def score(self) -> float:
        """The harmonic mean of the means of efficacy, paraphrase and neighbourhood."""
        means = [self.mean(metric) for metric in ("efficacy", "paraphrase", "neighbourhood")]
        return 0.0 if 0 in means else 3 / sum(1 / mean for mean in means)

    @checked
    def table(self) -> str:
        """Returns a line for each metric that was measured: the mean and its 95 % confidence interval."""
        return "\n".join(f"{metric:24}{self.text(metric):>16}" for metric in self._present())

    @checked
    def text(self, metric: str) -> str:
        """Returns the mean of a metric as text, with its interval for several cases; shares in percent."""
        scale, digits, unit = (100, 1, " %") if metric in _SHOWN else (1, 3, "")
        mean = f"{scale * self.mean(metric):.{digits}f}"
        if len(self._measured(metric)) > 1:
            mean += f" +- {scale * self.interval(metric):.{digits}f}"
        return mean + unit

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with a bar for each share, and its confidence interval."""
        shown = [metric for metric in _SHOWN if metric in self._present()]
        heights = [100 * self.mean(metric) for metric in shown]
        errors = [100 * self.interval(metric) for metric in shown]
        with drawing(ax) as ax:
            ax.bar(shown, heights, color=style.BLUE)
            ax.errorbar(shown, heights, errors, fmt="none", color="black")
            ax.set_ylabel("cases (%), with 95 % confidence interval")
            ax.set_ylim(0, 105)
            ax.set_title("Questions answered as wanted after edits")
        return ax

    def _measured(self, metric: str) -> Tensor:
        if metric not in self.values:
            raise ArgumentError(f"no metric {metric!r}: there are {', '.join(self.values)}")
        return self.values[metric][~self.values[metric].isnan()]

    def _present(self) -> list[str]:
        return [metric for metric in self.values if len(self._measured(metric))]

    def __repr__(self) -> str:
        count = len(next(iter(self.values.values()), ()))
        shown = [f"{metric} {self.text(metric)}" for metric in _SHOWN if metric in self._present()]
        return f"Evaluation({counted(count, 'case')}: {', '.join(shown)})"


@checked
def evaluate(
    model: nn.Module,
    tokenizer: Any,
    cases: Sequence[EditCase],
    *,
    batch_size: int = 64,
    generate_tokens: int = 0,
    vectorizer: "TfidfVectorizer | None" = None,
    seed: int = 0,
) -> Evaluation:
    """Returns the scores of a model on some cases.

    Args:
        model: A causal language model with the edits applied.
        tokenizer: Its tokenizer.
        cases: The edits and their test prompts.
        batch_size: How many texts run through the model at once.
        generate_tokens: The length of the texts that are generated for entropy and reference score
            (CounterFact: 100); with 0 these two are left out.
        vectorizer: The vectorizer for the reference score; by default it is fitted on all references of these
            cases, see `fitted_vectorizer`.
        seed: Seed of the generated texts.

    Raises:
        ArgumentError: There are no cases.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import world_cases
        >>> model, tokenizer, world = facts_gpt()
        >>> evaluate(model, tokenizer, world_cases(world, 3)).mean("efficacy")  # nothing is edited
        0.0
    """
    if not cases:
        raise ArgumentError("expected cases to evaluate, got none")
    parts = anatomy(model)
    questions, plan = _questions(cases)
    answers = score_answers(parts, tokenizer, questions, batch_size)
    values = {metric: torch.full((len(cases),), float("nan")) for metric in METRICS}
    for number, slots in enumerate(plan):
        for metric, value in _scores({kind: [answers[i] for i in found] for kind, found in slots.items()}):
            values[metric][number] = value
    if generate_tokens:
        references = [text for case in cases for text in case.references]
        if vectorizer is None and references:
            vectorizer = fitted_vectorizer(references)
        for number, case in enumerate(cases):
            texts = generate(parts, tokenizer, case.generation, generate_tokens, seed)
            if texts:
                values["entropy"][number] = sum(map(entropy, texts)) / len(texts)
            if texts and case.references and vectorizer is not None:
                values["reference"][number] = reference_score(texts, case.references, vectorizer)
    return Evaluation(values)


@checked
def evaluate_edits(
    editor: RankOneEditor,
    cases: Sequence[EditCase],
    *,
    together: bool = False,
    batch_size: int = 64,
    generate_tokens: int = 0,
    jobs: int = 1,
    folder: str | Path | None = None,
    verbose: bool = True,
    **options: Any,
) -> Evaluation:
    """Returns the scores of the edits of an editor: each alone in the model, or all in one edit.

    Of the other facts and namesakes only those count that the model knows before any edit. Ctrl-C ends it.

    Args:
        editor: The editor that makes the edits.
        cases: The edits and their test prompts.
        together: Write all facts in one edit.
        batch_size: How many texts run through the model at once.
        generate_tokens: As in `evaluate`.
        jobs: How many edits are made at once, in processes or on a cluster; see `toumei.core.sweep`. Any
            number gives the same scores.
        folder: Where the scores of each finished edit are kept, so that a killed run goes on where it was.
        verbose: Show a progress bar.
        **options: Arguments of the editor's `edit`, or of `edit_many`.

    Raises:
        ArgumentError: Jobs or a folder for facts that are written together.

    Example:
        >>> from itertools import islice
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import RankOneEditor, collect_statistics, world_cases
        >>> model, tokenizer, world = facts_gpt()
        >>> texts = islice(world.texts(seed=0), 100)
        >>> statistics = collect_statistics(model, tokenizer, texts, [2], verbose=False)
        >>> editor = RankOneEditor(model, tokenizer, statistics)
        >>> found = evaluate_edits(editor, world_cases(world, 1), layer=2, verbose=False)
        >>> found.mean("efficacy")
        1.0
    """
    if together and (jobs != 1 or folder is not None):
        raise ArgumentError(
            "facts that are written together are one edit: jobs and folder are for single ones"
        )
    cases = known_only(editor.parts, editor.tokenizer, cases, batch_size)
    references = [text for case in cases for text in case.references]
    vectorizer = fitted_vectorizer(references) if generate_tokens and references else None

    task = _EditTask(editor, batch_size, generate_tokens, vectorizer, options)
    with alone(editor.parts.model):
        if together:
            with editor._many([case.request for case in cases], False, verbose=verbose, **options):
                return task.measured(cases)
        found = sweep(task, cases, jobs=jobs, folder=folder, verbose=verbose)
    return Evaluation({metric: torch.cat([each.values[metric] for each in found]) for metric in METRICS})


@dataclass(frozen=True)
class _EditTask:
    """The function of a sweep over edits; the attributes are arguments of `evaluate_edits`."""

    editor: RankOneEditor
    batch_size: int
    generate_tokens: int
    vectorizer: "TfidfVectorizer | None"
    options: dict[str, Any]

    @property
    def sweep_content(self) -> list[Any]:
        """All that the scores of an edit depend on beside its case."""
        statistics = self.editor.statistics
        keys = None if statistics is None else (statistics.corpus, sorted(statistics.moments))
        editor = [self.editor.seed, self.editor.batch_size, self.editor._given, keys]
        model = content_of_model(self.editor.parts.model)
        return [model, editor, self.batch_size, self.generate_tokens, self.vectorizer, self.options]

    def __call__(self, case: EditCase) -> Evaluation:
        """Returns the scores of one edit.

        Raises:
            KeyboardInterrupt: The optimization, which held it back.
        """
        edit = self.editor._one(case.request, False, **self.options)  # the scores say whether it took
        if edit.interrupted:
            raise KeyboardInterrupt
        with edit:
            return self.measured([case])

    def measured(self, cases: Sequence[EditCase]) -> Evaluation:
        """Returns the scores of the model on some cases."""
        return evaluate(
            self.editor.model,
            self.editor.tokenizer,
            cases,
            batch_size=self.batch_size,
            generate_tokens=self.generate_tokens,
            vectorizer=self.vectorizer,
            seed=self.editor.seed,
        )


@checked
def known_only(
    parts: Anatomy, tokenizer: Any, cases: Sequence[EditCase], batch_size: int = 64
) -> list[EditCase]:
    """Returns the cases without the other facts and namesakes that the model does not answer correctly.

    Args:
        parts: The anatomy of the model.
        tokenizer: Its tokenizer.
        cases: The cases.
        batch_size: Questions in a forward pass.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import anatomy, world_cases
        >>> model, tokenizer, world = facts_gpt()
        >>> len(known_only(anatomy(model), tokenizer, world_cases(world, 3)))
        3
    """
    questions = [question for case in cases for question in (*case.others, *case.namesakes)]
    answers = score_answers(parts, tokenizer, questions, batch_size) if questions else []
    known = {question for question, answer in zip(questions, answers, strict=True) if answer.likeliest}

    def kept(questions: Questions) -> Questions:
        return tuple(question for question in questions if question in known)

    return [replace(case, others=kept(case.others), namesakes=kept(case.namesakes)) for case in cases]


def _questions(cases: Sequence[EditCase]) -> tuple[list[tuple[str, str]], list[dict[str, list[int]]]]:
    """All (prompt, answer) of the cases, and for each case the indices of each kind of question.

    If two answers are compared, the correct one comes first.
    """
    questions: list[tuple[str, str]] = []
    plan = []
    for case in cases:
        new, old = case.request.target, case.truth
        kinds = {
            "efficacy": [(case.request.text, answer) for answer in (new, old)],
            "paraphrase": [(prompt, answer) for prompt in case.paraphrases for answer in (new, old)],
            "neighbourhood": [
                (prompt, answer) for prompt, truth in case.neighbours for answer in (truth, new)
            ],
            "namesakes": list(case.namesakes),
            "others": list(case.others),
        }
        slots = {}
        for kind, added in kinds.items():
            slots[kind] = list(range(len(questions), len(questions) + len(added)))
            questions += added
        plan.append(slots)
    return questions, plan


def _scores(answers: Mapping[str, Sequence[AnswerScore]]) -> list[tuple[str, float]]:
    """The metrics of one case that can be measured."""
    found = []
    for kind in ("efficacy", "paraphrase", "neighbourhood"):
        pairs = list(zip(answers[kind][::2], answers[kind][1::2], strict=True))
        if pairs:
            wins = [right.log_probability > wrong.log_probability for right, wrong in pairs]
            gaps = [right.probability - wrong.probability for right, wrong in pairs]
            found += [(kind, sum(wins) / len(wins)), (f"{kind}_magnitude", sum(gaps) / len(gaps))]
    for kind in ("namesakes", "others"):
        if answers[kind]:
            found.append((kind, sum(answer.likeliest for answer in answers[kind]) / len(answers[kind])))
    return found
