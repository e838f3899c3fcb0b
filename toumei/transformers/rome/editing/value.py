"""What to add to the value of a subject, so that the model says the target after the prompt.

The optimization of ROME (Meng et al., 2022, eq. 4): Adam on a vector that is added to the output of one
module at the subject's last token, in several contexts at once, held back by its norm and by what the model
says of the subject otherwise. Several facts are optimized side by side; none sees another one.

The papers hold one text, "{subject} is a". Here further continuations of the subject can be held: where the
model was sure of the old answer they ask for the new target, in other words than the prompt's, and
everywhere else the predictions are to stay.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ....core.errors import NonFiniteError
from ....core.modules import evaluating, frozen
from ...model.families import Anatomy
from .requests import Row
from .settings import Settings
from .suffix import Suffix


@dataclass(frozen=True)
class Problem:
    """The texts that one fact is optimized on.

    Attributes:
        name: What to call the fact in messages.
        edits: The prompt with the target behind it, bare first, then in its contexts.
        essence: A text that asks what the subject is.
        holds: The subject's other continuations, which are to stay as they are.
    """

    name: str
    edits: tuple[Row, ...]
    essence: Row
    holds: tuple[Row, ...] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        """All texts: edits, essence, holds."""
        return (*self.edits, self.essence, *self.holds)

    @property
    def places(self) -> list[range]:
        """For each text the positions whose predictions count.

        Those that say the target, the essence's subject, and all from the subject on in what is held.
        """
        edits = [range(len(row.ids) - row.target - 1, len(row.ids) - 1) for row in self.edits]
        essence = range(self.essence.subject, self.essence.subject + 1)
        return [*edits, essence, *(range(row.subject, len(row.ids)) for row in self.holds)]


@dataclass(frozen=True, repr=False, eq=False)
class Value:
    """The outcome of an optimization.

    Attributes:
        delta: What to add to the value, (values,), on the CPU.
        start: The value itself, in the bare prompt.
        losses: At each step the whole loss and its parts: (steps, 5) in the order of `PARTS`.
        ended: ``"finished"``, ``"stopped"`` below the loss that is enough, or ``"interrupted"`` by Ctrl-C.
    """

    delta: Tensor
    start: Tensor
    losses: Tensor
    ended: str

    def __repr__(self) -> str:
        size = float(self.delta.norm() / self.start.norm())
        return f"Value({size:.2f} x the value after {len(self.losses)} steps, {self.ended})"


_SURE = 0.5
PARTS = ("loss", "target", "essence", "hold", "reworded")


def optimize_values(
    parts: Anatomy,
    layer: int,
    stream: bool,
    problems: Sequence[Problem],
    settings: Settings,
    *,
    batch_size: int = 128,
    verbose: bool = False,
) -> list[Value]:
    """Returns for each fact what to add to the output of a module at the subject's last token.

    Args:
        parts: The model, whose weights are left alone.
        layer: The layer of the value.
        stream: Whether the value is the block's output, as for MEMIT; else the down-projection's.
        problems: The texts of each fact.
        settings: Steps, learning rate and what holds the optimization back.
        batch_size: How many texts are run at once; the texts of one fact always are.
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
        tqdm(total=len(problems), disable=not verbose) as bar,
    ):
        for group in _groups(problems, batch_size):
            values += _Group(parts, layer, stream, group, settings).optimize(interrupted)
            interrupted = values[-1].ended == "interrupted"
            bar.update(len(group))
    return values


class _Group:
    """Facts that are optimized side by side."""

    def __init__(
        self, parts: Anatomy, layer: int, stream: bool, problems: Sequence[Problem], settings: Settings
    ) -> None:
        self.problems, self.settings = problems, settings
        self.tail = Suffix(parts, layer, stream, [row for problem in problems for row in problem.rows])
        counts = torch.tensor([len(problem.rows) for problem in problems])
        self.first = (counts.cumsum(0) - counts).tolist()
        self.starts = [self.tail.values[first].float() for first in self.first]
        self.deltas = [torch.zeros_like(start, requires_grad=True) for start in self.starts]
        with torch.no_grad():
            self.before = self._said(range(len(problems)))
        self.optimizers = [torch.optim.Adam([delta], lr=settings.lr) for delta in self.deltas]
        self.histories: list[list[Tensor]] = [[] for _ in problems]
        self.endings = ["finished"] * len(problems)

    def optimize(self, interrupted: bool = False) -> list[Value]:
        """Takes the steps, none if Ctrl-C came before.

        After the last one the loss is not looked at again, as in the paper's code.
        """
        active = list(range(len(self.problems)))
        try:
            if interrupted:
                raise KeyboardInterrupt
            for step in range(self.settings.steps):
                active = self._look(active)
                if step == self.settings.steps - 1 or not active:
                    break
                for index in active:
                    self._step(index)
        except KeyboardInterrupt:
            for index in active:
                self.endings[index] = "interrupted"
        return [self._value(index) for index in range(len(self.problems))]

    def _value(self, index: int) -> Value:
        history = self.histories[index]
        losses = torch.stack(history) if history else torch.zeros(0, len(PARTS))
        return Value(self.deltas[index].detach().cpu(), self.starts[index].cpu(), losses, self.endings[index])

    def _look(self, active: Sequence[int]) -> list[int]:
        """Notes the losses of these facts, computes their gradients, and returns those that have to go on."""
        losses = [self._loss(index, said) for index, said in zip(active, self._said(active), strict=True)]
        going = []
        for index, loss in zip(active, losses, strict=True):
            self._note(index, loss.detach().cpu())
            if loss[0] >= self.settings.stop:
                going.append(index)
            else:
                self.endings[index] = "stopped"
        if going:
            torch.stack(losses)[:, 0].sum().backward()
        return going

    def _said(self, active: Sequence[int]) -> list[list[Tensor]]:
        """For each fact and each of its texts the log probabilities (positions, tokens) where they count."""
        rows = [
            self.first[index] + number for index in active for number in range(len(self.problems[index].rows))
        ]
        places = [places for index in active for places in self.problems[index].places]
        added = [self.deltas[index] for index in active for _ in self.problems[index].rows]
        logits = self.tail.logits(rows, places, torch.stack(added))
        found = F.log_softmax(logits.float(), dim=1).split([len(place) for place in places])
        texts = iter(found)
        return [[next(texts) for _ in self.problems[index].rows] for index in active]

    def _loss(self, index: int, said: list[Tensor]) -> Tensor:
        """The loss of one fact and its parts, in the order of `PARTS`."""
        problem, settings, before = self.problems[index], self.settings, self.before[index]
        count = len(problem.edits)
        targets = [
            -found[range(row.target), row.ids[-row.target :]].mean()
            for row, found in zip(problem.edits, said[:count], strict=True)
        ]
        target = torch.stack(targets).mean()
        essence = F.kl_div(before[count], said[count], log_target=True, reduction="batchmean")
        hold, again = self._held(index, said[count + 1 :])
        decay = settings.weight_decay * self.deltas[index].norm() / self.starts[index].norm() ** 2
        loss = target + settings.kl * essence + settings.hold_weight * hold + again + decay
        return torch.stack([loss, target, essence, hold, again])

    def _held(self, index: int, said: list[Tensor]) -> tuple[Tensor, Tensor]:
        """How far other predictions have drifted, and how unlikely the target is where the old answer was.

        Where the model was sure of the answer that is to be changed, it said the same fact in other words.
        """
        problem, before = self.problems[index], self.before[index]
        if not said:
            return torch.zeros((), device=before[0].device), torch.zeros((), device=before[0].device)
        old, new = torch.cat(before[len(problem.edits) + 1 :]), torch.cat(said)
        same = old[:, before[0][0].argmax()].exp() > _SURE
        divergence = F.kl_div(new, old, log_target=True, reduction="none").sum(1)
        first = problem.edits[0].ids[-problem.edits[0].target]
        return _mean(divergence, ~same), _mean(-new[:, first], same)

    def _note(self, index: int, loss: Tensor) -> None:
        if not loss.isfinite().all():
            raise NonFiniteError(
                f"the loss of {self.problems[index].name!r} became {float(loss[0])} after "
                f"{len(self.histories[index])} steps: try a smaller learning rate than {self.settings.lr:g}, "
                f"or the model in float32"
            )
        self.histories[index].append(loss)

    def _step(self, index: int) -> None:
        self.optimizers[index].step()
        self.optimizers[index].zero_grad()
        delta, limit = self.deltas[index], self.settings.clamp * self.starts[index].norm()
        with torch.no_grad():
            if delta.norm() > limit:
                delta.mul_(limit / delta.norm())


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """The mean over what counts, 0 if nothing does."""
    return (values * counted).sum() / counted.sum().clamp_min(1)


def _groups(problems: Sequence[Problem], batch_size: int) -> Iterator[list[Problem]]:
    """The facts in runs of at most so many texts, but at least one fact."""
    group: list[Problem] = []
    for problem in problems:
        if group and sum(len(other.rows) for other in group) + len(problem.rows) > batch_size:
            yield group
            group = []
        group.append(problem)
    if group:
        yield group
