"""What the values of memories promote: their distributions over the vocabulary.

The value v of a neuron is a vector of the residual stream. Read out by the output embedding E as the state of
the last layer would be, it is a distribution over tokens, p = softmax(E v), at coefficient 1 (Geva et al.
2021, section 4, arXiv:2012.14913). No matrix of neurons by tokens is kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ShapeError
from ...core.tensor_specs import Spec, specs

_CELLS = 2**24  # numbers of neurons times tokens that are held at once


@dataclass(frozen=True, eq=False)
class ValueDistributions:
    """The likeliest tokens under the value of each neuron.

    Attributes:
        tokens: The likeliest tokens first, (neurons, top).
        probabilities: Their probabilities, (neurons, top).
        ranks: How many tokens are likelier than the one asked for, (neurons,); -1 where none was.
    """

    tokens: Tensor
    probabilities: Tensor
    ranks: Tensor

    _specs = specs(
        tokens=Spec("neurons top", "integer"),
        probabilities=Spec("neurons top", finite=True),
        ranks=Spec("neurons", "integer"),
    )


@checked
@torch.no_grad()
def promoted_tokens(
    values: Tensor,
    embedding: Tensor,
    *,
    top: int = 10,
    asked: Tensor | None = None,
    norm: Callable[[Tensor], Tensor] | None = None,
) -> ValueDistributions:
    """Returns the tokens that values promote.

    Args:
        values: (neurons, width).
        embedding: The output embedding, (vocabulary, width).
        top: How many of the likeliest tokens to return.
        asked: (neurons,) a token of each neuron whose rank is returned, such as the one that follows its
            strongest trigger; -1 for none.
        norm: Is applied to the values before the embedding, such as the final norm; the paper applies none.

    Raises:
        ShapeError: The widths differ.

    Example:
        >>> found = promoted_tokens(torch.eye(2), torch.tensor([[4.0, 0], [0, 2.0], [0, 0]]), top=1)
        >>> found.tokens.tolist()
        [[0], [1]]
    """
    check_counts(1, top=top)
    if values.dim() != 2 or embedding.dim() != 2 or values.shape[1] != embedding.shape[1]:
        raise ShapeError(
            f"expected values (neurons, width) and an embedding (vocabulary, width) of the same width, got "
            f"{tuple(values.shape)} and {tuple(embedding.shape)}"
        )
    precision = torch.promote_types(embedding.dtype, torch.float32)
    embedding, top = embedding.to(precision), min(top, len(embedding))
    parts = []
    for some, tokens in _chunks(values, asked, max(1, _CELLS // len(embedding))):
        read = some.to(embedding.device)
        read = read if norm is None else norm(read)  # in the precision of the model
        parts.append(_distributions(read.to(precision) @ embedding.T, top, tokens))
    return ValueDistributions(
        torch.cat([part.tokens for part in parts]),
        torch.cat([part.probabilities for part in parts]),
        torch.cat([part.ranks for part in parts]),
    )


def _chunks(values: Tensor, asked: Tensor | None, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    tokens = torch.full((len(values),), -1) if asked is None else asked
    return zip(values.split(size), tokens.split(size), strict=True)


def _distributions(logits: Tensor, top: int, asked: Tensor) -> ValueDistributions:
    likeliest = logits.topk(top)
    probabilities = (likeliest.values - logits.logsumexp(1, keepdim=True)).exp()
    asked = asked.long().to(logits.device)
    logit = logits.gather(1, asked.clamp(min=0)[:, None])
    ranks = torch.where(asked < 0, -1, (logits > logit).sum(1))
    return ValueDistributions(likeliest.indices.int().cpu(), probabilities.float().cpu(), ranks.int().cpu())
