"""Changes of a pass by the features of a dictionary: all of them, without some, or more of one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError, ShapeError
from ...core.modules import evaluating
from ..model.hook_points import DerivedPoint
from ..model.hooked_model import HookedModel
from ..model.point_names import wanted_names
from .dictionary import SparseAutoencoder

_UNNAMED = (
    "activations",
    "outputs",
)  # of dictionaries that were trained on tensors, or whose file has no name


@contextmanager
@checked
def spliced(
    model: HookedModel, dictionary: SparseAutoencoder, mask: Tensor | None = None
) -> Iterator[HookedModel]:
    """In the block, the reconstructions of a dictionary take the place of the activations.

    Args:
        model: The model.
        dictionary: The dictionary.
        mask: The places (batch, position) at which this happens; by default all.

    Raises:
        ArgumentError: The dictionary does not fit the model.
        ShapeError: The mask does not fit the text.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> hooked = HookedModel(model, tokenizer)
        >>> directions = torch.cat([torch.eye(128), -torch.eye(128)])
        >>> exact = SparseAutoencoder.of_directions(directions, reads="blocks.2.hook_resid_post")
        >>> with torch.no_grad(), spliced(hooked, exact):
        ...     logits = hooked(world.facts[0].text)
        >>> torch.allclose(logits, hooked(world.facts[0].text), atol=1e-4)
        True
    """
    check_fits(dictionary, model)

    def change(values: Tensor, inputs: Tensor) -> Tensor:
        found = dictionary(inputs).to(values)
        if mask is None:
            return found
        if mask.shape != values.shape[:2]:
            raise ShapeError(f"the mask is {tuple(mask.shape)}, the text {tuple(values.shape[:2])}")
        return torch.where(mask.to(values.device)[..., None], found, values)

    with _edited(model, dictionary, change):
        yield model


@contextmanager
@checked
def ablate_features(
    model: HookedModel, dictionary: SparseAutoencoder, features: Sequence[int]
) -> Iterator[HookedModel]:
    """In the block, features do not write: what they add to the reconstruction is taken off the activation.

    What the dictionary does not reconstruct stays as it is.

    Args:
        model: The model.
        dictionary: The dictionary.
        features: Which.

    Raises:
        ArgumentError: The dictionary does not fit the model, or has no such feature.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import HookedModel, SparseAutoencoder
        >>> model, tokenizer, world = facts_gpt()
        >>> hooked = HookedModel(model, tokenizer)
        >>> dictionary = SparseAutoencoder.of_directions(torch.eye(128), reads="blocks.2.hook_resid_post")
        >>> tokens = hooked.to_tokens(world.facts[0].text)
        >>> with ablate_features(hooked, dictionary, [3]) as ablated:
        ...     logits = ablated(tokens)
        >>> torch.equal(logits, hooked(tokens))
        False
    """
    check_fits(dictionary, model)
    chosen = list(features)
    dictionary.check_features(chosen)
    with _edited(
        model, dictionary, lambda values, inputs: values - dictionary.written(inputs, chosen).to(values)
    ):
        yield model


@contextmanager
@checked
def steer_by_feature(
    model: HookedModel, dictionary: SparseAutoencoder, feature: int, strength: float
) -> Iterator[HookedModel]:
    """In the block, a feature's direction is added to the activation at all tokens.

    Args:
        model: The model.
        dictionary: The dictionary.
        feature: Which.
        strength: How much, in units of the feature's activation; compare with `Reconstruction.largest`.

    Raises:
        ArgumentError: The dictionary does not fit the model, or has no such feature.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import HookedModel, SparseAutoencoder
        >>> model, tokenizer, world = facts_gpt()
        >>> hooked = HookedModel(model, tokenizer)
        >>> dictionary = SparseAutoencoder.of_directions(torch.eye(128), reads="blocks.2.hook_resid_post")
        >>> tokens = hooked.to_tokens(world.facts[0].text)
        >>> with steer_by_feature(hooked, dictionary, 3, strength=10.0) as steered:
        ...     logits = steered(tokens)
        >>> torch.equal(logits, hooked(tokens))
        False
    """
    check_fits(dictionary, model)
    dictionary.check_features([feature])
    if not abs(strength) < float("inf"):
        raise ArgumentError(f"strength is a number, got {strength}")
    added = strength * dictionary.W_dec[feature]
    with _edited(model, dictionary, lambda values, inputs: values + added.to(values)):
        yield model


def check_fits(dictionary: SparseAutoencoder, model: HookedModel) -> None:
    """Makes sure that a model has the activations of a dictionary, of its widths.

    Raises:
        ArgumentError: It has not.
    """
    places = {dictionary.reads: dictionary.width, dictionary.writes: dictionary.output_width}
    names = []
    for name in places:
        found = wanted_names(model.model, name, model.points) if name not in _UNNAMED else []
        if len(found) != 1:
            raise ArgumentError(
                f"{dictionary!r} says of no single activation of a model that it reads it: "
                f"of_directions(..., reads=...) or dataclasses.replace(dictionary, reads=..., writes=...) "
                f"names it"
            )
        names += found
    tokens = torch.zeros(1, 2, dtype=torch.long)
    with torch.no_grad(), evaluating(model.model):
        cache = model.activations(tokens, names)
    for name, width in zip(names, places.values(), strict=True):
        given = cache[name].flatten(2).shape[-1]
        if given != width:
            raise ArgumentError(
                f"{dictionary!r} does not fit {model!r}, whose {name} has width {given}: it is of another "
                f"model or layer"
            )


@contextmanager
def _edited(model: HookedModel, dictionary: SparseAutoencoder, change: Any) -> Iterator[None]:
    """Edits what is written, by a function of it and of what is read, both with one vector a token."""
    read: list[Tensor] = []
    (name,) = wanted_names(model.model, dictionary.reads, model.points)
    point = model.points.points.get(name)

    def keep(values: Tensor) -> None:
        read[:] = [point.read(values, len(values)) if isinstance(point, DerivedPoint) else values]

    def write(values: Tensor) -> Tensor:
        inputs = read[0] if dictionary.is_transcoder else values
        changed: Tensor = change(values.flatten(2), inputs.flatten(2))
        return changed.reshape(values.shape)

    place = dictionary.reads
    if isinstance(
        point, DerivedPoint
    ):  # nothing computes it apart, so the tensor that it is computed from is read
        place = point.layer
        if point.of.axes[0] != ("batch",):
            raise ArgumentError(
                f"{name!r} cannot be read here: give a dictionary that reads the residual stream"
            )
    before = {place: keep} if dictionary.is_transcoder else {}
    with model.edit({**before, dictionary.writes: write}):
        yield
