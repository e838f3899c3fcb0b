"""Pairs of prompts that call for a known behaviour: indirect objects, greater-than."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from ...core.summaries import counted
from ...core.tokenizers import encoded_by
from ..model.hooked_model import HookedModel
from ..patching.metrics import Metric, Read, logit_difference

NAMES = (
    *("Mary", "John", "Tom", "James", "Anna", "Kate", "Paul", "Mark", "Sarah", "David", "Peter", "Alice"),
    *("Lucy", "Jack", "Robert", "Emma", "Laura", "Simon", "Daniel", "Michael", "Susan", "George", "Henry"),
)
PLACES = ("store", "park", "school", "office", "station", "hospital", "restaurant", "garden")
OBJECTS = ("drink", "book", "ring", "letter", "ball", "gift", "key", "phone")
NOUNS = ("war", "strike", "trial", "siege", "conflict", "alliance", "voyage", "reign", "plague", "dispute")
_CENTURIES = (11, 12, 13, 14, 15, 16, 17, 18)


@checked
@dataclass(frozen=True, eq=False)
class PromptPairs:
    """Clean and corrupt prompts of one number of tokens, and what tells them apart.

    Attributes:
        clean: The prompts.
        corrupt: A corrupt one for each.
        metric: High for a model that does the task.

    ``attribution_graph(model, *pairs)`` takes the three in this order.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import logit_difference
        >>> model, tokenizer, world = facts_gpt()
        >>> town, other = world.facts[0].target, world.alternatives(world.facts[0])[0]
        >>> pairs = PromptPairs(("Ann lives in",), ("Bob lives in",), logit_difference([town], [other]))
        >>> pairs.metric
        Metric('logit difference')
    """

    clean: tuple[str, ...]
    corrupt: tuple[str, ...]
    metric: Metric

    def __iter__(self) -> Any:
        """Yields clean prompts, corrupt prompts and metric."""
        return iter((list(self.clean), list(self.corrupt), self.metric))

    def __len__(self) -> int:
        return len(self.clean)

    def __repr__(self) -> str:
        return f"PromptPairs({counted(len(self), 'pair')}, {self.metric.name}, {self.clean[0]!r:.60})"


@checked
def indirect_objects(tokenizer: Any, count: int = 40, seed: int = 0) -> PromptPairs:
    """Returns prompts such as "When Mary and John went to the store, John gave a drink to", and the answers.

    Wang et al. 2022 (arXiv:2211.00593): the answer is the name that comes once, the wrong answer is the
    name that comes twice. The answer is the first name and the second one equally often. In the corrupt
    prompt three other names stand in their places, each once (ABC), so that nothing says who gets it. All
    names, places and objects are single tokens.

    Args:
        tokenizer: A tokenizer of Hugging Face.
        count: How many pairs.
        seed: Draws them.

    Raises:
        ArgumentError: The tokenizer has too few of the names as single tokens.

    Example:
        >>> from toumei.models import smollm2
        >>> model, tokenizer = smollm2()  # doctest: +SKIP
        >>> indirect_objects(tokenizer, 2).clean[0]  # doctest: +SKIP
        'When Michael and Sarah went to the garden, Sarah gave a key to'
    """
    check_counts(1, count=count)
    names, places, objects = (_single(tokenizer, words) for words in (NAMES, PLACES, OBJECTS))
    if len(names) < 5 or not places or not objects:
        raise ArgumentError(
            f"the tokenizer has {counted(len(names), 'name')}, {counted(len(places), 'place')} and "
            f"{counted(len(objects), 'object')} as single tokens: indirect objects need 5, 1 and 1 of them"
        )
    generator = make_generator(seed)
    clean, corrupt, answers, wrong = [], [], [], []
    for number in range(count):
        order = torch.randperm(len(names), generator=generator)[:5].tolist()
        answer, other, *three = (names[place] for place in order)
        place, thing = _one_of(places, generator), _one_of(objects, generator)
        two = (answer, other) if number % 2 == 0 else (other, answer)
        clean.append(_indirect((*two, other), place, thing))
        corrupt.append(_indirect(three, place, thing))
        answers.append(f" {answer}")
        wrong.append(f" {other}")
    return PromptPairs(tuple(clean), tuple(corrupt), logit_difference(answers, wrong))


@checked
def greater_than(tokenizer: Any, count: int = 40, seed: int = 0) -> PromptPairs:
    """Returns prompts such as "The war lasted from the year 1741 to the year 17", before a later year.

    Hanna et al. 2023 (arXiv:2305.00586): the metric is the probability of later years minus that of earlier
    ones. The corrupt prompt has the year 1701, so that each year is later. Where the tokenizer splits numbers
    into digits, the next token is the digit of the tens: the metric then leaves out the same digit, which may
    begin a later or an earlier year.

    Args:
        tokenizer: A tokenizer of Hugging Face.
        count: How many pairs.
        seed: Draws them.

    Raises:
        ArgumentError: The tokenizer puts years together in other ways.

    Example:
        >>> from toumei.models import smollm2
        >>> model, tokenizer = smollm2()  # doctest: +SKIP
        >>> greater_than(tokenizer, 2).clean[0]  # doctest: +SKIP
        'The conflict lasted from the year 1873 to the year 18'
    """
    check_counts(1, count=count)
    nouns = _single(tokenizer, NOUNS)
    if not nouns:
        raise ArgumentError(f"the tokenizer has none of {', '.join(NOUNS)} as a single token")
    ends = _ends_of_years(tokenizer)
    generator = make_generator(seed)
    clean, corrupt, years = [], [], []
    for _ in range(count):
        noun, century = _one_of(nouns, generator), _one_of(_CENTURIES, generator)
        year = int(torch.randint(20, 80, (), generator=generator))
        clean.append(_span(noun, century, year))
        corrupt.append(_span(noun, century, 1))
        years.append(year)
    return PromptPairs(tuple(clean), tuple(corrupt), _later(years, ends))


def _indirect(names: Sequence[str], place: str, thing: str) -> str:
    first, second, giver = names
    return f"When {first} and {second} went to the {place}, {giver} gave a {thing} to"


def _span(noun: str, century: int, year: int) -> str:
    return f"The {noun} lasted from the year {century}{year:02d} to the year {century}"


def _single(tokenizer: Any, words: Sequence[str]) -> list[str]:
    """The words that are one token after a space, each another one and known to the tokenizer."""
    found: dict[int, str] = {}
    for word in words:
        ids = encoded_by(tokenizer, f" {word}", add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            found.setdefault(ids[0], word)
    return list(found.values())


def _one_of(items: Sequence[Any], generator: torch.Generator | None) -> Any:
    return items[int(torch.randint(len(items), (), generator=generator))]


def _ends_of_years(tokenizer: Any) -> Tensor:
    """The token that follows "... to the year 17" for each year from 00 to 99, (100,)."""
    prompt = _span("war", 17, 41)
    before = encoded_by(tokenizer, prompt)["input_ids"]
    found = []
    for year in range(100):
        ids = encoded_by(tokenizer, f"{prompt}{year:02d}")["input_ids"]
        if ids[: len(before)] != before or len(ids) <= len(before):
            raise ArgumentError(
                f"the tokenizer does not split 17{year:02d} after the century, so that no token says how a "
                f"year ends: its tokens are {tokenizer.convert_ids_to_tokens(ids[-3:])}"
            )
        found.append(ids[len(before)])
    return torch.tensor(found)


def _later(years: Sequence[int], ends: Tensor) -> Metric:
    """The probability of later years minus that of earlier ones."""
    tokens, group = ends.unique(return_inverse=True)
    by_year = torch.arange(100)
    weights = torch.zeros(len(years), len(tokens))
    for row, year in zip(weights, years, strict=True):
        same = group == group[year]
        sign = torch.where(by_year > year, 1.0, -1.0)
        sign[same & (same.sum() > 1)] = 0.0  # a digit that begins earlier and later years
        row[group] = sign

    def prepare(model: HookedModel, ids: Tensor | None, clean: Tensor) -> Read:
        if len(clean) != len(weights):
            raise ArgumentError(f"the metric is of {counted(len(weights), 'prompt')}, got {len(clean)}")

        def read(logits: Tensor) -> Tensor:
            probabilities = logits.float().softmax(-1)[..., tokens.to(logits.device)]
            return (probabilities * weights.to(logits.device)).sum(-1)

        return read

    return Metric("p(later) - p(earlier)", prepare)
