"""Relations in the OV circuits of heads: which head writes the object when it attends to the subject."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.progress import tqdm
from ...core.seeding import make_generator
from ...core.serialization import Saved
from ...core.summaries import counted, listed
from ...core.tensor_specs import Spec, specs
from ...plots import style
from ...plots.statistics import heat_map
from ...plots.style import drawing
from ..heads.vocabulary_weights import embedding_weights, unembedding_weights
from ..heads.weights import head_weights
from ..model.hooked_model import HookedModel
from ..model.tokens import continuation, tokenize
from .knowledge_graph import GraphComparison, KnowledgeGraph, Triple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_COLUMNS = 12


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class HeadRelations(Saved):
    """How well each head maps subjects to objects by its OV circuit, by relation.

    Attributes:
        relations: The relations.
        heads: Layer and number of each head, ``"4.1"``.
        accuracies: The share of subjects whose object the head raises most among the objects of the relation,
            on the subjects on which heads are chosen, (relations, heads).
        chance: The share of the most frequent object among them, (relations,).
        chosen: The best head of each relation, (relations,).
        graph: What these heads say about the other subjects; a score is by how much the logit of the object
            is above the mean of all, in standard deviations.
        known: The known facts about these.
        read: What the heads read.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import HookedModel, KnowledgeGraphExtractor
        >>> model, tokenizer, world = facts_gpt()
        >>> hooked = HookedModel(model, tokenizer)
        >>> facts = [fact for fact in world.facts if fact.relation == "residence"][:40]
        >>> known = [(fact.subject, fact.relation, fact.target) for fact in facts]
        >>> found = KnowledgeGraphExtractor(hooked).from_heads(known)
        >>> found.relations, found.accuracies.shape
        (('residence',), torch.Size([1, 24]))
    """

    relations: tuple[str, ...]
    heads: tuple[str, ...]
    accuracies: Tensor
    chance: Tensor
    chosen: Tensor
    graph: KnowledgeGraph
    known: tuple[Triple, ...]
    read: str

    _specs = specs(
        relations="relations",
        heads="heads",
        accuracies="relations heads",
        chance="relations",
        chosen=Spec("relations", kind="integer"),
    )

    @property
    def comparison(self) -> GraphComparison:
        """Precision and recall on the subjects on which no head was chosen."""
        return self.graph.compared(self.known)

    @checked
    def head_of(self, relation: str) -> str:
        """Returns the head of a relation, ``"4.1"``.

        Raises:
            ArgumentError: There is no such relation.
        """
        if relation not in self.relations:
            raise ArgumentError(f"no relation {relation!r}; there are {', '.join(self.relations)}")
        return self.heads[int(self.chosen[self.relations.index(relation)])]

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the accuracies as a heat map: relations by those heads that are best at any.

        Args:
            ax: Where to draw; a new figure by default.
        """
        best = self.accuracies.amax(0).argsort(descending=True, stable=True)[:_MOST_COLUMNS].sort().values
        with drawing(ax, 2.5 + 0.5 * len(best), 1.5 + 0.3 * len(self.relations)) as axes:
            heat_map(
                self.accuracies[:, best],
                self.relations,
                axes,
                label="share of objects right",
                color=style.BLUE,
            )
            axes.set_xticks(torch.arange(len(best)) + 0.5, [self.heads[at] for at in best.tolist()])
            axes.tick_params("x", rotation=90)
            axes.set(xlabel="head", title=f"Relations that heads write: OV circuits on the {self.read}")
        return axes

    def __len__(self) -> int:
        return len(self.relations)

    def __repr__(self) -> str:
        heads = [f"{relation[:20]} {self.head_of(relation)}" for relation in self.relations]
        return (
            f"HeadRelations({counted(len(self.heads), 'head')} on the {self.read}: {listed(heads, 3)}; "
            f"{self.comparison.precision:.2f} of held-out facts right)"
        )

    def __str__(self) -> str:
        compared = self.comparison
        lines = [repr(self), f"{'relation':>28}  head  right when chosen  held out  most frequent"]
        for place, relation in enumerate(self.relations):
            row = compared.relations.index(relation)
            held_out = float(compared.right[row] / compared.known[row])
            accuracy = float(self.accuracies[place, self.chosen[place]])
            lines.append(
                f"{relation[:28]:>28}  {self.head_of(relation):>5}  {accuracy:17.2f}  {held_out:8.2f}  "
                f"{float(self.chance[place]):13.2f}"
            )
        return "\n".join(lines)


def find_head_relations(
    model: HookedModel,
    known: Sequence[Triple],
    *,
    read: str,
    choose: float,
    seed: int,
    batch_size: int,
    verbose: bool,
) -> HeadRelations:
    """Returns the heads of relations; see `KnowledgeGraphExtractor.from_heads`."""
    by_relation: dict[str, dict[str, str]] = {}
    for subject, relation, target in known:
        by_relation.setdefault(relation, {}).setdefault(subject, target)
    for relation, pairs in by_relation.items():
        if len(pairs) < 2 or len(set(pairs.values())) < 2:
            raise ArgumentError(
                f"relation {relation!r} has {counted(len(pairs), 'subject')} and "
                f"{counted(len(set(pairs.values())), 'object')}: expected two or more of each"
            )
    subjects = list(dict.fromkeys(subject for pairs in by_relation.values() for subject in pairs))
    heads = [
        f"{layer}.{head}"
        for layer, attention in sorted(model.points.attentions.items())
        for head in range(attention.num_heads)
    ]
    logits = _head_logits(model, subjects, by_relation, read, batch_size, verbose)
    rows, chances, chosen, facts, scores, truth = [], [], [], list[Triple](), list[float](), list[Triple]()
    for relation, pairs in by_relation.items():
        objects, found = list(dict.fromkeys(pairs.values())), logits[relation]
        right = torch.tensor([objects.index(target) for target in pairs.values()])
        order = torch.randperm(len(pairs), generator=make_generator(seed))
        cut = min(max(1, round(choose * len(pairs))), len(pairs) - 1)
        first, rest = order[:cut], order[cut:]
        rows.append((found[:, first].argmax(-1) == right[first]).double().mean(1))
        chosen.append(int(rows[-1].argmax()))
        chances.append(float(right[first].bincount().max() / len(first)))
        names = list(pairs)
        best = found[chosen[-1], rest]
        standard = (best - best.mean(-1, keepdim=True)) / best.std(-1, keepdim=True).clamp_min(1e-12)
        for subject, row in zip(rest.tolist(), standard, strict=True):
            facts.append((names[subject], relation, objects[int(row.argmax())]))
            scores.append(float(row.max()))
            truth.append((names[subject], relation, pairs[names[subject]]))
    return HeadRelations(
        relations=tuple(by_relation),
        heads=tuple(heads),
        accuracies=torch.stack(rows),
        chance=torch.tensor(chances, dtype=torch.float64),
        chosen=torch.tensor(chosen),
        graph=KnowledgeGraph(facts=tuple(facts), scores=torch.tensor(scores), source=f"heads on the {read}"),
        known=tuple(truth),
        read=read,
    )


def _head_logits(
    model: HookedModel,
    subjects: Sequence[str],
    by_relation: Mapping[str, Mapping[str, str]],
    read: str,
    batch_size: int,
    verbose: bool,
) -> dict[str, Tensor]:
    """For each relation what each head adds to the logits of its objects, (heads, subjects, objects).

    The mean over subjects is taken off: it is what a head writes whatever it reads.
    """
    tokenizer = model.tokenizer
    place = {subject: number for number, subject in enumerate(subjects)}
    first = {
        relation: [
            continuation(tokenizer, next(iter(pairs)), target)[0] for target in dict.fromkeys(pairs.values())
        ]
        for relation, pairs in by_relation.items()
    }
    unembedding = unembedding_weights(model, fold_norm=True)
    found: dict[str, list[Tensor]] = {relation: [] for relation in by_relation}
    for layer, values in _values(model, subjects, read, batch_size, verbose):
        outputs = head_weights(model, layer, fold_norms=True).W_O
        written = torch.einsum("shd,hdw->hsw", values.to(outputs), outputs)
        for relation, pairs in by_relation.items():
            rows = [place[subject] for subject in pairs]
            found[relation].append((written[:, rows] @ unembedding[:, first[relation]].to(written)).cpu())
    logits = {relation: torch.cat(parts) for relation, parts in found.items()}
    return {relation: one - one.mean(1, keepdim=True) for relation, one in logits.items()}


def _values(
    model: HookedModel, subjects: Sequence[str], read: str, batch_size: int, verbose: bool
) -> Iterator[tuple[int, Tensor]]:
    """The values (subjects, heads, numbers) of the last token of each subject, layer by layer."""
    rows = [list(tokenize(model.tokenizer, subject).ids) for subject in subjects]
    layers = sorted(model.points.attentions)
    if read == "embedding":
        vectors = embedding_weights(model)[[row[-1] for row in rows]]
        for layer in layers:
            weights = head_weights(model, layer, fold_norms=True)
            yield layer, torch.einsum("sw,hwd->shd", vectors.to(weights.W_V), weights.W_V)
        return
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    with torch.no_grad(), evaluating(model.model):
        for start in tqdm(range(0, len(rows), batch_size), desc="subjects", disable=not verbose):
            batch = rows[start : start + batch_size]
            cache = model.run_with_cache(batch, [("v", layer) for layer in layers])[1]
            last = torch.tensor([len(row) - 1 for row in batch])
            for layer in layers:
                found[layer].append(cache["v", layer][torch.arange(len(batch)), last].float().cpu())
    for layer in layers:
        attention = model.points.attentions[layer]
        repeats = attention.num_heads // attention.num_key_value_heads
        yield layer, torch.cat(found[layer]).repeat_interleave(repeats, 1)
