"""Surgery on transformers: layers, heads and neurons taken out, moved, copied, merged, and given back."""

from .heads import copy_heads, merge_heads, prune_heads
from .layers import (
    arrange_layers,
    delete_layers,
    permute_layers,
    repeat_layers,
    replace_layers,
    transplant_layers,
)
from .neurons import prune_neurons
from .perplexities import LayerPerplexities, perplexity_by_layer
from .surgery import Surgery, revert_surgeries

__all__ = [
    "LayerPerplexities",
    "Surgery",
    "arrange_layers",
    "copy_heads",
    "delete_layers",
    "merge_heads",
    "permute_layers",
    "perplexity_by_layer",
    "prune_heads",
    "prune_neurons",
    "repeat_layers",
    "replace_layers",
    "revert_surgeries",
    "transplant_layers",
]
