"""WriteReadAnalyzer: which heads write to the residual stream, which ones read, and where a token goes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError, ShapeError
from ..heads.circuits import ov_circuit
from ..heads.rollout import attention_rollout
from ..heads.weights import head_weights
from .base import HookedTool, check_position


class Hop(NamedTuple):
    """A step of a path through the layers.

    Attributes:
        layer: The layer.
        head: The head that attends most; None where the residual stream carries the token on.
        source: The position it comes from.
        destination: The position it goes to.
        weight: Its weight: half the mean attention of the heads, and half for the residual stream.

    Example:
        >>> hop = Hop(layer=1, head=0, source=2, destination=4, weight=0.9)
        >>> hop.source, hop.destination
        (2, 4)
    """

    layer: int
    head: int | None
    source: int
    destination: int
    weight: float


class InformationFlow(NamedTuple):
    """How a token reaches another position.

    Attributes:
        rollout: How much of the destination is the source, by attention rollout over these layers.
        path: The steps of the strongest path, one in each layer; none if no path leads there.

    Example:
        >>> InformationFlow(0.8, (Hop(1, 0, source=2, destination=4, weight=0.9),)).path[0].weight
        0.9
    """

    rollout: float
    path: tuple[Hop, ...]


class WriteReadAnalyzer(HookedTool):
    """Finds heads that write and heads that read, by their weights.

    The names and promises are those of Arrakis' tool ``write_read``.

    Args:
        model: The model.

    Example:
        >>> import torch
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers.model.hooked_model import HookedModel
        >>> tool = WriteReadAnalyzer(HookedModel(InductionTransformer(vocabulary=8, positions=16)))
        >>> tool.identify_write_heads(0)  # head 0.1 writes nothing
        [0]
        >>> flow = tool.trace_information_flow(torch.tensor([[0, 3, 1, 4, 3]]), 2, 4)
        >>> [(hop.head, hop.source, hop.destination) for hop in flow.path]
        [(None, 2, 2), (0, 2, 4)]
    """

    @checked
    def identify_write_heads(self, layer_idx: int, threshold: float = 0.8) -> list[int]:
        """Returns the fewest heads of a layer that write most, the strongest one first.

        A head writes |W_V W_O|^2, the squared Frobenius norm of what it makes of vectors that it attends to.

        Args:
            layer_idx: The layer.
            threshold: Which share of all that the layer writes they have together.

        Raises:
            ArgumentError: The threshold is not above 0 and at most 1.
            LayerError: There is no such layer.
        """
        return _fewest(ov_circuit(self.model, layer_idx).norm().square(), threshold)

    @checked
    def identify_read_heads(self, layer_idx: int, dim_idx: int | Tensor, threshold: float = 0.8) -> list[int]:
        """Returns the fewest heads of a layer that read a direction most, the strongest one first.

        A head reads |d W_Q|^2 + |d W_K|^2 + |d W_V|^2, each as a share of the squared norm of the weight.

        Args:
            layer_idx: The layer.
            dim_idx: The number of a dimension of the residual stream, or a direction (width,).
            threshold: Which share of all that the layer reads of it they have together.

        Raises:
            ArgumentError: There is no such dimension, or the threshold is not above 0 and at most 1.
            ShapeError: The direction has another width.
            LayerError: There is no such layer.
        """
        self._check_layer(layer_idx)
        unit = self._direction(dim_idx)
        weights = head_weights(self.model, layer_idx, fold_norms=True)
        read = torch.zeros(weights.heads)
        for weight in (weights.W_Q, weights.W_K, weights.W_V):
            norm = weight.flatten(1).square().sum(1).clamp_min(torch.finfo(weight.dtype).tiny)
            read += ((unit.to(weight) @ weight).square().sum(-1) / norm).cpu()
        return _fewest(read, threshold)

    @checked
    def trace_information_flow(
        self, input_ids: Any, src_token: int, dst_token: int, n_layers: int = 2
    ) -> InformationFlow:
        """Returns how a token reaches another position through the attention of the first layers.

        Args:
            input_ids: The tokens of one text, or the text.
            src_token: The position of the token.
            dst_token: The position that it reaches.
            n_layers: How many layers; fewer if the model has fewer.

        Raises:
            ArgumentError: There are several texts, or no such position.
        """
        check_counts(1, n_layers=n_layers)
        layers = sorted(self.model.points.attentions)[:n_layers]
        cache = self._cache(input_ids, [("pattern", layer) for layer in layers])
        patterns = [cache["pattern", layer].cpu() for layer in layers]
        if len(patterns[0]) != 1:
            raise ArgumentError(f"one text is traced, got {len(patterns[0])}")
        length = patterns[0].shape[-1]
        check_position("src_token", src_token, length)
        check_position("dst_token", dst_token, length)
        total = float(attention_rollout(patterns)[0, dst_token, src_token])
        return InformationFlow(total, _path([one[0] for one in patterns], layers, src_token, dst_token))

    def _direction(self, given: int | Tensor) -> Tensor:
        width = self.model.width
        if isinstance(given, Tensor):
            if given.shape != (width,) or not bool(given.any()):
                raise ShapeError(f"expected a direction ({width},) that is not 0, got {tuple(given.shape)}")
            result: Tensor = given / given.norm()
            return result
        if not 0 <= given < width:
            raise ArgumentError(f"the stream has dimensions 0 to {width - 1}, got {given}")
        return torch.eye(width)[given]


def _fewest(amounts: Tensor, threshold: float) -> list[int]:
    """The places of the largest amounts that have a share of the sum."""
    if not 0 < threshold <= 1:
        raise ArgumentError(f"the threshold is above 0 and at most 1, got {threshold}")
    total = float(amounts.sum())
    if not total:
        return []
    order = amounts.argsort(descending=True, stable=True)
    reached = amounts[order].double().cumsum(0) / amounts.double().sum()
    count = int((reached < threshold - 1e-9).sum()) + 1
    return [place for place in order.tolist()[:count] if amounts[place] > 0]


def _path(patterns: list[Tensor], layers: list[int], source: int, destination: int) -> tuple[Hop, ...]:
    """The path with the largest product of weights, by dynamic programming."""
    length = patterns[0].shape[-1]
    mixed = [(pattern.double().mean(0) + torch.eye(length)) / 2 for pattern in patterns]
    best = torch.zeros(length, dtype=torch.float64)
    best[source] = 1
    before = []
    for weights in mixed:
        best, came_from = (weights * best).max(1)
        before.append(came_from)
    if not best[destination]:
        return ()
    hops, here = list[Hop](), destination
    for index in reversed(range(len(mixed))):
        there = int(before[index][here])
        head = None if there == here else int(patterns[index][:, here, there].argmax())
        hops.append(Hop(layers[index], head, there, here, float(mixed[index][here, there])))
        here = there
    return tuple(reversed(hops))
