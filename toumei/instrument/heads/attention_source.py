"""The attention weights of the passes of a model, read batch by batch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from ...core.errors import ArchitectureError
from ...core.modules import without_wrapper, wrapped_forward
from ..graph import OperationGraph
from ..probe import Probe
from ..search.attention import find_multi_head_attention
from ..search.attention_instance import MultiHeadAttentionInstance
from .attention_batches import AttentionBatch


class AttentionSource:
    """Yields the attention weights of the pass in a ``with`` block, of all self-attentions of a model.

    Args:
        probe: The probe of the model.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._attentions: list[MultiHeadAttentionInstance] = []

    @contextmanager
    def __call__(self) -> Iterator[AttentionBatch]:
        """Yields a batch that has the weights after the block."""
        batch, inputs = AttentionBatch(), dict[str, Any]()
        model = without_wrapper(self._probe.model)
        parameters = signature(model.forward)

        def note(forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            inputs.update(parameters.bind(*args, **kwargs).arguments)
            return forward(*args, **kwargs)

        known = [one.softmax_value for one in self._attentions]
        with self._probe.track(known) as tracker, wrapped_forward(model, note):
            yield batch
        if known:
            values: Mapping[str, Any] = tracker.build_map()
        else:  # the graph says which tensors they are, and they are computed again from it
            graph = tracker.build_graph()
            self._attentions = _self_attentions(graph)
            with torch.no_grad():
                values = graph.replay(record=[node for one in self._attentions for node in one.needed])
        batch.weights = {one.softmax_value.name: one.weights(values) for one in self._attentions}
        batch.mask, batch.tokens = _rows(inputs, "attention_mask"), _rows(inputs, "input_ids")


def _self_attentions(graph: OperationGraph) -> list[MultiHeadAttentionInstance]:
    found = [one for one in find_multi_head_attention(graph) if one.query_length == one.key_length]
    if not found:
        raise ArchitectureError(f"no self-attention ran in the {graph.modules['']}")
    return found


def _rows(inputs: dict[str, Any], name: str) -> Tensor | None:
    value = inputs.get(name)
    return value if isinstance(value, Tensor) and value.dim() == 2 else None
