"""Where the numbers of attention heads are in the linear layers around them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...core.errors import ArchitectureError, ArgumentError
from ...core.summaries import counted
from ...instrument import LinearMap
from ..heads.weights import check_layer, projection_map
from ..model.hook_points import HookPoint
from ..model.hook_search import HookPoints

_QUERY_HEADS = ("num_heads", "num_attention_heads", "n_head", "n_heads")
_KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
_PER_GROUP = "num_key_value_groups"
_SIZES = ("split_size", "all_head_size", "inner_dim")  # numbers of all heads together


class HeadPlaces:
    """The linear layers around the heads of a layer, and which of their numbers are those of each head.

    Args:
        points: The hook points of the model.
        layer: The number of the layer.

    Attributes:
        heads: How many heads of queries there are.
        groups: How many heads of keys and values there are.
        maps: The linear maps of queries, keys, values, ``"q"``, and that of outputs, ``"o"``.
        places: For ``"q"``, ``"k"`` and ``"v"`` the columns (heads, numbers) in the output of the map, for
            ``"o"`` those in its input.

    Raises:
        LayerError: There is no such layer.
        ArchitectureError: They cannot be told.
    """

    def __init__(self, points: HookPoints, layer: int) -> None:
        check_layer(points, layer)
        attention = points.attentions[layer]
        self.layer, self.heads, self.groups = layer, attention.num_heads, attention.num_key_value_heads
        if layer not in points.outputs:
            raise ArchitectureError(f"layer {layer}: no linear map of the heads' outputs was found")
        self.maps: dict[str, LinearMap] = {letter: projection_map(points, layer, letter) for letter in "qkv"}
        self.maps["o"] = points.outputs[layer]
        self.places: dict[str, Tensor] = {
            "o": torch.arange(self.maps["o"].in_features).unflatten(0, (self.heads, -1))
        }
        for letter in "qkv":
            point = points.points[f"blocks.{layer}.attn.hook_{letter}"]
            assert isinstance(point, HookPoint)
            count = self.heads if letter == "q" else self.groups
            columns = torch.arange(self.maps[letter].out_features)
            found = columns.unflatten(0, (count, -1)) if point.columns is None else point.columns.places
            self.places[letter] = found.cpu()

    @property
    def per_group(self) -> int:
        """How many heads share keys and values."""
        return self.heads // self.groups

    def check(self, heads: Sequence[int], count: int | None = None, what: str = "heads") -> None:
        """Raises an error for heads that the layer does not have, or that are given twice.

        Args:
            heads: The heads.
            count: How many there are; by default those of queries.
            what: What they are.

        Raises:
            ArgumentError: The message names the first one.
        """
        count = self.heads if count is None else count
        for head in heads:
            if type(head) is not int or not 0 <= head < count:
                raise ArgumentError(f"layer {self.layer} has {what} 0 to {count - 1}, got {head!r}")
        if not heads or len(set(heads)) < len(heads):
            raise ArgumentError(f"expected different {what} of layer {self.layer}, got {list(heads)}")

    def kept(self, pruned: Sequence[int]) -> tuple[list[int], list[int]]:
        """Returns the heads that are left, and the groups.

        Raises:
            ArgumentError: None is left, or not as many in each group that is left.
        """
        self.check(pruned)
        heads = [head for head in range(self.heads) if head not in pruned]
        if not heads:
            raise ArgumentError(f"all heads ({self.heads}) of layer {self.layer} would be pruned: leave one")
        groups = sorted({head // self.per_group for head in heads})
        counts = {group: sum(head // self.per_group == group for head in heads) for group in groups}
        if len(set(counts.values())) > 1:
            raise ArgumentError(
                f"layer {self.layer} has {counted(self.groups, 'group')} of "
                f"{counted(self.per_group, 'head')} that share keys and values: prune as many heads of each "
                f"group, or all of a group; left would be {counts}"
            )
        return heads, groups

    def sizes(self, module: nn.Module, heads: int, groups: int) -> Mapping[str, int]:
        """Returns the attributes of a module that count heads, with their new values."""
        found = {
            **dict.fromkeys(_QUERY_HEADS, (self.heads, heads)),
            **dict.fromkeys(_KEY_HEADS, (self.groups, groups)),
            _PER_GROUP: (self.per_group, heads // groups),
            **dict.fromkeys(
                _SIZES, (self.maps["o"].in_features, heads * self.maps["o"].in_features // self.heads)
            ),
        }
        given = module.__dict__
        return {name: new for name, (old, new) in found.items() if given.get(name) == old and old != new}
