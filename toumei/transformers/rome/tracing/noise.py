"""The noise on the embeddings of a subject, with which the model does not know the subject any more."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ....core.checks import checked
from ....core.errors import ArgumentError
from ....core.targets import Edit
from ...model.families import Anatomy
from ...model.tokens import fill_subject, subject_range, tokenize

SHAPES = ("gaussian", "uniform", "multivariate")


@checked
@dataclass(frozen=True)
class EmbeddingNoise:
    """The noise on the embeddings of a subject's tokens (Meng et al., 2022, appendix B).

    Attributes:
        scale: The strength in multiples of the standard deviation of the subject's embeddings.
        shape: ``"gaussian"``; ``"uniform"`` between -1 and 1 times the strength; or ``"multivariate"``, a
            Gaussian with `scale` squared times the covariance of all embeddings of the vocabulary.
        level: The absolute strength; it replaces `scale`.
        replace: Replace the embeddings by the noise instead of adding it.

    Raises:
        ArgumentError: The strength is no positive number, or the shape does not exist.

    Example:
        >>> EmbeddingNoise(2.0, "uniform").replace
        False
    """

    scale: float = 3.0
    shape: Literal["gaussian", "uniform", "multivariate"] = "gaussian"
    level: float | None = None
    replace: bool = False

    def __post_init__(self) -> None:
        strength = self.scale if self.level is None else self.level
        if not isinstance(strength, (int, float)) or not 0 < strength < float("inf"):
            raise ArgumentError(f"expected a positive strength of the noise, got {strength!r}")
        if self.shape not in SHAPES:
            raise ArgumentError(f"no noise of the shape {self.shape!r}: there are {', '.join(SHAPES)}")
        if self.level is not None and self.shape == "multivariate":
            raise ArgumentError("multivariate noise takes its strength from the covariance: give scale")


@dataclass(frozen=True)
class Corruption:
    """One draw of noise for one subject; all passes of a trace use the same draw.

    Attributes:
        values: (samples, subject tokens, width).
        first: The position of the subject's first token.
        replace: Whether the noise replaces the embeddings instead of being added.
    """

    values: Tensor
    first: int
    replace: bool

    def samples(self, start: int, end: int) -> "Corruption":
        """Returns the noise of the samples [start, end)."""
        return Corruption(self.values[start:end], self.first, self.replace)

    @property
    def edit(self) -> Edit:
        """The edit of the output of the embedding that applies the noise."""
        subject = slice(self.first, self.first + self.values.shape[1])

        def corrupt(embeddings: Tensor) -> Tensor:
            values = self.values.to(embeddings)
            embeddings[:, subject] = values if self.replace else embeddings[:, subject] + values
            return embeddings

        return corrupt


def draw_noise(
    parts: Anatomy, ids: Tensor, subject: tuple[int, int], noise: EmbeddingNoise, samples: int, seed: int
) -> Corruption:
    """Returns a draw of noise for a subject.

    The numbers come from ``numpy.random.RandomState(seed)`` in float64, as in the code of the paper. So the
    draw is the same on every device.

    Args:
        parts: Where the parts of the model are.
        ids: The prompt (1, T).
        subject: The range [first, end) of the subject's tokens.
        noise: Strength and shape of the noise.
        samples: The number of samples.
        seed: Seed of the random numbers.
    """
    embedding = parts.module(parts.embedding)
    with torch.no_grad():
        embedded = embedding(ids[:, slice(*subject)])
    shape = (samples, *embedded.shape[1:])
    random = np.random.RandomState(seed)
    drawn = random.uniform(-1, 1, shape) if noise.shape == "uniform" else random.randn(*shape)
    values = torch.from_numpy(drawn)
    if noise.shape == "multivariate":
        values = noise.scale * values @ _root_of_covariance(parts)
    else:
        level = noise.scale * embedded.double().std().item() if noise.level is None else noise.level
        values = level * values
    return Corruption(values.to(ids.device, torch.float32), subject[0], noise.replace)


def embedding_std(parts: Anatomy, tokenizer: Any, prompts: Sequence[tuple[str, str]]) -> float:
    """Returns the standard deviation of the embeddings of many subjects' tokens, over all their values.

    Args:
        parts: Where the parts of the model are.
        tokenizer: The model's tokenizer.
        prompts: Pairs of a prompt and the subject in it.
    """
    embedding = parts.module(parts.embedding)
    found = []
    for prompt, subject in prompts:
        text, start = fill_subject(prompt, subject)
        tokens = tokenize(tokenizer, text)
        first, end = subject_range(tokens, text, subject, start)
        with torch.no_grad():
            found.append(embedding(torch.tensor([tokens.ids[first:end]], device=parts.device))[0])
    return float(torch.cat(found).double().std())


def _root_of_covariance(parts: Anatomy) -> Tensor:
    """The square root of the covariance of the embeddings of all tokens, (width, width)."""
    embedding: Any = parts.module(parts.embedding)
    with torch.no_grad():
        embeddings = embedding(torch.arange(len(embedding.weight), device=parts.device)).double().cpu()
    values, vectors = torch.linalg.eigh(torch.cov(embeddings.T))
    result: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return result
