"""How much of each input token reaches an output through the attention of all layers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError, ShapeError
from ...core.progress import tqdm
from ...instrument.heads.attention_batches import AttentionBatch

_UNITS = 2**30  # of a capacity of 1; SciPy takes whole numbers of 32 bits

Weights = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


@checked
def attention_rollout(
    attentions: Weights, *, mask: Tensor | None = None, without_first: bool = False
) -> Tensor:
    """Returns how much of each input token a token after the last layer holds, (batch, query, key).

    Attention is mixed with the residual stream, A' = A / 2 + I / 2 with A the mean over the heads of a layer.
    The layers are multiplied: A'_L ... A'_1 (Abnar & Zuidema 2020, arXiv:2005.00928, section 3). Rows have
    the sum 1; those of padding are 0. For the first layers alone, give these alone.

    Args:
        attentions: Of each layer (batch, heads, query, key), the first layer first: a tensor of all layers, a
            sequence such as the ``attentions`` of Hugging Face, or by the names of the layers.
        mask: (batch, length), 1 for tokens and 0 for padding; None if there is no padding.
        without_first: Leaves out attention to the first token and divides what remains by its sum. Causal
            models attend to the first token where they look for nothing, so that it seems to hold most. A
            row without anything else keeps its token.

    Raises:
        ArgumentError: A row has negative weights, or another sum than 1.
        NonFiniteError: A row has NaN in it.
        ShapeError: A tensor has another shape.

    Example:
        >>> layer = torch.tensor([[1.0, 0.0], [1.0, 0.0]])[None, None]  # both tokens attend to the first
        >>> attention_rollout([layer, layer])[0, 1]
        tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    batch = _checked(attentions, mask)
    found = _zeros(batch)
    for index, places, layers in _mixed_layers(batch, without_first):
        product = layers[0]
        for layer in layers[1:]:
            product = layer @ product
        found[index, places[:, None], places] = product
    return found


@checked
def attention_flow(
    attentions: Weights,
    *,
    positions: Sequence[int] | None = None,
    mask: Tensor | None = None,
    without_first: bool = False,
    verbose: bool = True,
) -> Tensor:
    """Returns the maximum flow from each token after the last layer to each input token, (batch, query, key).

    The weights A' of `attention_rollout` are the capacities between the tokens of neighbouring layers (Abnar
    & Zuidema 2020, arXiv:2005.00928, section 3). The flow to one input token does not compete with that to
    others, so a row has a sum of 1 or more. Each pair of tokens is a problem of its own, by SciPy's
    `maximum_flow`; capacities are rounded to 1e-9.

    Args:
        attentions: See `attention_rollout`.
        positions: The queries to compute, as positions in the batch from 0 or, negative, from its end; rows
            of others are left out of the result. By default all.
        mask: See `attention_rollout`.
        without_first: See `attention_rollout`.
        verbose: Shows the progress.

    Raises:
        ArgumentError: There is no such position; or see `attention_rollout`.
        NonFiniteError: See `attention_rollout`.
        ShapeError: See `attention_rollout`.

    Example:
        >>> layer = torch.tensor([[1.0, 0.0], [1.0, 0.0]])[None, None]
        >>> attention_flow([layer, layer], verbose=False)[0, 1]
        tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    batch = _checked(attentions, mask)
    found = _zeros(batch)
    queries = _positions(positions, found.shape[1])
    jobs = [
        (index, places, graph, row)
        for index, places, layers in _mixed_layers(batch, without_first)
        for graph in [_graph(layers)]
        for row in range(len(places))
        if int(places[row]) in queries
    ]
    for index, places, graph, row in tqdm(jobs, "attention flow", disable=not verbose):
        found[index, places[row], places] = _flows(graph, len(places), row)
    return found[:, queries]


def _checked(attentions: Weights, mask: Tensor | None) -> AttentionBatch:
    if isinstance(attentions, Tensor) and attentions.dim() != 5:
        raise ShapeError(f"expected (layers, batch, heads, query, key), got {tuple(attentions.shape)}")
    batch = AttentionBatch(list(attentions) if isinstance(attentions, Tensor) else attentions, mask)
    batch.check()
    return batch


def _zeros(batch: AttentionBatch) -> Tensor:
    first = next(iter(batch.layers.values()))
    return torch.zeros(first.shape[0], *first.shape[2:], dtype=torch.float64)


def _positions(given: Sequence[int] | None, length: int) -> list[int]:
    """Positions from 0 on."""
    if given is None:
        return list(range(length))
    wrong = [place for place in given if not -length <= place < length]
    if wrong:
        raise ArgumentError(f"positions are from {-length} to {length - 1}, got {wrong[0]}")
    return [place % length for place in given]


def _mixed_layers(batch: AttentionBatch, without_first: bool) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Of each text its place in the batch, the places of its tokens, and A' (layers, tokens, tokens)."""
    for index, weights, places in batch.texts():
        of_layers = weights.cpu().double().split(list(batch.heads))
        layers = torch.stack([heads.mean(0) for heads in of_layers])
        itself = torch.eye(len(places), dtype=torch.float64)
        if without_first:
            layers[..., 0] = 0
            total = layers.sum(-1, keepdim=True)
            layers = torch.where(total > 0, layers / total.clamp_min(1e-300), itself)
        yield index, places, (layers + itself) / 2


def _graph(layers: Tensor) -> Any:
    """The capacities between all tokens of all layers, those of the input first, in whole units."""
    from scipy.sparse import csr_array

    depth, tokens, _ = layers.shape
    size = (depth + 1) * tokens
    units = (layers * _UNITS).round().int()
    layer, query, key = units.nonzero(as_tuple=True)
    senders, receivers = (layer + 1) * tokens + query, layer * tokens + key
    return csr_array(
        (units[layer, query, key].numpy(), (senders.int().numpy(), receivers.int().numpy())),
        shape=(size, size),
    )


def _flows(graph: Any, tokens: int, row: int) -> Tensor:
    """The maximum flow from one token after the last layer to each input token, (tokens,)."""
    from scipy.sparse.csgraph import maximum_flow

    source = graph.shape[0] - tokens + row
    flows = [maximum_flow(graph, source, key).flow_value for key in range(tokens)]
    return torch.tensor(flows, dtype=torch.float64) / _UNITS
