"""Scores of attention heads: previous token, repeated tokens, first token, entropy, distance."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ...core.checks import MOST, check_counts, checked
from ...core.errors import ArgumentError, ShapeError
from ...core.kinds import shown
from ...core.seeding import make_generator
from ...instrument.heads.attention_batches import AttentionBatch
from ...instrument.heads.behaviours import behaviours_of_text
from .score_table import SCORES, HeadScores

Sums = dict[str, tuple[Tensor, int]]  # by score the sums (heads,) of one text, and over how many rows


@checked
def head_scores(
    attentions: Tensor | Sequence[Tensor] | Mapping[str, Tensor],
    tokens: Tensor | None = None,
    *,
    mask: Tensor | None = None,
) -> HeadScores:
    """Returns scores of all heads, from their attention weights.

    With L repeated tokens, and A the weights of a query row and a key: previous is the mean of A[q, q-1] over
    q >= 1, duplicate the mean of A[q, q-L] and induction that of A[q, q-(L-1)] over the second half.

    Args:
        attentions: Of each layer (batch, heads, query, key), after the softmax: a tensor of all layers, a
            sequence such as the ``attentions`` of Hugging Face, or by the names of the layers.
        tokens: (batch, length) numbers of the tokens. Repeated tokens are scored if each text is a sequence
            twice, with or without a beginning token, as `repeated_tokens` makes them.
        mask: (batch, length), 1 for tokens and 0 for padding; None if there is no padding.

    Raises:
        ArgumentError: A row has negative weights, or another sum than 1.
        NonFiniteError: A row has NaN in it.
        ShapeError: A tensor has another shape.

    Example:
        >>> previous, induction = torch.zeros(1, 2, 7, 7).unbind(1)
        >>> tokens = repeated_tokens(1, 3, 5, 100, bos=0)
        >>> weights = torch.stack([torch.eye(7).roll(-1, 1), torch.eye(7).roll(-2, 1)])  # to q - 1, to q - 2
        >>> head_scores(weights[None, None], tokens).top("induction", 1)
        (('0.1', 1.0),)
    """
    if isinstance(attentions, Tensor) and attentions.dim() != 5:
        raise ShapeError(f"expected (layers, batch, heads, query, key), got {tuple(attentions.shape)}")
    weights = list(attentions) if isinstance(attentions, Tensor) else attentions
    batch = AttentionBatch(weights, mask, tokens)
    batch.check()
    found: list[Sums] = []
    rows = 0
    for index, of_text, places in batch.texts():
        found.append(_sums_of_text(of_text, None if tokens is None else tokens[index].cpu()[places]))
        rows += len(places)
    if not found:
        raise ArgumentError("there is no token: the mask is 0 everywhere")
    scores = {name: _by_layer([text.get(name) for text in found], batch.heads) for name in SCORES}
    return HeadScores(**scores, layer_names=tuple(batch.layers), texts=len(found), rows=rows)  # type: ignore[arg-type]


@checked
def repeated_tokens(
    batch: int, length: int, low: int, high: int, *, bos: int | None = None, seed: int = 0
) -> Tensor:
    """Returns random tokens twice, (batch, 2 length), after a beginning token if one is given.

    Args:
        batch: How many sequences.
        length: How many tokens are repeated.
        low: The smallest token to draw.
        high: The smallest token that is not drawn any more.
        bos: The beginning token; with it a sequence has one token more.
        seed: Draws the tokens, by `torch.randint`.

    Raises:
        ArgumentError: A count is not positive, or there is no token to draw.

    Example:
        >>> repeated_tokens(1, 3, 10, 20, bos=0)
        tensor([[ 0, 14, 19, 13, 14, 19, 13]])
    """
    check_counts(1, batch=batch, length=length)
    if not 0 <= low < high:
        raise ArgumentError(f"tokens are drawn from low to high - 1, from 0 on: got {low} and {high}")
    if bos is not None and not 0 <= bos < MOST:
        raise ArgumentError(f"bos is the number of a token, from 0 on, got {shown(bos)}")
    tokens = torch.randint(low, high, (batch, length), generator=make_generator(seed))
    begin = [] if bos is None else [torch.full((batch, 1), bos)]
    return torch.cat([*begin, tokens, tokens], 1)


def _sums_of_text(weights: Tensor, tokens: Tensor | None) -> Sums:
    """The sums of all scores that can be told of one text, from weights (heads, tokens, tokens)."""
    rows = weights.shape[-1]
    behaviours = behaviours_of_text(weights)
    sums = {name: (behaviours[name], rows) for name in ("first", "same", "entropy", "distance")}
    sums["previous"] = behaviours["previous"], rows - 1
    sums["previous_share"] = behaviours["previous"], rows
    if tokens is None:
        return sums
    earlier = (tokens[:, None] == tokens).tril(-1)
    after = torch.zeros_like(earlier)
    after[:, 1:] = earlier[:, :-1]
    for name, places in (("duplicate_share", earlier), ("induction_share", after)):
        sums[name] = (weights * places.to(weights)).sum((1, 2)).cpu().double(), rows
    if length := _repeated(tokens):
        sums["duplicate"] = _second_half(weights, length, length)
        sums["induction"] = _second_half(weights, length, length - 1)
    return sums


def _repeated(tokens: Tensor) -> int:
    """How many tokens are repeated, after a beginning token if their number is odd; 0 for other texts."""
    length = len(tokens) // 2
    repeated = length > 1 and torch.equal(tokens[-2 * length : -length], tokens[-length:])
    return length if repeated else 0


def _second_half(weights: Tensor, length: int, distance: int) -> tuple[Tensor, int]:
    """The sum of the weights of keys at a distance over the queries of the second half."""
    return weights.diagonal(-distance, 1, 2)[:, -length:].sum(1).cpu().double(), length


def _by_layer(sums: Sequence[tuple[Tensor, int] | None], heads: Sequence[int]) -> Tensor | None:
    """Means (layers, heads) over the rows of all texts; None if a text does not tell."""
    known = [one for one in sums if one is not None]
    if len(known) < len(sums):
        return None
    total = torch.stack([values for values, _ in known]).sum(0) / sum(rows for _, rows in known)
    return pad_sequence(list(total.split(list(heads))), batch_first=True, padding_value=torch.nan)
