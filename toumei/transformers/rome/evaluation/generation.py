"""What an edited model writes: how varied it is, and whether it fits what is now true.

Generation entropy and reference score of CounterFact (Meng et al., 2022, app. C), as fractions of one: the
paper's numbers are a hundred times as large.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from math import log2
from typing import TYPE_CHECKING, Any

from ....core.errors import ArgumentError
from ...model.families import Anatomy
from ...model.sampling import sampled_tokens

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer


def generate(
    parts: Anatomy, tokenizer: Any, prompts: Sequence[str], length: int, seed: int | None = 0
) -> list[str]:
    """Returns for each prompt one text that the model goes on to, prompt included.

    Args:
        parts: The model.
        tokenizer: Its tokenizer.
        prompts: Beginnings.
        length: How many tokens are added to each, drawn out of the five likeliest.
        seed: Of the draws.
    """
    drawn = (sampled_tokens(parts, tokenizer, prompt, 1, length, seed=seed)[0] for prompt in prompts)
    return [tokenizer.decode(row, skip_special_tokens=True) for row in drawn]


def entropy(text: str) -> float:
    """Returns the weighted entropy of a text's word pairs (1/3) and triples (2/3), in bits.

    The weights are those of the paper's code: 2/3 and 4/3, averaged. Repetition makes it small. Words and
    marks are told apart by a regular expression, in the paper's code by NLTK, which also splits "don't".

    Example:
        >>> entropy("the same and the same and the same") < entropy("it says one thing after another")
        True
    """
    words = _words(text)
    return (2 / 3 * _ngram_entropy(words, 2) + 4 / 3 * _ngram_entropy(words, 3)) / 2


def fitted_vectorizer(corpus: Iterable[str]) -> "TfidfVectorizer":
    """Returns what turns texts into TF-IDF vectors, with the word frequencies of a corpus.

    Args:
        corpus: Texts, such as all references of an evaluation. The paper has those of its own collection, so
            its scores are comparable only with a vectorizer that has these.

    Raises:
        ArgumentError: The corpus has no words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        return TfidfVectorizer().fit(corpus)
    except ValueError as error:
        raise ArgumentError(f"expected texts with words, to count in how many each is: {error}") from None


def reference_score(texts: Sequence[str], references: Sequence[str], vectorizer: "TfidfVectorizer") -> float:
    """Returns the cosine of the TF-IDF of generated texts and of texts about subjects with the same answer.

    Args:
        texts: What the model wrote.
        references: What is said of subjects for which the new target is true.
        vectorizer: Of `fitted_vectorizer`, or any fitted one of scikit-learn.

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
