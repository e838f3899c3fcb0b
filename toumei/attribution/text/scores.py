"""Scores of what models say, as targets: log-probabilities of tokens and of answers, labels at places."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ShapeError, UnitError
from ...core.summaries import counted

Score = Callable[[Tensor], Tensor]


@checked
@dataclass(frozen=True)
class LogProbability:
    """The log-probability of a token, or its difference from that of another token, as a target.

    Args:
        token: Index of the token.
        against: Index of another token whose log-probability is subtracted.
        position: Position in the text at which the token is predicted; the last by default.

    Example:
        >>> logits = torch.tensor([[[0.0, 0.0], [1.0, 3.0]]])
        >>> LogProbability(1, against=0)(logits)
        tensor([2.])
    """

    token: int
    against: int | None = None
    position: int = -1

    def __call__(self, logits: Tensor) -> Tensor:
        """Returns the scores (N,) of logits (N, T, V).

        Raises:
            ShapeError: Logits of another shape.
            UnitError: A token or a position that does not exist.
        """
        if logits.dim() != 3:
            raise ShapeError(f"expected logits (N, T, V) of a language model, got {tuple(logits.shape)}")
        length, count = logits.shape[1:]
        for token in (self.token, *(() if self.against is None else (self.against,))):
            if not 0 <= token < count:
                raise UnitError(f"no token {token}: there are {count}, 0 to {count - 1}")
        if not -length <= self.position < length:
            raise UnitError(f"no position {self.position} in a text of {counted(length, 'token')}")
        predicted = logits[:, self.position]
        if self.against is not None:  # the normalizers of both cancel
            return predicted[:, self.token] - predicted[:, self.against]
        return predicted.log_softmax(-1)[:, self.token]


@checked
@dataclass(frozen=True)
class AnswerSpan:
    """The log-probability that an answer goes from one token of a text to another, as a target.

    Args:
        start: The first token of the answer, counted from 0 on.
        end: Its last token.

    Example:
        >>> AnswerSpan(0, 1)(torch.zeros(1, 2, 2)).exp()
        tensor([0.2500])
    """

    start: int
    end: int

    def __call__(self, logits: Tensor) -> Tensor:
        """Returns the scores (N,) of the logits of starts and ends, (N, T, 2).

        Raises:
            ShapeError: Logits of another shape.
            UnitError: Tokens that the text does not have, or an end before the start.
        """
        if logits.dim() != 3 or logits.shape[2] != 2:
            raise ShapeError(f"expected logits of starts and ends (N, T, 2), got {tuple(logits.shape)}")
        whole = isinstance(self.start, int) and isinstance(self.end, int)
        if not (whole and 0 <= self.start <= self.end < logits.shape[1]):
            raise UnitError(
                f"no answer from token {self.start!r} to token {self.end!r} in a text of "
                f"{counted(logits.shape[1], 'token')}"
            )
        shares = logits.log_softmax(1)
        return shares[:, self.start, 0] + shares[:, self.end, 1]

    @classmethod
    @checked
    def likeliest(cls, logits: Tensor, allowed: Tensor) -> "AnswerSpan":
        """Returns the likeliest answer for logits (T, 2) of one text, among tokens that are allowed, (T,).

        Raises:
            ShapeError: Other shapes, or not a truth for each token.
        """
        if logits.shape[1:] != (2,) or allowed.shape != logits.shape[:1] or allowed.dtype != torch.bool:
            raise ShapeError(
                f"expected logits (T, 2) and for each token whether it is allowed, got {tuple(logits.shape)} "
                f"and {tuple(allowed.shape)} of {allowed.dtype}"
            )
        scores = logits[:, None, 0] + logits[None, :, 1]
        possible = (allowed[:, None] & allowed).triu()
        best = int(scores.masked_fill(~possible, -torch.inf).argmax())
        return cls(best // len(scores), best % len(scores))


@dataclass(frozen=True)
class Label:
    """The logit of a label at a place of a text, or its difference from that of another label."""

    label: int
    against: int | None
    position: int

    def __call__(self, logits: Tensor) -> Tensor:
        """Returns the scores (N,) of logits (N, T, labels)."""
        at_place = logits[:, self.position]
        found = at_place[:, self.label]
        return found if self.against is None else found - at_place[:, self.against]


def summed(scores: list[Score]) -> Score:
    """Returns the sum of scores."""
    return lambda output: torch.stack([score(output) for score in scores]).sum(0)


def difference(score: Score, other: Score) -> Score:
    """Returns the difference of two scores."""
    return lambda output: score(output) - other(output)
