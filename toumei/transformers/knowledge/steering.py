"""Steering vectors: the difference of two kinds of texts in an activation, added while a model runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.finite import check_finite
from ...core.kinds import shown
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import Spec, specs
from ..model.hooked_model import HookedModel
from .features import is_each_token, read_features


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SteeringVector(Saved):
    """A direction in an activation that leads from one kind of texts to another.

    Attributes:
        name: The activation.
        vector: The mean over positive texts minus that over negative ones, (numbers,), float32 on the CPU.
        size: The mean length of the activation over all texts; compare the length of the vector with it.
        texts: How many positive and negative texts it was made of.
        position: At which tokens of them.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import HookedModel, steering_vector
        >>> model, tokenizer, world = facts_gpt()
        >>> hooked = HookedModel(model, tokenizer)
        >>> vector = steering_vector(hooked, ["lives in"], ["works as a"], ("resid_post", 3))
        >>> with vector.steering(hooked, 2.0):
        ...     text = hooked.generate("lives in", 1)
        >>> vector.texts
        (1, 1)
    """

    name: str
    vector: Tensor
    size: float
    texts: tuple[int, int]
    position: str

    _specs = specs(vector=Spec("numbers", finite=True))

    @contextmanager
    @checked
    def steering(self, model: HookedModel, strength: float = 1.0) -> Iterator[HookedModel]:
        """Adds the vector, times a strength, at every position of every pass in the block.

        Also of each step of `generate`. A negative strength leads to the negative texts.

        Args:
            model: The model; the one that the vector was made with, or one of the same size.
            strength: How often it is added; 1 is the whole difference.

        Raises:
            ArgumentError: The activation has another size, or the strength is no finite number.
            LayerError: The model does not have the activation.

        Example:
            >>> from toumei.models import facts_gpt
            >>> model, tokenizer, world = facts_gpt()
            >>> hooked = HookedModel(model, tokenizer)
            >>> vector = steering_vector(hooked, ["lives in"], ["works as a"], ("resid_post", 3))
            >>> with vector.steering(hooked, -2):
            ...     steered = hooked("lives in")
            >>> torch.equal(steered, hooked("lives in"))
            False
        """
        if not isinstance(strength, int | float) or isinstance(strength, bool) or not abs(strength) < 1e30:
            raise ArgumentError(f"strength is a finite number, got {strength!r}")

        def add(tensor: Tensor) -> Tensor:
            if tensor.shape[2:].numel() != len(self.vector):
                raise ArgumentError(
                    f"{self.name!r} has {counted(tensor.shape[2:].numel(), 'number')} in this model, the "
                    f"vector has {len(self.vector)}"
                )
            step = (strength * self.vector).to(tensor).reshape(tensor.shape[2:])
            return tensor + step

        with model.edit({self.name: add}):
            yield model

    def __len__(self) -> int:
        return len(self.vector)

    def __repr__(self) -> str:
        share = float(self.vector.norm()) / self.size if self.size else float("nan")
        return (
            f"SteeringVector({self.name[-60:]!r}, {self.texts[0]} positive, "
            f"{counted(self.texts[1], 'negative text')}, length {float(self.vector.norm()):.3g}, {share:.2f} "
            "of the activation's)"
        )


@checked
def steering_vector(
    model: HookedModel,
    positive: Sequence[Any],
    negative: Sequence[Any],
    name: Any,
    *,
    position: Any = "last",
    batch_size: int = 32,
) -> SteeringVector:
    """Returns the difference of the means of an activation over two kinds of texts.

    That is how Turner et al. (2023, arXiv:2308.10248) and Rimsky et al. (2024, arXiv:2312.06681) steer.

    Args:
        model: The model.
        positive: Texts, or rows of token ids, of the kind to steer to.
        negative: Texts of the other kind; pairs that differ in one thing only leave least else in the vector.
        name: The activation, such as ``("resid_post", 10)``; one with (texts, positions, ...).
        position: At which tokens: ``"last"``, ``"mean"`` over all, or a position.
        batch_size: How many texts run at once.

    Raises:
        ArgumentError: There are no texts, several activations are named, or both means are the same.
        LayerError: The model does not have the activation.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> hooked = HookedModel(model, tokenizer)
        >>> vector = steering_vector(hooked, ["lives in"], ["works as a"], ("resid_post", 3))
        >>> vector.name, len(vector)
        ('blocks.3.hook_resid_post', 128)
    """
    check_counts(1, batch_size=batch_size)
    if is_each_token(position):
        raise ArgumentError("position is 'last', 'mean' or a position, got 'token'")
    if not isinstance(name, str | list | tuple):
        raise ArgumentError(
            f"expected the name of an activation, such as ('resid_post', 3), got {shown(name)}"
        )
    given = name if isinstance(name, str | tuple) else list(name)
    names = [given] if isinstance(given, str | tuple) else given
    sides = [
        read_features(model, texts, names, position, batch_size=batch_size) for texts in (positive, negative)
    ]
    if len(sides[0].names) != 1:
        raise ArgumentError(f"expected one activation, got {len(sides[0].names)}: {sides[0].names[:4]}")
    values = [side.values[0] for side in sides]
    vector = values[0].mean(0) - values[1].mean(0)
    check_finite(vector, "the difference of the activations")
    if not bool(vector.any()):
        raise ArgumentError("positive and negative texts have the same activation: nothing to steer by")
    return SteeringVector(
        name=sides[0].names[0],
        vector=vector,
        size=float(torch.cat(values).norm(dim=1).mean()),
        texts=(len(values[0]), len(values[1])),
        position=position if isinstance(position, str) else "a position",
    )
