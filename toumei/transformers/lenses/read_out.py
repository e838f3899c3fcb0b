"""The residual stream at each layer, and the logits that final norm and head of the model make of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.errors import ArchitectureError
from ...core.hooks import hooked, run
from ...core.modules import evaluating
from ..model.blockwise import BlockwiseRunner
from ..model.families import Anatomy
from ..model.final_stream import residual_stream
from .table import LensTable

Translate = Callable[[str, Tensor], Tensor]
_NUMBERS = 2**24  # logits that are computed at once: 64 MB


class ReadOut:
    """Computes logits from vectors of the residual stream.

    Args:
        parts: The model.

    Attributes:
        at_once: How many vectors are read out at once, so that memory does not grow with layers and tokens.
    """

    def __init__(self, parts: Anatomy) -> None:
        self._runner = BlockwiseRunner(parts)
        self._token = parts.two_tokens[:, :1]
        self.at_once = max(1, _NUMBERS // parts.vocabulary)

    def __call__(self, vectors: Tensor) -> Tensor:
        """Returns log probabilities (N, tokens) in float32 of vectors (N, width)."""
        return self._runner.logits(vectors, self._token).float().log_softmax(1)


def streams_of(
    parts: Anatomy, ids: Tensor, *, embedding: bool = False, middles: bool = False
) -> dict[str, Tensor]:
    """Returns the residual stream (N, T, width) at each layer, by the names of rows of a `LensTable`.

    Args:
        parts: The model.
        ids: Tokens (N, T).
        embedding: Whether to begin with what the first block takes.
        middles: Whether to give the stream between attention and MLP, too.

    Raises:
        ArchitectureError: There is no stream between attention and MLP, as in parallel blocks.
    """
    names = {str(layer): f"{name}#0" for layer, name in enumerate(parts.blocks)}
    if middles:
        between = residual_stream(parts).middles
        if None in between:
            raise ArchitectureError(
                f"layer {between.index(None)} of {type(parts.model).__name__} has no stream between "
                f"attention and MLP: they are parallel, or one of them is missing"
            )
        names |= {f"{layer} mid": str(name) for layer, name in enumerate(between)}
    first = [f"{parts.blocks[0]}#0"] if embedding else []
    with hooked(parts.model, first, inputs=True, detach=True, clone=False) as given:
        found = run(parts.model, ids, record=names, detach=True)
    rows = dict.fromkeys(("embedding",) * embedding, given[first[0]] if first else None)
    for layer in range(parts.layers):
        for row in (f"{layer} mid",) * middles + (str(layer),):
            rows[row] = found[row]
    device = found[str(parts.layers - 1)].device
    return {
        row: tensor.to(device).reshape(*ids.shape, -1) for row, tensor in rows.items() if tensor is not None
    }


@torch.no_grad()
def lens_table(
    parts: Anatomy,
    tokenizer: Any,
    prompt: str,
    tokens: Sequence[int],
    streams: Mapping[str, Tensor],
    *,
    lens: str,
    top: int,
    translate: Translate = lambda layer, vectors: vectors,
) -> LensTable:
    """Returns what a lens predicts from streams (1, T, width).

    Args:
        parts: The model.
        tokenizer: Its tokenizer.
        prompt: The text.
        tokens: Its tokens.
        streams: By layer; the last one is the model's.
        lens: What the lens is called.
        top: How many of the likeliest tokens to keep.
        translate: From a layer and vectors (N, width) to those that are read out.
    """
    with evaluating(parts.model):
        read_out = ReadOut(parts)
        following = torch.tensor([*tokens[1:], 0], device=next(iter(streams.values())).device)
        found: list[list[dict[str, Tensor]]] = [[] for _ in streams]
        for start in range(0, len(tokens), read_out.at_once):
            chunk = slice(start, start + read_out.at_once)
            *_, last = streams.values()
            final = read_out(last[0, chunk])
            for (layer, stream), rows in zip(streams.items(), found, strict=True):
                vectors = translate(layer, stream[0, chunk])
                predicted = final if stream is last else read_out(vectors)
                rows.append(_statistics(predicted, final, following[chunk], top))
    values = {
        name: torch.stack([torch.cat([one[name] for one in rows]) for rows in found]).cpu()
        for name in found[0][0]
    }
    return LensTable(
        prompt=prompt,
        lens=lens,
        tokens=tuple(tokenizer.decode([token]) for token in tokens),
        layers=tuple(streams),
        top=tuple(
            tuple(tuple(tokenizer.decode([token]) for token in best) for best in row)
            for row in values["top"].tolist()
        ),
        top_probabilities=values["top_probabilities"],
        entropies=values["entropies"],
        divergences=values["divergences"],
        next_probabilities=values["next_probabilities"][:, :-1],
        next_ranks=values["next_ranks"][:, :-1],
    )


def divergence(final: Tensor, predicted: Tensor) -> Tensor:
    """Returns KL(final || predicted) of log probabilities (N, tokens), (N,) in nats.

    Example:
        >>> even, sure = torch.full((1, 2), 0.5).log(), torch.tensor([[1.0, 0.0]]).log()
        >>> divergence(sure, even), divergence(sure, sure)
        (tensor([0.6931]), tensor([0.]))
    """
    each = F.kl_div(predicted, final, reduction="none", log_target=True)
    return each.masked_fill(final.isneginf(), 0.0).sum(1)  # an impossible token adds nothing


def _statistics(predicted: Tensor, final: Tensor, following: Tensor, top: int) -> dict[str, Tensor]:
    probabilities = predicted.exp()
    best = probabilities.topk(min(top, probabilities.shape[1]))
    following = probabilities.gather(1, following[:, None])
    return {
        "top": best.indices,
        "top_probabilities": best.values,
        "entropies": torch.special.entr(probabilities).sum(1),
        "divergences": divergence(final, predicted),
        "next_probabilities": following[:, 0],
        "next_ranks": (probabilities > following).sum(1),
    }
