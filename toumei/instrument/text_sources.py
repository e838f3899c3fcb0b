"""What analyzers of text models take from the model of the innermost block of `fmrai`."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import ArchitectureError, ArgumentError
from ..core.modules import evaluating, without_wrapper, wrapped_forward
from .attention import find_multi_head_attention
from .attention_batches import AttentionBatch
from .attention_instance import MultiHeadAttentionInstance
from .feed_forward import FeedForward, find_feed_forward
from .graph import OperationGraph
from .probe import Probe


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
            kept = tracker.build_map()
            batch.weights = {one.softmax_value.name: one.weights(kept) for one in self._attentions}
        else:  # it is not known yet which tensors they are: they are computed again
            self._attentions = _self_attentions(tracker.build_graph())
            batch.weights = {one.softmax_value.name: one.weights() for one in self._attentions}
        batch.mask, batch.tokens = _rows(inputs, "attention_mask"), _rows(inputs, "input_ids")


class FeedForwardLayers:
    """The down projections of a model; see `toumei.instrument.key_value_analyzer.FeedForwardSource`.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @cached_property
    def down_projections(self) -> tuple[str, ...]:
        """The names of the last linear maps of the feed-forward layers."""
        return tuple(str(one.down_module) for one in feed_forward_layers(self.model))


def feed_forward_layers(model: nn.Module) -> list[FeedForward]:
    """Returns the feed-forward layers of a model that end in a module, found by a pass of a few tokens.

    Args:
        model: A model of Hugging Face, which says what it can be given.

    Raises:
        ArgumentError: The model does not say that; name the layers.
        ArchitectureError: It has no such layer.

    Example:
        >>> from toumei.models import facts_gpt
        >>> [layer.down_module for layer in feed_forward_layers(facts_gpt()[0])][:2]
        ['transformer.h.0.mlp.c_proj', 'transformer.h.1.mlp.c_proj']
    """
    inner = without_wrapper(model)
    inputs = getattr(inner, "dummy_inputs", None)
    if inputs is None:
        raise ArgumentError(
            f"{type(inner).__name__} has no dummy_inputs to find its feed-forward layers with: name the last "
            f"linear map of each one, as in layers=['transformer.h.0.mlp.c_proj']"
        )
    device = next((one.device for one in inner.parameters()), torch.device("cpu"))
    with torch.no_grad(), evaluating(inner), Probe(inner).track([]) as tracker:
        inner(**{name: one.to(device) for name, one in inputs.items()})
    found = [one for one in find_feed_forward(tracker.build_graph()) if one.down_module is not None]
    if not found:
        raise ArchitectureError(f"{type(inner).__name__} has no feed-forward layer that ends in a module")
    return found


def _self_attentions(graph: OperationGraph) -> list[MultiHeadAttentionInstance]:
    found = [one for one in find_multi_head_attention(graph) if one.query_length == one.key_length]
    if not found:
        raise ArchitectureError(f"no self-attention ran in the {graph.modules['']}")
    return found


def _rows(inputs: dict[str, Any], name: str) -> Tensor | None:
    value = inputs.get(name)
    return value if isinstance(value, Tensor) and value.dim() == 2 else None
