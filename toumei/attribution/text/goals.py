"""Targets of text models as scores of their outputs: words, classes, labels and answers by name or number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.errors import ArgumentError
from ...core.modules import evaluating
from .encoding import Encoded, checked_index, decoded, following_ids, places_of
from .labels import labelled
from .network import Continuation, TextNetwork
from .scores import AnswerSpan, Label, LogProbability, Score, difference, summed
from .tasks import Task

TokenTarget = str | int | AnswerSpan | None
Position = int | str | None


@dataclass(frozen=True)
class Goal:
    """A score of what a model says, and its name."""

    name: str
    score: Any


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of a model about one text.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer, or None.
        task: What the model is for.
        encoded: The text.
        position: The place that is asked about, as the user gave it.
    """

    model: Any
    tokenizer: Any
    task: Task
    encoded: Encoded
    position: Position = None

    def network(self, continuations: Sequence[Continuation] = ((),)) -> TextNetwork:
        """Returns the model from the tokens of the text to what it says."""
        last = self.task == "text-generation" and self.position is None
        return TextNetwork(self.model, self.task, self.encoded, last, continuations)

    def answered(
        self, targets: Sequence[TokenTarget], against: TokenTarget
    ) -> tuple[list[Goal], TextNetwork]:
        """Returns the goals for some targets, and the network whose outputs they score.

        Raises:
            ArgumentError: A target that does not suit the task, or no place where one is needed.
            UnitError: A token, class, label or place that there is not.
        """
        if isinstance(against, list | tuple):
            raise ArgumentError(f"against is one target, got {against!r}")
        resolve = _RESOLVERS[self.task]
        return resolve(self, targets, against)

    def said(self, network: TextNetwork) -> Tensor:
        """Returns what the model says of the text, without the axis of texts."""
        with evaluating(self.model), torch.no_grad():
            output: Tensor = network(self.encoded.tokens)[0]
        return output

    def places(self, first: bool) -> list[int]:
        """Returns the places that are asked about: what the user gave, else the mask tokens.

        Args:
            first: Whether a word is asked about at its first token, else at its last one.
        """
        count = len(self.encoded.ids)
        if isinstance(self.position, str):
            found = places_of(self.tokenizer, self.encoded, self.position)
            return [found[0] if first else found[1]]
        if self.position is not None:
            from_end = isinstance(self.position, int) and -count <= self.position < 0
            return [self.position + count if from_end else checked_index(self.position, count, "position")]
        mask = getattr(self.tokenizer, "mask_token_id", None)
        return [] if mask is None else [place for place, one in enumerate(self.encoded.ids) if one == mask]


def tokens_of(question: Question, target: Any, count: int) -> Continuation:
    """Returns the tokens of a target: those of a string, or one by its index."""
    if isinstance(target, str):
        return tuple(following_ids(question.tokenizer, question.encoded, target))
    return (checked_index(target, count, "token or class"),)


def words_of(question: Question, tokens: Sequence[int]) -> str:
    """Returns tokens as the name of a target."""
    if question.tokenizer is None or len(tokens) == 1:
        return " ".join(decoded(question.tokenizer, token).strip() for token in tokens)
    return str(question.tokenizer.decode(list(tokens))).strip()


def log_probability(tokens: Sequence[int], positions: Sequence[int]) -> Score:
    """Returns the log-probability of tokens, each at its position of the logits."""
    scores: list[Score] = [
        LogProbability(token, None, place) for token, place in zip(tokens, positions, strict=True)
    ]
    return scores[0] if len(scores) == 1 else summed(scores)


def starts_of(wanted: Sequence[Continuation]) -> dict[Continuation, int]:
    """Returns where the logits of each continuation start, by the tokens of a target without its last."""
    starts: dict[Continuation, int] = {}
    place = 0
    for tokens in wanted:
        if tokens[:-1] not in starts:
            starts[tokens[:-1]] = place
            place += len(tokens)
    return starts


def _words(
    question: Question, targets: Sequence[TokenTarget], against: TokenTarget
) -> tuple[list[Goal], TextNetwork]:
    """Goals of a causal language model: one token or several that follow the text."""
    if question.position is not None:
        return _gaps(question, targets, against)
    likeliest = question.said(question.network())[-1]
    wanted = [
        (int(likeliest.argmax()),) if one is None else tokens_of(question, one, len(likeliest))
        for one in targets
    ]
    other = None if against is None else tokens_of(question, against, len(likeliest))
    starts = starts_of(wanted if other is None else [*wanted, other])
    network = question.network(tuple(starts))

    def places(tokens: Continuation) -> list[int]:
        if not network.continues:
            return [-1]
        return [starts[tokens[:-1]] + index for index in range(len(tokens))]

    return _compared(question, wanted, other, places), network


def _gaps(
    question: Question, targets: Sequence[TokenTarget], against: TokenTarget
) -> tuple[list[Goal], TextNetwork]:
    """Goals of a masked language model, or at one place: a token for each place that is asked about."""
    network, places = question.network(), question.places(first=False)
    if not places:
        mask = getattr(question.tokenizer, "mask_token", None)
        raise ArgumentError(
            f"a masked language model predicts its mask token, {mask!r}, which the text does not have: write "
            f"it where a word is missing, or name a place with position="
        )
    said = question.said(network)[places]
    wanted = [
        tuple(said.argmax(-1).tolist()) if one is None else tokens_of(question, one, said.shape[1])
        for one in targets
    ]
    other = None if against is None else tokens_of(question, against, said.shape[1])
    for tokens in wanted if other is None else [*wanted, other]:
        if len(tokens) != len(places):
            shown = [decoded(question.tokenizer, token) for token in tokens]
            raise ArgumentError(
                f"a target has a token for each place that is asked about: {shown} is {len(tokens)}, and "
                f"there are {len(places)}, {places}; name one of them with position="
            )
    return _compared(question, wanted, other, lambda _: places), network


def _compared(
    question: Question,
    wanted: Sequence[Continuation],
    other: Continuation | None,
    places: Callable[[Continuation], list[int]],
) -> list[Goal]:
    """Goals for tokens at places of the logits, less the log-probability of others if there are any."""
    goals = []
    for tokens in wanted:
        score, name = log_probability(tokens, places(tokens)), words_of(question, tokens)
        if other is not None:
            name = f"{name} - {words_of(question, other)}"
            if len(tokens) == len(other) == 1 and places(tokens) == places(other):
                score = LogProbability(tokens[0], other[0], places(tokens)[0])
            else:
                score = difference(score, log_probability(other, places(other)))
        goals.append(Goal(name, score))
    return goals


def _classes(
    question: Question, targets: Sequence[TokenTarget], against: TokenTarget
) -> tuple[list[Goal], TextNetwork]:
    """Goals of a classifier of texts."""
    if question.position is not None:
        raise ArgumentError(f"a classifier of texts has no places, got position={question.position!r}")
    network = question.network()
    said = question.said(network)
    goals = []
    for index, other, name in labelled(question.model, targets, against, said):
        if other is None:
            goals.append(Goal(name, index))
        else:
            goals.append(Goal(name, lambda output, i=index, j=other: output[:, i] - output[:, j]))
    return goals, network


def _labels(
    question: Question, targets: Sequence[TokenTarget], against: TokenTarget
) -> tuple[list[Goal], TextNetwork]:
    """Goals of a classifier of tokens, at one place."""
    if question.position is None:
        shown = [decoded(question.tokenizer, token) for token in question.encoded.ids]
        raise ArgumentError(
            f"{type(question.model).__name__} gives labels to tokens: name one of {shown} with position=, by "
            f"its number or as a word of the text"
        )
    network, (place,) = question.network(), question.places(first=True)
    said = question.said(network)[place]
    goals = [
        Goal(name, Label(index, other, place))
        for index, other, name in labelled(question.model, targets, against, said)
    ]
    return goals, network


def _answers(
    question: Question, targets: Sequence[TokenTarget], against: TokenTarget
) -> tuple[list[Goal], TextNetwork]:
    """Goals of a model that answers questions by a part of the text."""
    if question.position is not None:
        raise ArgumentError("the places of an answer are its target, AnswerSpan(start, end), not a position")
    network, encoded = question.network(), question.encoded
    said, allowed = question.said(network), encoded.answerable()

    def span(target: Any) -> AnswerSpan:
        if target is None:
            return AnswerSpan.likeliest(said, allowed)
        if isinstance(target, str):
            return AnswerSpan(*places_of(question.tokenizer, encoded, target, allowed))
        if isinstance(target, AnswerSpan):
            target(said[None])  # raises an error for places that there are not
            return target
        raise ArgumentError(
            f"{type(question.model).__name__} answers with a part of the text: a target is its words or "
            f"AnswerSpan(start, end), which counts tokens, not {target!r}"
        )

    def name(one: AnswerSpan) -> str:
        return words_of(question, encoded.ids[one.start : one.end + 1])

    other = None if against is None else span(against)
    goals = []
    for answer in map(span, targets):
        if other is None:
            goals.append(Goal(name(answer), answer))
        else:
            goals.append(Goal(f"{name(answer)} - {name(other)}", difference(answer, other)))
    return goals, network


_Resolver = Callable[[Question, Sequence[TokenTarget], TokenTarget], tuple[list[Goal], TextNetwork]]
_RESOLVERS: dict[Task, _Resolver] = {
    "text-generation": _words,
    "fill-mask": _gaps,
    "text-classification": _classes,
    "token-classification": _labels,
    "question-answering": _answers,
}
