"""Class activation maps: the positions of a layer at which its channels speak for the target."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import ArgumentError, ShapeError
from ...core.layout import with_channels_first
from ...core.user_warnings import warn
from ..base.baselines import BaselineLike
from ..base.batching import BATCH_SIZE
from ..base.inputs import Layers, Preprocess, parts_of
from ..base.method import Method
from ..base.problem import Problem
from ..base.result import Attribution
from .guided import GuidedBackprop


class GradCam(Method):
    """Grad-CAM: a layer's channels, weighted by their mean gradients (Selvaraju et al., 2017).

    Args:
        model: The network.
        layer: A layer whose activations are maps (N, C, H, W), volumes (N, C, D, H, W), signals (N, C, L), or
            the tokens (N, T, C) of a vision transformer, whose grid the picture tells.
        preprocess: Applied to the inputs before the network.
        upsample: Scale the maps bilinearly to the height and width of the picture among the inputs; else,
            and without a picture, they have the layer's size.
        channel_axis: The axis of the channels, where it cannot be told.
        grid: Height and width of the grid that tokens stand on, where it cannot be told.
        batch_size: How many inputs pass through the network at a time.

    Example:
        >>> method = GradCam(nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "0")
        >>> method(torch.randn(5, 3, 9, 13), target=1).values.shape
        torch.Size([5, 1, 9, 13])
    """

    differentiates = True

    def __init__(
        self,
        model: nn.Module,
        layer: str,
        preprocess: Preprocess | None = None,
        *,
        upsample: bool = True,
        channel_axis: int | None = None,
        grid: tuple[int, int] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        names: Layers = layer
        if isinstance(names, list | tuple):
            raise ArgumentError(f"maps are of one layer, got {layer!r}")
        super().__init__(model, layer, preprocess, batch_size=batch_size)
        self.upsample = upsample
        self.channel_axis = channel_axis
        self.grid = grid

    def attribute(self, problem: Problem, baselines: BaselineLike) -> Attribution:
        """Returns maps that are 0 or positive, (N, 1, H, W).

        Args:
            problem: The network and its inputs.
            baselines: Not used.

        Raises:
            ShapeError: The layer's activations are not maps.
        """
        scores, (maps,) = problem.in_batches(self.maps, self.batch_size)
        problem = self._of_main(problem)
        pictures = [part for part in parts_of(problem.inputs) if part.dim() == 4]
        if self.upsample and pictures:
            maps = _scaled(maps, pictures[0])
        return self.result(problem, [maps], scores)

    def maps(self, problem: Problem) -> tuple[Tensor, tuple[Tensor]]:
        """Returns the scores (N, T) and the layer's maps, one tensor (T, N, 1, h, w)."""
        activation = problem.tensors[0]
        maps = self._maps(problem, activation)
        scores, (gradients, *_) = problem.gradients(problem.tensors)
        by_channel = torch.stack([self._maps(problem, gradient).flatten(2) for gradient in gradients])
        weighted = self.weigh(maps.flatten(2), by_channel).relu()
        return scores, (weighted.reshape(*weighted.shape[:2], 1, *_positions(maps)),)

    def _of_main(self, problem: Problem) -> Problem:
        """The problem of the layer's main tensor alone, with a warning where scores use others as well."""
        others = [
            place.name for number, place in enumerate(problem.places) if number in problem.reached - {0}
        ]
        if others:
            warn(
                f"maps are of {problem.places[0].name!r} alone, and the score also uses {', '.join(others)}: "
                f"name the tensor that counts as the layer"
            )
        return replace(problem, tensors=problem.tensors[:1], places=problem.places[:1])

    def _maps(self, problem: Problem, activation: Tensor) -> Tensor:
        """Returns an activation of the layer as (N, C, positions on their grid)."""
        assert problem.found is not None and isinstance(self.layer, str)
        layout = problem.found.layouts[self.layer]
        return with_channels_first(activation, layout, self.layer, self.channel_axis, self.grid).maps()

    def weigh(self, activation: Tensor, gradients: Tensor) -> Tensor:
        """Returns maps (T, N, P) of activations (N, C, P) and their gradients (T, N, C, P)."""
        return (gradients.mean(3, keepdim=True) * activation).sum(2)


class GradCamPlusPlus(GradCam):
    """Grad-CAM++: gradients count more for a channel with few active positions (Chattopadhay et al., 2018).

    The score is taken as the logarithm of the class score, as in the paper. Settings are those of `GradCam`.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> GradCamPlusPlus(model, "0")(torch.randn(5, 3, 9, 13), target=1).values.shape
        torch.Size([5, 1, 9, 13])
    """

    def weigh(self, activation: Tensor, gradients: Tensor) -> Tensor:
        """Returns maps as `GradCam.weigh` does."""
        below = 2 * gradients**2 + activation.sum(2, keepdim=True) * gradients**3
        shares = torch.where(below == 0, 0, gradients**2 / torch.where(below == 0, 1, below))
        return ((shares * gradients.relu()).sum(3, keepdim=True) * activation).sum(2)


class LayerCam(GradCam):
    """LayerCAM: a layer's activations, each weighted by its positive gradient (Jiang et al., 2021).

    The weights differ by position, so that maps of early layers are fine. Settings are those of `GradCam`.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> LayerCam(model, "0")(torch.randn(5, 3, 9, 13), target=1).values.shape
        torch.Size([5, 1, 9, 13])
    """

    def weigh(self, activation: Tensor, gradients: Tensor) -> Tensor:
        """Returns maps as `GradCam.weigh` does."""
        return (gradients.relu() * activation).sum(2)


class GuidedGradCam(GradCam):
    """Guided backpropagation times Grad-CAM (Selvaraju et al., 2017).

    The contributions are those of the inputs, whatever the layer.

    Args:
        model: The network.
        layer: As for `GradCam`.
        preprocess: Applied to the inputs before the network.
        channel_axis: As for `GradCam`.
        grid: As for `GradCam`.
        batch_size: How many inputs pass through the network at a time.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> GuidedGradCam(model, "0")(torch.randn(5, 3, 9, 13), target=1).values.shape
        torch.Size([5, 3, 9, 13])
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str,
        preprocess: Preprocess | None = None,
        *,
        channel_axis: int | None = None,
        grid: tuple[int, int] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        super().__init__(
            model, layer, preprocess, channel_axis=channel_axis, grid=grid, batch_size=batch_size
        )

    def attribute(self, problem: Problem, baselines: BaselineLike) -> Attribution:
        """Returns the products, in the structure of the inputs.

        Args:
            problem: The network and its inputs.
            baselines: Not used.

        Raises:
            ShapeError: Inputs that are not pictures, or a layer with activations that are not maps.
        """
        of_inputs = problem.of_inputs()
        if others := [tuple(part.shape) for part in of_inputs.tensors if part.dim() != 4]:
            raise ShapeError(f"guided Grad-CAM is for pictures (N, C, H, W), got {others[0]}")
        guided = GuidedBackprop(self.model, None, self.preprocess)
        _, gradients = of_inputs.in_batches(guided.gradients, self.batch_size)
        scores, (maps,) = problem.in_batches(self.maps, self.batch_size)
        self._of_main(problem)
        self.warn_if_vanished(problem, [maps], scores)
        products = [gradient * _scaled(maps, gradient[0]) for gradient in gradients]
        return self.result(of_inputs, products, scores)


def _positions(maps: Tensor) -> torch.Size:
    """The sizes of the positions: (L,) of a signal, whose maps are (N, C, 1, L)."""
    signal = maps.dim() == 4 and maps.shape[2] == 1
    return maps.shape[3:] if signal else maps.shape[2:]


def _scaled(maps: Tensor, picture: Tensor) -> Tensor:
    """Maps (T, N, 1, h, w) at the height and width of a picture."""
    scaled = F.interpolate(maps.flatten(0, 1), picture.shape[-2:], mode="bilinear", align_corners=False)
    return scaled.reshape(*maps.shape[:3], *picture.shape[-2:])
