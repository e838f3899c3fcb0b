"""Facts as a graph from subjects to objects, and how well it agrees with what is known."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.kinds import shown
from ...core.serialization import Saved
from ...core.summaries import counted, listed, shortened
from ...core.tensor_specs import Spec, specs
from ...plots import style
from ...plots.style import drawing, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from networkx import MultiDiGraph

Triple = tuple[str, str, str]
"""Subject, relation, object."""

_MOST_DRAWN = 24


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GraphComparison(Saved):
    """How many facts of a graph are known ones, by relation.

    Attributes:
        relations: The relations.
        found: How many facts of each the graph has, (relations,).
        right: How many of them are known, (relations,).
        known: How many are known, (relations,).
        scores: The scores of all facts of the graph, the highest first, (facts,).
        hits: Which of them are known, 0 or 1, (facts,).

    Example:
        >>> known = [("Ann", "profession", "judge"), ("Bob", "profession", "hunter")]
        >>> graph = KnowledgeGraph(facts=(known[0],), scores=torch.tensor([0.9]), source="prompts")
        >>> found = graph.compared(known)
        >>> found.precision, found.recall
        (1.0, 0.5)
    """

    relations: tuple[str, ...]
    found: Tensor
    right: Tensor
    known: Tensor
    scores: Tensor
    hits: Tensor

    _specs = specs(
        relations="relations",
        found=Spec("relations", kind="integer"),
        right=Spec("relations", kind="integer"),
        known=Spec("relations", kind="integer"),
        scores="facts",
        hits=Spec("facts", kind="integer"),
    )

    @property
    def precision(self) -> float:
        """The share of facts of the graph that are known; NaN without any."""
        return float(self.right.sum() / self.found.sum())

    @property
    def recall(self) -> float:
        """The share of known facts that the graph has."""
        return float(self.right.sum() / self.known.sum())

    @property
    def average_precision(self) -> float:
        """The area under precision over recall, as facts come in by their scores."""
        return float((self.hits * self._precisions).sum() / self.known.sum())

    @property
    def _precisions(self) -> Tensor:
        """The precision of the facts with the k highest scores, by k."""
        return self.hits.double().cumsum(0) / torch.arange(1, len(self.hits) + 1)

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with precision over recall, as facts come in by their scores.

        Args:
            ax: Where to draw; a new figure by default.
        """
        with drawing(ax, 4.2, 3.6) as axes:
            recalls = self.hits.double().cumsum(0) / self.known.sum()
            axes.plot(recalls, self._precisions, color=style.BLUE)
            axes.plot([self.recall], [self.precision], "o", color=style.RED, label="all facts")
            axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.05))
            axes.set_title("Facts read from the model, best scores first")
            axes.legend()
        return axes

    def __repr__(self) -> str:
        return (
            f"GraphComparison({counted(int(self.found.sum()), 'fact')} found, {int(self.known.sum())} known: "
            f"precision {self.precision:.2f}, recall {self.recall:.2f})"
        )

    def __str__(self) -> str:
        lines = [repr(self), f"{'relation':>28}  found  right  known  precision  recall"]
        numbers = zip(
            self.relations, self.found.tolist(), self.right.tolist(), self.known.tolist(), strict=True
        )
        for relation, found, right, known in numbers:
            shares = [f"{right / of:.2f}" if of else "-" for of in (found, known)]
            lines.append(
                f"{relation[:28]:>28}  {found:5}  {right:5}  {known:5}  {shares[0]:>9}  {shares[1]:>6}"
            )
        return "\n".join(lines)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class KnowledgeGraph(Saved):
    """Facts that were read out of a model.

    Attributes:
        facts: Subject, relation and object of each.
        scores: How sure each is: its probability, or what the result says it is, (facts,).
        source: Where they were read.

    Example:
        >>> facts = (("Ann", "profession", "judge"), ("Bob", "profession", "baker"))
        >>> graph = KnowledgeGraph(facts=facts, scores=torch.tensor([0.9, 0.4]), source="prompts")
        >>> graph.compared([("Ann", "profession", "judge"), ("Bob", "profession", "hunter")])
        GraphComparison(2 facts found, 2 known: precision 0.50, recall 0.50)
        >>> graph.above(0.5).networkx().edges["Ann", "judge", "profession"]["score"] > 0.5
        True
    """

    facts: tuple[Triple, ...]
    scores: Tensor
    source: str

    _specs = specs(scores="facts")

    def networkx(self) -> "MultiDiGraph[str]":
        """Returns the graph: subjects and objects are nodes, a fact is an edge with its relation as key."""
        from networkx import MultiDiGraph

        graph: Any = MultiDiGraph()
        for (subject, relation, target), score in zip(self.facts, self.scores.tolist(), strict=True):
            graph.add_edge(subject, target, key=relation, relation=relation, score=score)
        return graph

    @checked
    def above(self, score: float) -> "KnowledgeGraph":
        """Returns the facts with at least this score."""
        return self._kept([place for place, one in enumerate(self.scores.tolist()) if one >= score])

    @checked
    def about(self, names: Sequence[str]) -> "KnowledgeGraph":
        """Returns the facts of some subjects or objects.

        Raises:
            ArgumentError: The graph has none of them.
        """
        names = [names] if isinstance(names, str) else list(names)
        wanted = set(names)
        places = [place for place, fact in enumerate(self.facts) if {fact[0], fact[2]} & wanted]
        if not places:
            raise ArgumentError(f"the graph has no facts about {listed(names)}")
        return self._kept(places)

    def _kept(self, places: list[int]) -> "KnowledgeGraph":
        facts = tuple(self.facts[place] for place in places)
        return KnowledgeGraph(facts=facts, scores=self.scores[places], source=self.source)

    @checked
    def compared(self, known: Iterable[Any]) -> GraphComparison:
        """Returns precision and recall against known facts.

        Args:
            known: Triples (subject, relation, object); a subject may have several objects.

        Raises:
            ArgumentError: There are none, or they are no triples.
        """
        truth = set(check_triples(known))
        relations = tuple(dict.fromkeys([*(fact[1] for fact in self.facts), *sorted(r for _, r, _ in truth)]))
        place = {relation: number for number, relation in enumerate(relations)}

        def counted(facts: Iterable[Triple]) -> Tensor:
            numbers = torch.tensor([place[fact[1]] for fact in facts], dtype=torch.long)
            return numbers.bincount(minlength=len(relations))

        order = self.scores.argsort(descending=True, stable=True)
        return GraphComparison(
            relations=relations,
            found=counted(self.facts),
            right=counted(fact for fact in self.facts if fact in truth),
            known=counted(truth),
            scores=self.scores[order],
            hits=torch.tensor([self.facts[at] in truth for at in order.tolist()], dtype=torch.long),
        )

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the graph, of many facts those with the highest scores.

        Subjects are on the left, objects on the right; a colour is a relation, a strong line a high score.

        Args:
            ax: Where to draw; a new figure by default.
        """
        best = self.scores.argsort(descending=True, stable=True)[:_MOST_DRAWN].tolist()
        part = self._kept(sorted(best))
        sides = [list(dict.fromkeys(fact[side] for fact in part.facts)) for side in (0, 2)]
        relations = list(dict.fromkeys(fact[1] for fact in part.facts))
        colors = dict(zip(relations, palette(len(relations)), strict=True))
        lines = dict(zip(relations, cycle(("-", "--", ":")), strict=False))  # colours of neighbours are alike
        heights = [
            {name: (number + 0.5) / len(side) for number, name in enumerate(reversed(side))} for side in sides
        ]
        with drawing(ax, 6.5, min(max(2.5, 0.3 * max(map(len, sides))), 9.0)) as axes:
            strongest = float(part.scores.max()) or 1.0
            for (subject, relation, target), score in zip(part.facts, part.scores.tolist(), strict=True):
                ends_at = heights[0][subject], heights[1][target]
                line = axes.plot([0, 1], ends_at, lines[relation], color=colors[relation])[0]
                line.set_alpha(0.25 + 0.75 * max(score / strongest, 0))
            for side, ends in enumerate(heights):
                for name, height in ends.items():
                    words = shortened(name, 28) + "  " if not side else "  " + shortened(name, 28)
                    axes.text(side, height, words, ha="left" if side else "right", va="center", size="small")
            for relation in relations:
                axes.plot([], [], lines[relation], color=colors[relation], label=shortened(relation, 28))
            axes.set(xlim=(-0.9, 1.9), ylim=(0, 1))
            axes.axis("off")
            most = f"the {len(part):,} of {len(self):,} with the highest scores"
            axes.set_title(f"Facts from {self.source}" + (f", {most}" if len(part) < len(self) else ""))
            axes.legend(
                loc="upper center", bbox_to_anchor=(0.5, 0), ncols=min(4, len(relations)), frameon=False
            )
        return axes

    def __len__(self) -> int:
        return len(self.facts)

    def __repr__(self) -> str:
        relations = list(dict.fromkeys(fact[1] for fact in self.facts))
        return (
            f"KnowledgeGraph({counted(len(self), 'fact')} from {shortened(self.source, 40)}: "
            f"{listed(relations, 3)})"
        )

    def __str__(self) -> str:
        lines = [repr(self)]
        order = self.scores.argsort(descending=True, stable=True)[:10].tolist()
        for place in order:
            subject, relation, target = (shortened(word, 40) for word in self.facts[place])
            lines.append(f"{float(self.scores[place]):8.3f}  {subject} - {relation} -> {target}")
        return "\n".join(lines)


def check_triples(known: Iterable[Any]) -> list[Triple]:
    """Returns known facts as a list.

    Raises:
        ArgumentError: There are none, or something is no triple of texts.
    """
    facts = [known] if isinstance(known, str) else list(known)
    if not facts:
        raise ArgumentError("expected known facts, got none")
    for fact in facts:
        if not isinstance(fact, tuple | list) or len(fact) != 3 or not all(isinstance(s, str) for s in fact):
            raise ArgumentError(f"facts are triples (subject, relation, object) of texts, got {shown(fact)}")
    return [(fact[0], fact[1], fact[2]) for fact in facts]
