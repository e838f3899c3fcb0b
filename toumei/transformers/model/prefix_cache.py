"""The keys and values of a prefix, shared by many rows that differ only after it."""

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn


class Filled(Exception):
    """Ends the call of a block as soon as its keys and values are known."""


class PrefixCache:
    """A cache for an attention layer that puts the same prefix in front of every row.

    It does not store new keys and values, so a block can be called many times.

    Args:
        keys: (samples, heads, T, size) keys of the prefix.
        values: The same for the values.
        copies: How many rows there are of each sample. In the batch the sample index changes fastest.
        stop: Raise `Filled` instead of returning. `keys` and `values` then hold prefix and new positions of
            each row of the call.
    """

    def __init__(self, keys: Tensor, values: Tensor, copies: int, stop: bool = False) -> None:
        self.keys, self.values, self.copies, self.stop = keys, values, copies, stop

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Returns the keys and values of the prefix followed by the given ones."""
        whole = _join(self.keys, keys, self.copies), _join(self.values, values, self.copies)
        if self.stop:
            self.keys, self.values = whole
            raise Filled
        return whole

    def get_seq_length(self, *args: Any) -> int:
        """Returns how many positions the prefix has."""
        return int(self.keys.shape[-2])


def _join(prefix: Tensor, tensor: Tensor, copies: int) -> Tensor:
    """Each row with the prefix in front, in one allocation."""
    length = prefix.shape[-2]
    if not length:
        return tensor
    whole = tensor.new_empty(*tensor.shape[:-2], length + tensor.shape[-2], tensor.shape[-1])
    whole.unflatten(0, (copies, -1))[..., :length, :] = prefix
    whole[..., length:, :] = tensor
    return whole


def cache_option(model: nn.Module, cache: Any) -> dict[str, Any]:
    """Returns a cache as the keyword of a model: `past_key_values`, from transformers 5.24 on `cache`."""
    renamed = "cache" in signature(type(model).forward).parameters  # hooks may replace that of the model
    return {"cache" if renamed else "past_key_values": cache}


def placeholder_cache(layers: int, length: int, device: torch.device) -> Any:
    """Returns a Hugging Face cache of zeros; a model computes its positions from the length."""
    from transformers import DynamicCache

    cache = DynamicCache()
    nothing = torch.zeros(1, 1, length, 1, device=device)
    for layer in range(layers):
        cache.update(nothing, nothing, layer)
    return cache
