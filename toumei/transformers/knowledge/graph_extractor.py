"""KnowledgeGraphExtractor: the facts that a model states after prompts, and those that its heads write."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ...core.checks import check_choice, check_counts, check_seed, checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.progress import tqdm
from ...core.summaries import listed
from ..model.hooked_model import HookedModel
from ..model.scoring import score_answers
from ..model.tokens import continuation, tokenize
from .head_relations import HeadRelations, find_head_relations
from .knowledge_graph import KnowledgeGraph, Triple, check_triples


class KnowledgeGraphExtractor:
    """Reads facts out of a language model as a graph from subjects to objects.

    Args:
        model: A causal language model, with a tokenizer.
        batch_size: How many texts run at once.

    Raises:
        ArgumentError: There is no tokenizer.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> facts = [fact for fact in world.facts if fact.relation == "profession"][:20]
        >>> extractor = KnowledgeGraphExtractor(HookedModel(model, tokenizer))
        >>> graph = extractor.from_prompts(
        ...     {"profession": [fact.subject for fact in facts]}, {"profession": facts[0].prompt}
        ... )
        >>> graph.compared((fact.subject, fact.relation, fact.target) for fact in facts)
        GraphComparison(20 facts found, 20 known: precision 1.00, recall 1.00)
    """

    @checked
    def __init__(self, model: HookedModel, *, batch_size: int = 64) -> None:
        check_counts(1, batch_size=batch_size)
        if model.tokenizer is None:
            raise ArgumentError("facts are texts: give HookedModel(model, tokenizer)")
        self.model, self.batch_size = model, batch_size

    @checked
    def from_prompts(
        self,
        subjects: Mapping[str, Sequence[str]],
        templates: Mapping[str, Any],
        objects: Mapping[str, Sequence[str]] | None = None,
        *,
        verbose: bool = False,
    ) -> KnowledgeGraph:
        """Returns what the model predicts after prompts: a fact for each subject of each relation.

        Args:
            subjects: For each relation the subjects.
            templates: For each relation a prompt with ``{}`` for the subject, which the object follows, or
                several, whose probabilities are averaged.
            objects: For each relation the objects among which the likeliest is chosen, by the first token,
                and where several begin with the same one by all tokens; by default the likeliest token.
            verbose: Show progress.

        Returns:
            A graph whose scores are the probabilities of the first tokens of the objects.

        Raises:
            ArgumentError: A relation has no subjects, no template, or one without ``{}``.
        """
        facts: list[Triple] = []
        scores: list[float] = []
        prompts = {relation: _templates(templates, relation) for relation in subjects}
        for relation, given in tqdm(subjects.items(), desc="relations", disable=not verbose):
            among = None if objects is None else list(objects.get(relation, ()))
            if not given or among == []:
                raise ArgumentError(f"relation {relation!r} has no {'objects' if given else 'subjects'}")
            found = self._answers(list(given), prompts[relation], among)
            for subject, (target, score) in zip(given, found, strict=True):
                facts.append((subject, relation, target))
                scores.append(score)
        if not facts:
            raise ArgumentError("expected subjects of relations, got none")
        return KnowledgeGraph(facts=tuple(facts), scores=torch.tensor(scores), source="prompts")

    def _answers(
        self, subjects: list[str], templates: Sequence[str], among: list[str] | None
    ) -> list[tuple[str, float]]:
        """The object of each subject, and its probability."""
        tokenizer = self.model.tokenizer
        texts = [[template.format(subject) for template in templates] for subject in subjects]
        flat = self._probabilities([text for several in texts for text in several])
        means = flat.unflatten(0, (len(subjects), len(templates))).mean(1)
        if among is None:
            best = means.max(1)
            return [
                (tokenizer.decode([token]).strip(), score)
                for token, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        first = torch.tensor([continuation(tokenizer, texts[0][0], target)[0] for target in among])
        found = []
        for row, several in zip(means, texts, strict=True):
            score, token = row[first].max(0)
            tied = [one for one, begin in zip(among, first, strict=True) if begin == first[token]]
            found.append((tied[0] if len(tied) == 1 else self._likeliest(several, tied), float(score)))
        return found

    def _likeliest(self, texts: Sequence[str], among: Sequence[str]) -> str:
        """The object with the highest mean probability of all of its tokens."""
        questions = [(text, target) for target in among for text in texts]
        scored = score_answers(self.model.parts, self.model.tokenizer, questions, self.batch_size)
        sums = torch.tensor([one.probability for one in scored]).unflatten(0, (len(among), len(texts))).sum(1)
        return among[int(sums.argmax())]

    def _probabilities(self, texts: Sequence[str]) -> Tensor:
        """The probabilities of the next token (texts, tokens)."""
        rows = [list(tokenize(self.model.tokenizer, text).ids) for text in texts]
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        found: dict[int, Tensor] = {}
        with torch.no_grad(), evaluating(self.model.model):
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                logits = self.model([rows[place] for place in batch])
                for place, row in zip(batch, logits, strict=True):
                    found[place] = row[len(rows[place]) - 1].float().softmax(-1).cpu()
        return torch.stack([found[place] for place in range(len(rows))])

    @checked
    def from_heads(
        self,
        known: Sequence[Any],
        *,
        read: Literal["stream", "embedding"] = "stream",
        choose: float = 0.5,
        seed: int = 0,
        verbose: bool = False,
    ) -> HeadRelations:
        """Returns the head of each relation that writes the objects, and the facts that it knows.

        Each head reads something at the last token of a subject, and its OV circuit maps that to logits of
        the objects. The head that has most objects right is chosen on a part of the subjects; the graph shows
        what it says about the others.

        Args:
            known: Triples (subject, relation, object).
            read: What a head reads: ``"stream"``, the residual stream before its layer when the model reads
                the subject; ``"embedding"``, the embedding of the token alone, without a pass.
            choose: The share of subjects on which heads are chosen.
            seed: Of this choice.
            verbose: Show progress.

        Raises:
            ArgumentError: There are no facts, or a relation has fewer than two subjects or objects.
            ArchitectureError: The weights of the heads cannot be told.
        """
        check_choice("read", read, ("stream", "embedding"))
        check_seed(seed)
        if not 0 < choose < 1:
            raise ArgumentError(f"choose is a share between 0 and 1, got {choose}")
        return find_head_relations(
            self.model,
            check_triples(known),
            read=read,
            choose=choose,
            seed=seed,
            batch_size=self.batch_size,
            verbose=verbose,
        )

    def __repr__(self) -> str:
        return f"KnowledgeGraphExtractor({self.model!r})"


def _templates(templates: Mapping[str, Any], relation: str) -> list[str]:
    given = templates.get(relation)
    several = [given] if isinstance(given, str) else list(given or [])
    if not several:
        known = f"those of {listed(templates)}" if templates else "none"
        raise ArgumentError(f"relation {relation!r} has no template; there are {known}")
    for template in several:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise ArgumentError(f"a template has one {{}} for the subject, got {template!r}")
    return several
