"""Activations over a corpus, pass by pass, and what training takes them from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.conversions import MISFIT, as_tensor
from ...core.errors import ArgumentError, ShapeError
from ...core.fingerprint import fingerprint_of
from ...core.modules import evaluating, without_wrapper
from ...core.summaries import listed
from ..model.hook_points import ComputedPoint, HookPoint
from ..model.hooked_model import HookedModel
from ..model.point_names import Names, wanted_names
from .token_batches import TokenBatch, TokenBatches

Block = dict[str, Tensor]
_INSTEAD = "name a residual stream, the output or the neurons of a layer, or the outputs 'z' of heads"


class Activations(Protocol):
    """Where activations come from: a model that reads a corpus, a folder, or a generator of them.

    Attributes:
        names: What they are activations of.
        fingerprint: The hash of the model's weights; empty where there is no model.
    """

    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def blocks(self, seed: int) -> Iterator[Block]:
        """Yields blocks of activations (tokens, width) by their names, in an order that a seed chooses."""
        ...


class ActivationSource:
    """Activations of a model over a corpus: nothing is kept, and each iteration runs the model again.

    The passes end as soon as the model has computed what is named. Padding is left out, and so is the first
    token of a piece; see `TokenBatches` for the settings.

    Args:
        model: The model.
        corpus: Texts or token ids; see `TokenBatches`.
        names: Names of activations, as for `HookedModel.run_with_cache`, or native names. Activations of
            heads are read as one vector of all heads.
        length: The most tokens that are read together.
        batch_size: Pieces in a forward pass.
        skip_first: How many tokens at the beginning of each piece are left out.
        max_tokens: How many tokens are read at most.

    Raises:
        LayerError: A name that the model does not have.
        ShapeError: An activation that has no vector for each token, such as attention weights.
        ArgumentError: A setting that is no count.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> texts = [fact.text for fact in world.facts[:3]]
        >>> source = ActivationSource(HookedModel(model, tokenizer), texts, ("mlp_out", 2))
        >>> source.names, [block["blocks.2.hook_mlp_out"].shape for block in source.blocks(seed=0)]
        (('blocks.2.hook_mlp_out',), [torch.Size([20, 128])])
    """

    @checked
    def __init__(
        self,
        model: HookedModel,
        corpus: Any,
        names: Names,
        *,
        length: int = 128,
        batch_size: int = 8,
        skip_first: int = 1,
        max_tokens: int | None = None,
    ) -> None:
        self.model = model
        self.names = tuple(wanted_names(model.model, names, model.points))
        check_vectors(model, self.names)
        self.batches = TokenBatches(
            model,
            corpus,
            length=length,
            batch_size=batch_size,
            skip_first=skip_first,
            max_tokens=max_tokens,
        )

    @cached_property
    def fingerprint(self) -> str:
        """The hash of the model's weights."""
        return fingerprint_of(without_wrapper(self.model.model))

    @checked
    def blocks(self, seed: int = 0) -> Iterator[Block]:
        """Yields the activations (tokens, width) of each pass, in the order of the corpus."""
        for batch in self.batches:
            yield self.of(batch)

    def of(self, batch: TokenBatch) -> Block:
        """Returns the activations of the tokens of a batch that count, on the CPU."""
        return activations_of(self.model, self.names, batch)

    def __repr__(self) -> str:
        return f"ActivationSource({listed(self.names)} of {self.model!r})"


@torch.no_grad()
def activations_of(model: HookedModel, names: Sequence[str], batch: TokenBatch) -> Block:
    """Returns the named activations of the tokens of a batch that count, on the CPU."""
    with evaluating(model.model):
        found = model.activations(batch.inputs, list(names))
    return {name: counted_vectors(name, found[name], batch).cpu() for name in names}


def check_vectors(model: HookedModel, names: Iterable[str]) -> None:
    """Makes sure that activations have a vector for each token.

    Args:
        model: The model.
        names: Full names of activations; native names are looked at when they are read.

    Raises:
        ShapeError: One has not, such as attention weights.
    """
    for name in names:
        point = model.points.points.get(name)
        order = point.order if isinstance(point, HookPoint) else ("batch", "position")
        if isinstance(point, ComputedPoint) or order[:2] != ("batch", "position"):
            raise ShapeError(f"{name!r} has no vector for each token: {_INSTEAD}")


def counted_vectors(name: str, values: Tensor, batch: TokenBatch) -> Tensor:
    """Returns the vectors (tokens, width) of the tokens that count.

    Args:
        name: The name of the activation, for errors.
        values: Its values (pieces, positions, ...).
        batch: The batch.

    Raises:
        ShapeError: The activation has no vector for each token.
    """
    if values.shape[:2] != batch.ids.shape or values.dim() < 3 or not values.is_floating_point():
        raise ShapeError(
            f"{name!r} of shape {tuple(values.shape)} has no vector for each of {tuple(batch.ids.shape)} "
            f"tokens: {_INSTEAD}"
        )
    vectors: Tensor = values.flatten(2)[batch.counted.to(values.device)]
    return vectors


class TensorActivations:
    """Activations that are in memory.

    Args:
        values: (tokens, width) by their names.

    Raises:
        ShapeError: They are no matrices with as many rows.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        rows = {len(one) if one.dim() else 0 for one in values.values()}
        if not values or len(rows) > 1 or any(one.dim() != 2 for one in values.values()):
            shapes = {name: tuple(one.shape) for name, one in values.items()}
            raise ShapeError(f"expected matrices (tokens, width) with as many rows, got {shapes}")
        if not next(iter(rows)):
            raise ArgumentError("expected activations, got none: there are no rows")
        self._values = dict(values)
        self.names, self.fingerprint = tuple(values), ""

    def blocks(self, seed: int = 0) -> Iterator[Block]:
        """Yields all of them."""
        yield self._values


def as_activations(given: Any) -> Activations:
    """Returns what training can read: an array (tokens, width), or a dictionary of them, becomes a source.

    Raises:
        ArgumentError: It is nothing that has activations.

    Example:
        >>> as_activations(torch.rand(10, 4)).names
        ('activations',)
    """
    arrays = given if isinstance(given, Mapping) else {"activations": given}
    tensors = {name: as_tensor(one) for name, one in arrays.items()}
    if tensors and all(one is not MISFIT for one in tensors.values()):
        return TensorActivations(
            {name: one if one.is_floating_point() else one.float() for name, one in tensors.items()}
        )
    if all(hasattr(given, name) for name in ("blocks", "names", "fingerprint")):
        found: Activations = given
        return found
    raise ArgumentError(
        f"expected activations (tokens, width), an ActivationSource or an ActivationStore, got "
        f"{type(given).__name__}"
    )


def one_name(names: Sequence[str], wanted: str | None, what: str) -> str:
    """Returns the name that is meant; without one, the only one there is.

    Raises:
        ArgumentError: There are several, or there is no such name.
    """
    if wanted is None:
        if len(names) != 1:
            raise ArgumentError(f"there are activations of {', '.join(names)}: name one as {what}")
        return names[0]
    if wanted not in names:
        raise ArgumentError(f"there are activations of {', '.join(names)}, and none of {wanted!r}")
    return wanted
