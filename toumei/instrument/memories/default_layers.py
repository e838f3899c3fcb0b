"""The feed-forward layers of a model, found by a pass of a few tokens."""

from functools import cached_property

import torch
from torch import nn

from ...core.errors import ArchitectureError, ArgumentError
from ...core.modules import evaluating, without_wrapper
from ..probe import Probe
from ..search.feed_forward import FeedForward, find_feed_forward


class FeedForwardLayers:
    """The down projections of a model; see `toumei.instrument.memories.key_value_analyzer.FeedForwardSource`.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @cached_property
    def down_projections(self) -> tuple[str, ...]:
        """The names of the last linear maps of the feed-forward layers."""
        return tuple(self.gated)

    @cached_property
    def gated(self) -> dict[str, bool]:
        """Whether each of them takes products with a gate, as the pass shows."""
        return {str(one.down_module): one.up is not None for one in feed_forward_layers(self.model)}


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
