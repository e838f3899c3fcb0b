"""The attention weights of a batch of texts, and the checks that they are such."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.errors import ArgumentError, NonFiniteError, ShapeError
from ...core.kinds import shown
from ...core.summaries import counted
from ...core.tensors import WHOLE_NUMBERS

_TOLERANCE = 0.02  # of sums of rows, which half precision rounds


@dataclass(eq=False)
class AttentionBatch:
    """The attention weights of all layers for a batch of texts, and which of its tokens are what.

    Attributes:
        weights: Of each layer (batch, heads, query, key), after the softmax; by the name of the layer or of
            the tensor, or in a sequence. Layers may differ in their number of heads.
        mask: (batch, length), 1 for tokens and 0 for padding; None if there is no padding.
        tokens: (batch, length) numbers of the tokens, to find separators and punctuation.
        separators: (batch, length), 1 for separators, in place of numbers.
        punctuation: (batch, length), 1 for punctuation, in place of numbers.

    Example:
        >>> AttentionBatch({"layer0": torch.eye(4).expand(1, 2, 4, 4)}).weights["layer0"].shape
        torch.Size([1, 2, 4, 4])
    """

    weights: Mapping[str, Tensor] | Sequence[Tensor] = ()
    mask: Tensor | None = None
    tokens: Tensor | None = None
    separators: Tensor | None = None
    punctuation: Tensor | None = None

    @property
    def layers(self) -> dict[str, Tensor]:
        """The weights by name; those of a sequence are named by their place in it."""
        if isinstance(self.weights, Mapping):
            return dict(self.weights)
        return {str(place): weights for place, weights in enumerate(_listed(self.weights))}

    @property
    def heads(self) -> tuple[int, ...]:
        """How many heads each layer has."""
        return tuple(weights.shape[1] for weights in self.layers.values())

    def check(self) -> None:
        """Raises an error unless every row of a token is a distribution over the tokens of its text.

        Raises:
            ArgumentError: There are no weights, a row has negative ones or another sum than 1, or a mask has
                other numbers than 0 and 1.
            NonFiniteError: A row has NaN or infinity in it.
            ShapeError: A tensor has another shape than it should have.
        """
        layers = self.layers
        if not layers:
            raise ArgumentError("no attention weights: the batch has no layer")
        first = next(iter(layers.values()))
        for name, weights in layers.items():
            _check_shape(name, weights, first)
        size = (first.shape[0], first.shape[-1])
        for name in ("mask", "tokens", "separators", "punctuation"):
            given = getattr(self, name)
            if given is not None and (not isinstance(given, Tensor) or tuple(given.shape) != size):
                raise ShapeError(f"expected {name} (batch, length) = {size}, got {shown(given)}")
            if given is not None and name != "tokens" and not bool(((given == 0) | (given == 1)).all()):
                raise ArgumentError(f"{name} is 1 for tokens that count and 0 for others, got other numbers")
        if self.tokens is not None and self.tokens.dtype not in WHOLE_NUMBERS:
            raise ArgumentError(f"tokens are whole numbers, got {shown(self.tokens)}")
        for name, weights in layers.items():
            self._check_rows(name, weights.detach())

    def _check_rows(self, name: str, weights: Tensor) -> None:
        """Looks at the rows of tokens; those of padding may hold anything."""
        least, total = weights.amin(-1), weights.sum(-1, dtype=torch.float32)
        if self.mask is not None:
            real = self.mask.to(weights.device) == 1
            least, total = least.transpose(1, 2)[real], total.transpose(1, 2)[real]
        if not total.numel():
            return
        if not bool(total.isfinite().all()):
            raise NonFiniteError(f"attention weights of layer {name!r} have NaN or infinity in them")
        if float(least.min()) < 0:
            raise ArgumentError(
                f"attention weights are 0 or more, got {float(least.min()):.4g} in layer {name!r}: "
                f"give them after the softmax"
            )
        off = float((total - 1).abs().max())
        if off > _TOLERANCE:
            raise ArgumentError(
                f"each row of attention weights has the sum 1, one in layer {name!r} is off by {off:.4g}: "
                f"give them after the softmax, of a model in eval mode"
            )

    def texts(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Gives of each text its place in the batch, the weights among its tokens, and where these are in it.

        Weights are (heads, tokens, tokens), in single precision at least; what goes to padding is left out,
        and each row has the sum 1. Texts without a token are left out.

        Raises:
            ArgumentError: All attention of a token goes to padding.
        """
        layers = [weights.detach() for weights in self.layers.values()]
        device = layers[0].device
        for index in range(len(layers[0])):
            places = torch.arange(layers[0].shape[-1])
            if self.mask is not None:
                places = (self.mask[index] == 1).nonzero()[:, 0].cpu()
            if not len(places):
                continue
            parts = [_among(weights[index], places).to(device) for weights in layers]
            weights = torch.cat(parts)
            weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
            total = weights.sum(-1, keepdim=True)
            if not bool(total.amin() > 0):
                raise ArgumentError(
                    f"a token of text {index} attends to padding only: give the model the mask too"
                )
            yield index, weights / total, places


def _listed(weights: Any) -> Sequence[Any]:
    """The weights of a sequence; a tensor would be taken for one layer an index."""
    if isinstance(weights, list | tuple):
        return weights
    raise ArgumentError(
        f"weights has a tensor (batch, heads, query, key) for each layer, got {shown(weights)}"
    )


def _check_shape(name: str, weights: Tensor, first: Tensor) -> None:
    if not isinstance(weights, Tensor) or weights.dim() != 4 or not weights.is_floating_point():
        raise ShapeError(
            f"expected attention weights (batch, heads, query, key) of layer {name!r}, got {shown(weights)}"
        )
    batch, _, queries, keys = weights.shape
    if not weights.numel():
        raise ShapeError(f"attention weights of layer {name!r} are empty: {tuple(weights.shape)}")
    if queries != keys:
        raise ShapeError(
            f"heads are compared on self-attention, where queries are keys: layer {name!r} has "
            f"{counted(queries, 'query')} and {counted(keys, 'key')}"
        )
    if (batch, keys) != (first.shape[0], first.shape[-1]):
        raise ShapeError(
            f"all layers see the same tokens, got {tuple(weights.shape)} in layer {name!r} and "
            f"{tuple(first.shape)} in the first"
        )


def _among(weights: Tensor, places: Tensor) -> Tensor:
    """The weights (heads, query, key) among some tokens; those that follow each other are not copied."""
    start, count = int(places[0]), len(places)
    if int(places[-1]) - start + 1 == count:
        return weights[:, start : start + count, start : start + count]
    places = places.to(weights.device)
    return weights[:, places[:, None], places]
