"""Attention weights as the numbers of a page: checked, without padding, long ones in blocks, as bytes."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.errors import ArgumentError, NonFiniteError, ShapeError
from ..core.kinds import shown
from ..core.summaries import counted, shortened

Layers = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
Tokens = Sequence[str] | Sequence[Sequence[str]]

_MOST = 1.02  # of a weight; half precision rounds


def named_layers(attentions: Layers) -> dict[str, Tensor]:
    """Returns the weights (batch, heads, query, key) of each layer by name, by number where they have none.

    Raises:
        ArgumentError: There is no layer, or a weight is no share.
        NonFiniteError: A weight is not finite.
        ShapeError: A tensor has another shape, or layers differ in more than their heads.
    """
    if not isinstance(attentions, Mapping):
        if isinstance(attentions, Tensor) and not attentions.dim():
            raise ShapeError(f"expected the attention weights of layers, got {shown(attentions)}")
        attentions = {str(place): layer for place, layer in enumerate(attentions)}
    layers = dict(attentions)
    if not layers:
        raise ArgumentError("no attention weights: there is no layer")
    first = next(iter(layers.values()))
    for name, weights in layers.items():
        if not isinstance(weights, Tensor) or weights.dim() != 4 or not weights.is_floating_point():
            expected = "expected attention weights (batch, heads, query, key)"
            raise ShapeError(f"{expected} of layer {name!r}, got {shown(weights)}")
        sizes = [(one.shape[0], *one.shape[2:]) for one in (weights, first)]
        if not weights.numel() or sizes[0] != sizes[1]:
            raise ShapeError(
                f"all layers have the same texts and tokens, got {tuple(weights.shape)} in layer {name!r} "
                f"and {tuple(first.shape)} in the first"
            )
    return layers


def listed_tokens(given: Tokens, mask: Tensor | None, batch: int, length: int, what: str) -> list[list[str]]:
    """Returns the tokens of each text, without padding.

    Args:
        given: The tokens of one text, or of each text; with padding or without.
        mask: (batch, length), 1 for tokens and 0 for padding, or None.
        batch: How many texts there are.
        length: How many tokens the weights have.
        what: What they are called in messages.

    Raises:
        ShapeError: There are other numbers of texts or of tokens.
    """
    single = all(isinstance(token, str) for token in given)
    texts = [list(map(str, text)) for text in ([given] if single else given)]
    if len(texts) != batch:
        raise ShapeError(f"expected {what} of {counted(batch, 'text')}, got {len(texts)}")
    places = real_places(mask, batch, length, what)
    for index, text in enumerate(texts):
        count = len(places[index])
        if len(text) == length:
            texts[index] = [text[place] for place in places[index].tolist()]
        elif len(text) != count:
            raise ShapeError(
                f"text {index} has {counted(len(text), what.removesuffix('s'))}, "
                f"its attention weights have {length}"
                + (f", {count} without padding" if count < length else "")
            )
    return texts


def real_places(mask: Tensor | None, batch: int, length: int, what: str) -> list[Tensor]:
    """Returns where the tokens of each text are that are no padding.

    Raises:
        ArgumentError: A text has no token.
        ShapeError: The mask has another shape.
    """
    if mask is None:
        return [torch.arange(length)] * batch
    if tuple(mask.shape) != (batch, length):
        raise ShapeError(f"expected a mask of {what} (batch, length) = {(batch, length)}, got {shown(mask)}")
    places = [row.nonzero()[:, 0].cpu() for row in mask]
    empty = [index for index, found in enumerate(places) if not len(found)]
    if empty:
        raise ArgumentError(f"text {empty[0]} has no {what}: its mask is 0 everywhere")
    return places


def in_blocks(weights: Tensor, block: tuple[int, int]) -> Tensor:
    """Returns weights between blocks of tokens: means over the queries of a block, sums over its keys.

    Rows keep their sums; the last block may be shorter.

    Args:
        weights: (heads, query, key).
        block: How many queries and how many keys a block has.

    Example:
        >>> in_blocks(torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]]), (2, 2))
        tensor([[[1.0000, 0.0000],
                 [0.5000, 0.5000]]])
    """
    for axis, size in zip((1, 2), block, strict=True):
        parts = weights.split(size, axis)
        weights = torch.stack([part.mean(1) if axis == 1 else part.sum(2) for part in parts], axis)
    return weights


def packed(weights: Tensor, triangle: bool) -> bytes:
    """Returns weights as bytes: 255 times their square root, rounded, so that small ones are told apart.

    The error is at most 0.004 times the root of the weight.

    Args:
        weights: (heads, query, key), from 0 to 1.
        triangle: Whether keys after the query are left out, which have the weight 0.

    Raises:
        ArgumentError: A weight is no share.
        NonFiniteError: A weight is not finite.

    Example:
        >>> list(packed(torch.tensor([[[1.0, 0.0], [0.25, 0.01]]]), triangle=True))
        [255, 128, 26]
    """
    if not bool(weights.isfinite().all()):
        raise NonFiniteError("attention weights have NaN or infinity in them; padding is left out by a mask")
    least, most = float(weights.min()), float(weights.max())
    if least < 0 or most > _MOST:
        raise ArgumentError(f"attention weights are from 0 to 1, got {least:.4g} to {most:.4g}")
    codes = (weights.clamp(0, 1).sqrt() * 255).round().to(torch.uint8)
    if triangle:
        rows, columns = torch.tril_indices(*codes.shape[1:])
        codes = codes[:, rows, columns]
    return codes.contiguous().numpy().tobytes()


def text_data(
    layers: Sequence[Tensor], queries: list[str], keys: list[str] | None, most: int
) -> dict[str, Any]:
    """Returns what the page needs of one text, for JSON.

    Args:
        layers: Of each layer (heads, query, key).
        queries: The tokens.
        keys: Those of the keys; None for self-attention.
        most: The most tokens on a side; longer texts are shown in blocks.

    Raises:
        ArgumentError: A weight is no share.
        NonFiniteError: A weight is not finite.
    """
    block = -(-layers[0].shape[1] // most), -(-layers[0].shape[2] // most)
    shown_layers = [in_blocks(layer.detach().float().cpu(), block) for layer in layers]
    triangle = keys is None and not any(bool(layer.triu(1).any()) for layer in shown_layers)
    return {
        "queries": _joined(queries, block[0]),
        "keys": None if keys is None else _joined(keys, block[1]),
        "block": block,
        "counts": [len(queries), len(queries) if keys is None else len(keys)],
        "triangle": triangle,
        "weights": b64encode(b"".join(packed(layer, triangle) for layer in shown_layers)).decode(),
    }


def text_name(number: int, tokens: Sequence[str]) -> str:
    """Returns what a text is called in a list: its number and how it begins."""
    return f"{number + 1}: {shortened(' '.join(''.join(tokens[:60]).split()), 50)}"


def _joined(tokens: list[str], block: int) -> list[str]:
    """The text of each block."""
    return ["".join(tokens[start : start + block]) for start in range(0, len(tokens), block)]
