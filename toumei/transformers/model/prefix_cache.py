"""Keys and values of the positions before a token, which many rows that differ only behind it share."""

from typing import Any

import torch
from torch import Tensor


class Filled(Exception):
    """Ends the call of a block as soon as its keys and values are known."""


class PrefixCache:
    """What an attention layer takes for a cache: the same prefix in front of every row.

    It does not keep what it is given, so that a block can be called again and again.

    Args:
        keys: (samples, heads, T, size) of the positions in front.
        values: The same for the values.
        copies: How many rows there are of each sample; the samples follow each other fastest.
        stop: Raise `Filled` instead of going on, with the keys and values in front kept in `keys` and
            `values`, one row for each row of the call.
    """

    def __init__(self, keys: Tensor, values: Tensor, copies: int, stop: bool = False) -> None:
        self.keys, self.values, self.copies, self.stop = keys, values, copies, stop

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Returns the keys and values of the prefix and the given ones behind it."""
        whole = _join(self.keys, keys, self.copies), _join(self.values, values, self.copies)
        if self.stop:
            self.keys, self.values = whole
            raise Filled
        return whole

    def get_seq_length(self, *args: Any) -> int:
        """Returns how many positions the prefix has."""
        return int(self.keys.shape[-2])


def _join(prefix: Tensor, tensor: Tensor, copies: int) -> Tensor:
    """The prefix in front of each row, written once."""
    length = prefix.shape[-2]
    if not length:
        return tensor
    whole = tensor.new_empty(*tensor.shape[:-2], length + tensor.shape[-2], tensor.shape[-1])
    whole.unflatten(0, (copies, -1))[..., :length, :] = prefix
    whole[..., length:, :] = tensor
    return whole


def placeholder_cache(layers: int, length: int, device: torch.device) -> Any:
    """Returns a Hugging Face cache that holds nothing, but says that it holds so many positions."""
    from transformers import DynamicCache

    cache = DynamicCache()
    nothing = torch.zeros(1, 1, length, 1, device=device)
    for layer in range(layers):
        cache.update(nothing, nothing, layer)
    return cache
