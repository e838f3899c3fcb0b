"""Scores of texts that an edited model generates: their variety, and their similarity to references.

These are the generation entropy and the reference score of CounterFact (Meng et al., 2022, app. C), without
the paper's factor of 100.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from math import log2
from typing import TYPE_CHECKING, Any

from ....core.checks import check_counts, checked
from ....core.errors import ArgumentError
from ...model.families import Anatomy
from ...model.sampling import sample_tokens

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer


@checked
def generate(
    parts: Anatomy, tokenizer: Any, prompts: Sequence[str], length: int, seed: int | None = 0
) -> list[str]:
    """Returns for each prompt one sampled text, including the prompt.

    Args:
        parts: The model.
        tokenizer: Its tokenizer.
        prompts: The prompts.
        length: How many tokens are added to each prompt; each is drawn from the five likeliest.
        seed: Seed of the draws.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import anatomy
        >>> model, tokenizer, world = facts_gpt()
        >>> text = world.facts[0].text
        >>> generate(anatomy(model), tokenizer, [text], 8)[0].startswith(text)
        True
    """
    check_counts(1, length=length)
    drawn = (sample_tokens(parts, tokenizer, prompt, 1, length, seed=seed)[0] for prompt in prompts)
    return [tokenizer.decode(row, skip_special_tokens=True) for row in drawn]


@checked
def entropy(text: str) -> float:
    """Returns the weighted entropy of a text's word pairs (1/3) and triples (2/3), in bits.

    The weights are those of the paper's code: 2/3 and 4/3, averaged. Repetition makes the entropy small. A
    regular expression splits words and marks; the paper's code uses NLTK, which also splits "don't".

    Example:
        >>> entropy("the same and the same and the same") < entropy("it says one thing after another")
        True
    """
    words = _words(text)
    return (2 / 3 * _ngram_entropy(words, 2) + 4 / 3 * _ngram_entropy(words, 3)) / 2


@checked
def fitted_vectorizer(corpus: Iterable[str]) -> "TfidfVectorizer":
    """Returns a vectorizer that turns texts into TF-IDF vectors, fitted on a corpus.

    Args:
        corpus: Texts, such as all references of an evaluation. The paper fits on its collection of texts;
            scores are comparable with the paper's only with a vectorizer that was fitted on these.

    Raises:
        ArgumentError: The corpus has no words.

    Example:
        >>> vectorizer = fitted_vectorizer(["the cat sat", "the dog sat"])
        >>> vectorizer.transform(["the cat"]).shape[0]
        1
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        return TfidfVectorizer().fit(corpus)
    except ValueError as error:
        raise ArgumentError(f"expected texts with words to count: {error}") from None


@checked
def reference_score(texts: Sequence[str], references: Sequence[str], vectorizer: "TfidfVectorizer") -> float:
    """Returns the cosine of the TF-IDF vectors of generated texts and of reference texts.

    Args:
        texts: The texts that the model generated.
        references: Texts about subjects for which the new target is true.
        vectorizer: The result of `fitted_vectorizer`, or any fitted vectorizer of scikit-learn.

    Example:
        >>> vectorizer = fitted_vectorizer(["a city in France", "a town in Spain"])
        >>> round(reference_score(["a city in France"], ["a city in France"], vectorizer), 6)
        1.0
    """
    vectors = vectorizer.transform([" ".join(texts), " ".join(references)])
    return float((vectors[0] @ vectors[1].T).toarray()[0, 0])


def _ngram_entropy(words: Sequence[str], size: int) -> float:
    counts = Counter(tuple(words[start : start + size]) for start in range(len(words) - size + 1))
    total = sum(counts.values())
    return sum(count / total * log2(total / count) for count in counts.values())


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)
