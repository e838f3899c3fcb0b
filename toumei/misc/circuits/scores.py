"""What the score of a circuit is: targets of attribution methods, and metrics of patching."""

from typing import Any

import torch
from torch import Tensor

from ...attribution.base.targets import Target, score, scored
from ...core.errors import ArgumentError
from ...core.names import Unit
from ...transformers.patching import Metric
from .gates import Read
from .sites import NodeNetwork, Site, TransformerNodes

Goal = Target | Metric | None


def reading(nodes: NodeNetwork, inputs: Any, output: Tensor, goal: Goal) -> Read:
    """Returns the function from outputs and rows to scores (B, 1).

    Args:
        nodes: The network.
        inputs: Its inputs.
        output: Its output for them.
        goal: What the user gave: an index of the output, for language models of the logits at the last
            position; a function of the output; or a metric.

    Raises:
        ArgumentError: A metric for a network that is no language model, or a unit.
        UnitError: No index of the output.
        ShapeError: Another number of indices than inputs.
    """
    if isinstance(goal, Metric):
        return _metric(nodes, inputs, output, goal)
    target = scored(nodes.model, goal, len(output))
    if isinstance(target, Unit):
        raise ArgumentError(f"the target of a circuit is an output or a function of it, got the unit {goal}")

    def read(output: Tensor, rows: Tensor) -> Tensor:
        indexed = isinstance(target, int | Tensor)
        last = output[:, -1] if nodes.is_language_model and output.dim() == 3 and indexed else output
        return score(last, target, rows)[:, None]

    return read


def _metric(nodes: NodeNetwork, inputs: Any, output: Tensor, metric: Metric) -> Read:
    if not isinstance(nodes, TransformerNodes):
        raise ArgumentError(f"{metric} is for a HookedModel, got {type(nodes.model).__name__}")
    texts = len(output)
    read = metric.reading(nodes.transformer, inputs.get("input_ids"), output[:, -1])

    def scores(logits: Tensor, rows: Tensor) -> Tensor:
        # metrics read the logits of all texts; a batch has some several times and others not at all
        copy, places = torch.zeros_like(rows), [0] * texts
        for number, row in enumerate(rows.tolist()):
            copy[number], places[row] = places[row], places[row] + 1
        index = torch.zeros(int(copy.max()) + 1, texts, dtype=torch.long)
        index[copy, rows] = torch.arange(len(rows))
        return read(logits[:, -1][index.to(logits.device)])[copy, rows][:, None]

    return scores


def weighted_sums(site: Site, weights: Tensor, columns: list[int]) -> Read:
    """Returns the function from a site's activation to the sum of each node's numbers times weights.

    Args:
        site: The site.
        weights: (N, ...), in the shape of its activation.
        columns: Which of its nodes.
    """

    def read(activation: Tensor, rows: Tensor) -> Tensor:
        product = activation * weights[rows.to(activation.device)]
        if site.axis is None:
            return product.flatten(1).sum(1, keepdim=True)
        by_node = product.movedim(site.axis, 1)
        return by_node.reshape(*by_node.shape[:2], -1).sum(2)[:, columns]

    return read
