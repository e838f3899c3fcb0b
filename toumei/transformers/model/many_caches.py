"""Activations of many texts: a cache for each, in several processes if need be."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.content import content_of_model
from ...core.errors import ArgumentError
from ...core.kinds import shown
from ...core.modules import evaluating, without_wrapper
from ...core.parallel import sweep
from .activation_cache import ActivationCache
from .hooked_model import HookedModel
from .point_names import Names, wanted_names


@checked
def cache_many(
    model: HookedModel,
    texts: Any,
    names: Names,
    *,
    batch_size: int = 1,
    jobs: int = 1,
    folder: str | Path | None = None,
    verbose: bool = True,
) -> list[ActivationCache]:
    """Returns the activations of many texts that are named: a cache on the CPU for each batch of texts.

    Passes run in evaluation mode without gradients, and end as soon as the model has computed what is named.

    Args:
        model: The model.
        texts: Texts, rows of token ids, or pictures.
        names: Names of activations, as for `HookedModel.run_with_cache`.
        batch_size: How many texts a cache has; shorter ones are padded on the right.
        jobs: How many batches run at once, in processes or on a cluster; see `toumei.core.sweep`. Any number
            gives the same activations.
        folder: Where each finished cache is kept, so that a killed run goes on where it was.
        verbose: Show a progress bar of the batches.

    Raises:
        LayerError: A name that the model does not have.
        ArgumentError: There are no texts, or something else than texts.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> texts = [fact.text for fact in world.facts[:3]]
        >>> caches = cache_many(HookedModel(model, tokenizer), texts, ("resid_post", 2), verbose=False)
        >>> len(caches), caches[0]["resid_post", 2].shape[::2]
        (3, torch.Size([1, 128]))
    """
    dense = not isinstance(texts, Tensor) or (texts.layout == torch.strided and texts.dim() > 0)
    if isinstance(texts, str | Mapping) or not hasattr(texts, "__iter__") or not dense:
        raise ArgumentError(f"expected several texts or rows of token ids, got {shown(texts)}")
    rows = texts if hasattr(texts, "shape") else list(texts)
    if not len(rows):
        raise ArgumentError("expected texts to keep activations of, got none")
    task = _CacheTask(model, tuple(wanted_names(model.model, names, model.points)))
    inputs = [model.inputs(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]
    found = sweep(task, inputs, jobs=jobs, folder=folder, verbose=verbose)
    return [
        ActivationCache(dict(cache), model.points, batch=_count(given), texts=model.inputs.texts(given))
        for cache, given in zip(found, inputs, strict=True)
    ]


@dataclass(frozen=True)
class _CacheTask:
    """The function of a sweep over batches of texts, which are inputs of the model."""

    model: HookedModel
    names: tuple[str, ...]

    @property
    def sweep_content(self) -> list[Any]:
        """All that activations depend on beside the inputs."""
        return [content_of_model(without_wrapper(self.model.model)), self.names]

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Any]) -> ActivationCache:
        """Returns the activations of a batch, as a cache that does not hold the model."""
        with evaluating(self.model.model):
            cache = self.model.activations(inputs, self.names)
            values = {name: cache[name] for name in self.names}
        # copies: a view would bring along all that its memory holds
        copies = {
            name: one.clone(memory_format=torch.contiguous_format).cpu() for name, one in values.items()
        }
        return ActivationCache(copies, None, batch=_count(inputs))


def _count(inputs: Mapping[str, Any]) -> int:
    """How many rows the inputs of a pass have."""
    return len(next(iter(inputs.values())))
