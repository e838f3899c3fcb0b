"""ModelSurgery: layers replaced, deleted and moved for a time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ...core.checks import checked
from ...core.modules import without_wrapper
from ..model.hooked_model import HookedModel
from ..surgery import Surgery, delete_layers, permute_layers, replace_layers
from .base import HookedTool


class ModelSurgery(HookedTool):
    """Runs a model with other layers; outside of the blocks it is as it was, bit for bit.

    Args:
        model: The model.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model = HookedModel(*facts_gpt()[:2])
        >>> with ModelSurgery(model).delete_layers([4, 5]) as smaller:
        ...     smaller
        HookedModel(GPT2LMHeadModel, 4 layers, 4 heads, width 128)
    """

    @checked
    @contextmanager
    def replace_layers(self, replacements: Mapping[int, Any]) -> Iterator[HookedModel]:
        """Lets modules, or other layers by their numbers, take the places of layers.

        See `toumei.transformers.surgery.replace_layers`.
        """
        with replace_layers(without_wrapper(self.model.model), replacements) as surgery:
            yield self._changed(surgery)

    @checked
    @contextmanager
    def delete_layers(self, layer_idxs: Sequence[int]) -> Iterator[HookedModel]:
        """Leaves layers out. See `toumei.transformers.surgery.delete_layers`."""
        with delete_layers(without_wrapper(self.model.model), layer_idxs) as surgery:
            yield self._changed(surgery)

    @checked
    @contextmanager
    def permute_layers(self, permutation: Sequence[int]) -> Iterator[HookedModel]:
        """Runs layers in another order. See `toumei.transformers.surgery.permute_layers`."""
        with permute_layers(without_wrapper(self.model.model), permutation) as surgery:
            yield self._changed(surgery)

    def _changed(self, surgery: Surgery) -> HookedModel:
        """The changed model, with the names of its layers as they are now."""
        return HookedModel(surgery.model, self.model.tokenizer)
