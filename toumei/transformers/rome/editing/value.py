"""Optimizes the vector that is added to the value of a subject, so that the model predicts the target.

This is the optimization of ROME (Meng et al., 2022, eq. 4). Adam optimizes a vector that is added to the
output of one module at the subject's last token, in several contexts at once. Its norm is penalized, and so
are changes of other predictions about the subject. Several facts are optimized in one batch, independently of
each other.

The papers hold the predictions after one text, "{subject} is a". Here further continuations of the subject
can be held. At positions where the model was sure of the old answer, they ask for the new target, in other
words than the prompt. At all other positions the predictions are to stay.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ....core.errors import ArgumentError, NonFiniteError
from ....core.modules import evaluating, frozen
from ....core.progress import tqdm
from ....core.summaries import counted
from ...model.families import Anatomy
from .requests import SubjectText
from .settings import EditSettings
from .suffix import Suffix


@dataclass(frozen=True, kw_only=True)
class FactTexts:
    """The texts on which one fact is optimized.

    Attributes:
        name: The name of the fact in messages.
        edits: The prompt followed by the target: alone, then in its contexts.
        essence: A text that asks what the subject is.
        holds: The subject's other continuations, whose predictions are to stay.
    """

    name: str
    edits: tuple[SubjectText, ...]
    essence: SubjectText
    holds: tuple[SubjectText, ...] = ()

    @property
    def texts(self) -> tuple[SubjectText, ...]:
        """All texts: edits, essence, holds."""
        return (*self.edits, self.essence, *self.holds)

    @property
    def positions(self) -> list[range]:
        """For each text the positions whose predictions count.

        These are the positions that predict the target in edits, the subject's last token in the essence, and
        all positions from that token on in holds.
        """
        edits = [range(len(text.ids) - text.target - 1, len(text.ids) - 1) for text in self.edits]
        essence = range(self.essence.subject, self.essence.subject + 1)
        return [*edits, essence, *(range(text.subject, len(text.ids)) for text in self.holds)]


@dataclass(frozen=True, repr=False, eq=False)
class Value:
    """The result of an optimization.

    Attributes:
        delta: The vector to add to the value, (values,), on the CPU.
        start: The value in the bare prompt, (values,).
        losses: The total loss and its parts at each step, (steps, 5), in the order of `PARTS`.
        old: The token that the model gave after the bare prompt.
        before: The log probabilities of the target and of that token without the vector, in the bare prompt
            and in each context, (texts, 2).
        ended: ``"finished"`` all steps, ``"stopped"`` below the loss `EditSettings.stop`, ``"interrupted"``
            by Ctrl-C, or ``"unreachable"``: no prediction of the target depends on the vector, which is zero.
            So it is in the last layer for a subject that does not end the prompt.
    """

    delta: Tensor
    start: Tensor
    losses: Tensor
    old: int
    before: Tensor
    ended: str

    def __repr__(self) -> str:
        size = float(self.delta.norm() / self.start.norm())
        return f"Value({size:.2f} x the value after {counted(len(self.losses), 'step')}, {self.ended})"


_CERTAIN = 1e-6  # the loss below which a prediction needs no vector
_SURE = 0.5  # the model is sure of an answer from this probability on
PARTS = ("loss", "target", "essence", "hold", "reworded")


def optimize_values(
    parts: Anatomy,
    layer: int,
    stream: bool,
    facts: Sequence[FactTexts],
    settings: EditSettings,
    *,
    batch_size: int = 128,
    verbose: bool = False,
) -> list[Value]:
    """Returns for each fact the vector to add to the output of a module at the subject's last token.

    Args:
        parts: The model, whose weights do not change.
        layer: The layer of the value.
        stream: Whether the value is the output of the block, as for MEMIT; else it is the output of the
            down-projection.
        facts: The texts of each fact.
        settings: Steps, learning rate and penalties.
        batch_size: How many texts are run at once; the texts of one fact always run together.
        verbose: Show a progress bar.

    Raises:
        NonFiniteError: A loss became NaN or infinite.
    """
    values: list[Value] = []
    interrupted = False
    with (
        frozen(parts.model),
        evaluating(parts.model),
        torch.enable_grad(),
        tqdm(total=len(facts), desc="values", unit="fact", disable=not verbose) as bar,
    ):
        for group in _groups(facts, batch_size):
            values += _Group(parts, layer, stream, group, settings).optimize(interrupted)
            interrupted = values[-1].ended == "interrupted"
            bar.update(len(group))
    return values


def check_complete(facts: Sequence[FactTexts], values: Sequence[Value], settings: EditSettings) -> None:
    """Ends an edit of many facts that Ctrl-C has interrupted, or whose layers cannot reach an answer.

    Raises:
        KeyboardInterrupt: An optimization was interrupted.
        ArgumentError: No prediction of a target depends on the value.
    """
    if any(value.ended == "interrupted" for value in values):
        raise KeyboardInterrupt  # which the optimization held back
    for fact, value in zip(facts, values, strict=True):
        if value.ended == "unreachable":
            raise ArgumentError(
                f"layer {settings.layers[-1]} cannot reach the answer of {fact.name!r}: what it adds at the "
                f"last token of the subject does not change the prediction of the target: give earlier layers"
            )


class _Group:
    """Facts that are optimized in one batch."""

    def __init__(
        self, parts: Anatomy, layer: int, stream: bool, facts: Sequence[FactTexts], settings: EditSettings
    ) -> None:
        self.facts, self.settings, self.layer = facts, settings, layer
        self.suffix = Suffix(parts, layer, stream, [text for fact in facts for text in fact.texts])
        counts = torch.tensor([len(fact.texts) for fact in facts])
        self.first = (counts.cumsum(0) - counts).tolist()
        self.starts = [self.suffix.values[first].float() for first in self.first]
        self.deltas = [torch.zeros_like(start, requires_grad=True) for start in self.starts]
        with torch.no_grad():
            self.before = self._predictions(range(len(facts)))
        self.optimizers = [torch.optim.Adam([delta], lr=settings.lr) for delta in self.deltas]
        self.histories: list[list[Tensor]] = [[] for _ in facts]
        self.endings = ["finished"] * len(facts)

    def optimize(self, interrupted: bool = False) -> list[Value]:
        """Takes all steps, or none if the group before was interrupted.

        The loss is not computed again after the last step, as in the code of the paper.
        """
        active = list(range(len(self.facts)))
        try:
            if interrupted:
                raise KeyboardInterrupt
            for step in range(self.settings.steps):
                active = self._backward(active)
                if step == self.settings.steps - 1 or not active:
                    break
                for index in active:
                    self._step(index)
        except KeyboardInterrupt:
            for index in active:
                self.endings[index] = "interrupted"
        return [self._value(index) for index in range(len(self.facts))]

    def _value(self, index: int) -> Value:
        self._clamp(index)  # Ctrl-C may have come after half a step
        fact, before, history = self.facts[index], self.before[index], self.histories[index]
        old = int(before[0][0].argmax())
        pairs = [
            torch.stack([_of_target(text, found).sum(), found[0, old]])
            for text, found in zip(fact.edits, before[: len(fact.edits)], strict=True)
        ]
        losses = torch.stack(history) if history else torch.zeros(0, len(PARTS))
        return Value(
            delta=self.deltas[index].detach().cpu(),
            start=self.starts[index].cpu(),
            losses=losses,
            old=old,
            before=torch.stack(pairs).cpu(),
            ended=self.endings[index],
        )

    def _backward(self, active: Sequence[int]) -> list[int]:
        """Stores the losses of these facts, computes gradients, returns the facts that need more steps."""
        predictions = self._predictions(active)
        losses = [self._loss(index, found) for index, found in zip(active, predictions, strict=True)]
        remaining = []
        for index, loss in zip(active, losses, strict=True):
            self._store(index, loss.detach().cpu())
            if loss[0] >= self.settings.stop:
                remaining.append(index)
            else:
                self.endings[index] = "stopped"
        if remaining:
            first = len(self.histories[remaining[0]]) == 1
            if first:
                self.added.retain_grad()
            torch.stack(losses)[:, 0].sum().backward()
            if first:
                remaining = self._reached(remaining)
        return remaining

    def _reached(self, active: Sequence[int]) -> list[int]:
        """The facts whose predictions depend on the value; the vector of the others stays zero."""
        assert self.added.grad is not None
        reached = []
        for index in active:
            fact, first = self.facts[index], self.first[index]
            moves = bool(self.added.grad[first : first + len(fact.edits)].any())
            if moves or self.histories[index][0][1] <= _CERTAIN:
                reached.append(index)
            else:
                self.endings[index] = "unreachable"
        return reached

    def _predictions(self, active: Sequence[int]) -> list[list[Tensor]]:
        """For each text of each fact the log probabilities (positions, tokens) that count."""
        rows = [
            self.first[index] + number for index in active for number in range(len(self.facts[index].texts))
        ]
        positions = [found for index in active for found in self.facts[index].positions]
        self.added = torch.stack([self.deltas[index] for index in active for _ in self.facts[index].texts])
        logits = self.suffix.logits(rows, positions, self.added)
        found = iter(F.log_softmax(logits.float(), dim=1).split([len(few) for few in positions]))
        return [[next(found) for _ in self.facts[index].texts] for index in active]

    def _loss(self, index: int, predictions: list[Tensor]) -> Tensor:
        """The loss of one fact and its parts, in the order of `PARTS`."""
        fact, settings, before = self.facts[index], self.settings, self.before[index]
        count = len(fact.edits)
        targets = [
            -_of_target(text, found).mean()
            for text, found in zip(fact.edits, predictions[:count], strict=True)
        ]
        target = torch.stack(targets).mean()
        essence = F.kl_div(before[count], predictions[count], log_target=True, reduction="batchmean")
        hold, reworded = self._held(index, predictions[count + 1 :])
        decay = settings.weight_decay * self.deltas[index].norm() / self.starts[index].norm() ** 2
        loss = target + settings.kl * essence + settings.hold_weight * hold + reworded + decay
        return torch.stack([loss, target, essence, hold, reworded])

    def _held(self, index: int, predictions: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The divergence of other predictions, and the target's negative log probability in other words.

        Positions where the model was sure of the old answer state the same fact in other words.
        """
        fact, before = self.facts[index], self.before[index]
        if not predictions:
            return torch.zeros((), device=before[0].device), torch.zeros((), device=before[0].device)
        old, new = torch.cat(before[len(fact.edits) + 1 :]), torch.cat(predictions)
        same_fact = old[:, before[0][0].argmax()].exp() > _SURE
        divergence = F.kl_div(new, old, log_target=True, reduction="none").sum(1)
        first = fact.edits[0].ids[-fact.edits[0].target]
        return _mean(divergence, ~same_fact), _mean(-new[:, first], same_fact)

    def _store(self, index: int, loss: Tensor) -> None:
        if not loss.isfinite().all():
            raise NonFiniteError(
                f"the loss of {self.facts[index].name!r} became {float(loss[0])} after "
                f"{counted(len(self.histories[index]), 'step')}: try a smaller learning rate than "
                f"{self.settings.lr:g}, or the model in float32"
            )
        self.histories[index].append(loss)

    def _step(self, index: int) -> None:
        self.optimizers[index].step()
        self.optimizers[index].zero_grad()
        self._clamp(index)

    def _clamp(self, index: int) -> None:
        delta, limit = self.deltas[index], self.settings.clamp * self.starts[index].norm()
        with torch.no_grad():
            if delta.norm() > limit:
                delta.mul_(limit / delta.norm())


def _of_target(text: SubjectText, found: Tensor) -> Tensor:
    """The log probability of each token of a target."""
    return found[range(text.target), text.ids[-text.target :]]


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the values in the mask, 0 if it is empty."""
    return (values * mask).sum() / mask.sum().clamp_min(1)


def _groups(facts: Sequence[FactTexts], batch_size: int) -> Iterator[list[FactTexts]]:
    """The facts in groups of at most `batch_size` texts, but at least one fact."""
    group: list[FactTexts] = []
    for fact in facts:
        if group and sum(len(other.texts) for other in group) + len(fact.texts) > batch_size:
            yield group
            group = []
        group.append(fact)
    if group:
        yield group
