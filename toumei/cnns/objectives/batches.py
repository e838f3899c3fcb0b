"""Objectives for a whole batch: how different or how similar its pictures are, and interpolations."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.layout import channels_of
from .combinations import Combination
from .objective import ActivationMap, Objective, ObjectiveLike


@checked
@dataclass(frozen=True, repr=False)
class Diversity(Objective):
    """How different the pictures of a batch are to a layer. Add it, with weights around 100.

    For each picture, minus the sum of cosines between its Gram matrix and those of the others (Olah et al.,
    Feature Visualization, 2017). The mean over the pictures is minus lucid's `diversity`.

    Args:
        layer: Name of the layer.
        channel_axis: The axis of the channels, where it is not axis 1 or, for tokens, the last.

    Example:
        >>> Diversity("conv1").score({"conv1": torch.ones(3, 2, 4, 4)})
        tensor([-2., -2., -2.])
    """

    layer: str
    channel_axis: int | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer."""
        return (self.layer,)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns minus the sum of similarities to the other pictures, (N,)."""
        activation = channels_of(activations, self.layer, self.channel_axis).values
        grams = torch.einsum("ncp,ndp->ncd", activation, activation).flatten(1)
        grams = grams * grams.square().sum(1, keepdim=True).clamp(min=1e-10).rsqrt()
        cosines = grams @ grams.T
        return cosines.diagonal() - cosines.sum(1)


@checked
@dataclass(frozen=True, repr=False)
class Alignment(Objective):
    """How similar neighbouring pictures of a batch are to a layer, for families of pictures. Add it.

    For each picture, minus half the mean squared differences to the pictures at distances up to four in the
    batch, each divided by decay^distance. The sum over the pictures is lucid's `alignment`.

    Args:
        layer: Name of the layer.
        decay: Factor by which the weight falls with each step of distance.

    Example:
        >>> Alignment("conv1").score({"conv1": torch.tensor([[0.0], [2.0], [2.0]])})
        tensor([-1.5000, -1.0000, -0.5000])
    """

    layer: str
    decay: float = 2.0

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer."""
        return (self.layer,)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns minus half the weighted differences to the neighbours, (N,)."""
        flat = activations[self.layer].flatten(1)
        scores = flat.new_zeros(len(flat))
        for distance in range(1, min(5, len(flat))):
            costs = (flat[distance:] - flat[:-distance]).square().mean(1) / (2 * self.decay**distance)
            none = costs.new_zeros(distance)
            scores = scores - torch.cat([none, costs]) - torch.cat([costs, none])
        return scores


@checked
class Interpolation(Combination):
    """From one objective to another across the batch: lucid's `channel_interpolate`.

    The first picture is for the first objective and the last for the last. Each picture between is for a
    mixture of the two nearest objectives, so that the path goes through all of them.

    Args:
        *objectives: Objectives or unit strings, at least two.

    Raises:
        ArgumentError: Fewer than two objectives, or one that is for several pictures.

    Example:
        >>> path = Interpolation("fc:0", "fc:1")
        >>> path.score({"fc": torch.tensor([[4.0, 8.0]] * 3)})
        tensor([4., 6., 8.])
    """

    def __init__(self, *objectives: ObjectiveLike) -> None:
        super().__init__(*objectives)
        if len(self.objectives) < 2 or self.images is not None:
            raise ArgumentError(f"{self} needs at least two objectives, each for any picture")

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the mixture of each picture, (N,)."""
        images = len(next((activations[layer] for layer in self.layers), torch.zeros(1)))
        position = torch.linspace(0, len(self.objectives) - 1, images)
        total = torch.zeros(())
        for index, objective in enumerate(self.objectives):
            score = objective.score(activations)
            weights = (1 - (position - index).abs()).clamp(min=0)
            total = total + weights.to(score, non_blocking=True) * score
        return total

    def titles(self, images: int) -> list[str]:
        """Returns the position of each picture on the path."""
        ends = f"{self.objectives[0].titles(1)[0]} to {self.objectives[-1].titles(1)[0]}"
        return [f"{ends}, {index / max(images - 1, 1):.0%}" for index in range(images)]

    def __repr__(self) -> str:
        return f"Interpolation({', '.join(map(str, self.objectives))})"
