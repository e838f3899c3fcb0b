"""Objectives that compare the activations of a picture with a reference: content, style, caricature."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ...core.checks import checked
from ...core.errors import ArgumentError, ShapeError
from ...core.layout import LaidOut, Layout, channels_first, layout_in
from ...core.modules import device_and_dtype
from ...core.surveys import survey
from ..inputs import as_images, prepared
from .objective import IMAGE, ActivationMap, Objective

Distance = Literal["l1", "l2", "squared"]


@checked
def reference_activations(
    model: nn.Module,
    layers: Iterable[str],
    images: Tensor,
    preprocess: Callable[[Tensor], Tensor] | None = None,
) -> LaidOut:
    """Returns what a model makes of images, (N, ...) by layer, from one forward pass without a graph.

    Args:
        model: The network; it runs in evaluation mode.
        layers: Names of the layers; `IMAGE` for the images themselves, before `preprocess`.
        images: (N, C, H, W), in [0, 1]. Pictures that are compared with them must have the same size.
        preprocess: The preprocessing of the network, such as a normalization.

    Raises:
        ShapeError: Images of a wrong rank or outside of [0, 1].
        LayerError: A layer that the model does not have or does not reach.

    Example:
        >>> reference_activations(nn.Sequential(nn.ReLU()), ["0"], torch.ones(1, 3, 4, 6))["0"].shape
        torch.Size([1, 3, 4, 6])
    """
    images = as_images(images, "images", single=False)
    names = [layer for layer in layers if layer != IMAGE]
    device, dtype = device_and_dtype(model)
    seen = images.to(device)
    inputs = prepared(seen, preprocess).to(dtype)
    found = survey(model, names, lambda: model(inputs)).activations
    made = {name: _at_least_float32(found[name]) for name in names}
    return LaidOut({IMAGE: seen, **made}, found.layouts)


@checked
def gram(activation: Tensor, channel_axis: int | None = None) -> Tensor:
    """Returns the Gram matrices (N, C, C) of activations: products of channels, in the mean over positions.

    Args:
        activation: (N, C, H, W), tokens (N, T, C), or any other shape with the batch first.
        channel_axis: The axis of the channels, where it is not axis 1 or, for tokens, the last.

    Raises:
        ShapeError: The activation has no batch and channel axes, or no positions.

    Example:
        >>> gram(torch.ones(1, 2, 4, 4))
        tensor([[[1., 1.],
                 [1., 1.]]])
    """
    if not (activation.is_floating_point() or activation.is_complex()):
        raise ShapeError(f"expected an activation of floating-point numbers, got {activation.dtype}")
    flat = channels_first(activation, channel_axis)
    if not flat.shape[2]:
        raise ShapeError(f"an activation {tuple(activation.shape)} has no positions to take a mean over")
    return flat @ flat.mT / flat.shape[2]


@dataclass(frozen=True, repr=False, eq=False)
class _Referenced(Objective):
    """A comparison of a layer's activation with a reference."""

    layer: str
    reference: Tensor | int

    def __post_init__(self) -> None:
        if isinstance(self.reference, Tensor):
            if self.reference.dim() < 2:
                raise ShapeError(
                    f"a reference is batch first, (1, ...) or (N, ...), got {tuple(self.reference.shape)}"
                )
            object.__setattr__(self, "reference", self.reference.detach())
        elif not isinstance(self.reference, int) or self.reference < 0:
            raise ArgumentError(
                f"a reference is a tensor or the index of a picture in the batch, got {self.reference!r}"
            )

    @classmethod
    def to_image(
        cls,
        model: nn.Module,
        layer: str,
        image: Tensor,
        preprocess: Callable[[Tensor], Tensor] | None = None,
        **options: Any,
    ) -> Self:
        """Returns the objective with an image as the reference.

        Args:
            model: The network.
            layer: Name of the layer.
            image: (1, C, H, W) in [0, 1], or one image for each picture.
            preprocess: As for `reference_activations`.
            **options: The other arguments of the objective.

        Raises:
            ShapeError: Images of a wrong rank or outside of [0, 1].
            LayerError: A layer that the model does not have or does not reach.
        """
        empty = cls(layer, 0, **options)
        activations = reference_activations(model, [layer], image, preprocess)
        return replace(empty, reference=empty._features(activations[layer], layout_in(activations, layer)))

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer."""
        return (self.layer,)

    @property
    def images(self) -> int | None:
        """One picture for each of several references."""
        several = isinstance(self.reference, Tensor) and len(self.reference) > 1
        return len(self.reference) if several else None  # type: ignore[arg-type]

    def bind(self, model: nn.Module) -> Objective:
        """Returns the objective with its reference on the device of the model."""
        if not isinstance(self.reference, Tensor):
            return self
        return replace(self, reference=self.reference.to(device_and_dtype(model)[0]))

    def titles(self, images: int) -> list[str]:
        """Returns the kind of the comparison and the layer."""
        return [f"{type(self).__name__} {self.layer}"] * images

    def _features(self, activation: Tensor, layout: Layout | None) -> Tensor:
        return activation

    def _pair(self, activations: ActivationMap) -> tuple[Tensor, Tensor]:
        """Returns the compared values of the pictures and of the reference, each (N or 1, values)."""
        activation = self._features(activations[self.layer], layout_in(activations, self.layer))
        if isinstance(self.reference, Tensor):
            reference = self.reference.to(activation, non_blocking=True)
        elif self.reference < len(activation):
            reference = activation[self.reference : self.reference + 1].detach()
        else:
            raise ArgumentError(
                f"no picture {self.reference} as the reference in a batch of {len(activation)}"
            )
        if reference.shape[1:] != activation.shape[1:]:
            raise ShapeError(
                f"the reference of layer {self.layer!r} is {tuple(reference.shape[1:])}, and of the pictures "
                f"the layer makes {tuple(activation.shape[1:])}: a reference image must have the size of "
                f"what the network sees"
            )
        return activation.flatten(1), reference.flatten(1)


@checked
@dataclass(frozen=True, repr=False, eq=False)
class ActivationDifference(_Referenced):
    """How far the activation of a layer is from a reference. Subtract it.

    It is the content of style transfer (Gatys et al. 2016) and, with the layer `IMAGE` and ``"l2"``, lucid's
    `input_diff`.

    Args:
        layer: Name of the layer, or `IMAGE`.
        reference: An activation (1, ...), or one for each picture, (N, ...); or the index of a picture in the
            batch, which then gets the same transforms as the others. `to_image` takes it from an image.
        distance: ``"l1"``, the mean absolute difference; ``"squared"``, the mean squared difference; or
            ``"l2"``, the square root of that.

    Raises:
        ShapeError: A reference without a batch axis. When a model is attached: one of another size.
        ArgumentError: An unknown distance, a negative index, or one outside of the batch.

    Example:
        >>> ActivationDifference("conv1", torch.zeros(1, 5, 4, 4)).score({"conv1": torch.ones(2, 5, 4, 4)})
        tensor([1., 1.])
    """

    distance: Distance = field(default="l1", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distance not in get_args(Distance):
            raise ArgumentError(f"distance is one of {get_args(Distance)}, got {self.distance!r}")

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the distance of each picture to the reference, (N,)."""
        activation, reference = self._pair(activations)
        difference = activation - reference
        if self.distance == "l1":
            return difference.abs().mean(1)
        squared = difference.square().mean(1)
        # Smoothed, or the gradient at the reference itself would not be finite.
        return squared if self.distance == "squared" else (squared + 1e-12).sqrt()


@checked
@dataclass(frozen=True, repr=False, eq=False)
class Style(ActivationDifference):
    """How far the Gram matrix of a layer is from that of a reference, for pictures of any size. Subtract it.

    The mean over positions of products of channels describes textures, without their positions (Gatys et al.
    2016). The mean absolute difference is lucid's style loss.

    Args:
        layer: Name of the layer.
        reference: What `gram` returns for an activation, (1, C, C) or one for each picture, (N, C, C); or the
            index of a picture in the batch. `to_image` takes it from an image.
        distance: As for `ActivationDifference`.
        channel_axis: The axis of the channels, where it is not axis 1 or, for tokens, the last.

    Raises:
        ShapeError: A reference without a batch axis. When a model is attached: one of other channels.
        ArgumentError: An unknown distance, a negative index, or one outside of the batch.

    Example:
        >>> style = Style("conv1", gram(torch.zeros(1, 5, 4, 4)))
        >>> style.score({"conv1": torch.ones(2, 5, 7, 9)})
        tensor([1., 1.])
    """

    channel_axis: int | None = field(default=None, kw_only=True)

    def _features(self, activation: Tensor, layout: Layout | None) -> Tensor:
        axis = layout.channel_axis if self.channel_axis is None and layout else self.channel_axis
        return gram(activation, axis)


@checked
@dataclass(frozen=True, repr=False, eq=False)
class DotCompare(_Referenced):
    """How far the whole activation of a layer points in the direction of a reference: lucid's caricature.

    The score is dot * max(0.1, dot / norm) ** power, with the norm of the activation of the picture. The norm
    of the reference is left out, as in lucid.

    Args:
        layer: Name of the layer.
        reference: An activation (1, ...), or one for each picture, (N, ...); or the index of a picture in the
            batch, which then gets the same transforms as the others. `to_image` takes it from an image.
        power: The power of the cosine; 0 exaggerates most.

    Raises:
        ShapeError: A reference without a batch axis. When a model is attached: one of another size.
        ArgumentError: A negative index, or one outside of the batch.

    Example:
        >>> DotCompare("fc", torch.tensor([[3.0, 4.0]])).score({"fc": torch.tensor([[1.0, 0.0]])})
        tensor([3.])
    """

    power: float = field(default=0.0, kw_only=True)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the similarity of each picture to the reference, (N,)."""
        activation, reference = self._pair(activations)
        dot = (activation * reference).sum(1)
        cosine = dot / (1e-6 + torch.linalg.vector_norm(activation, dim=1))
        result: Tensor = dot * cosine.clamp(min=0.1) ** self.power
        return result


def _at_least_float32(activation: Tensor) -> Tensor:
    return activation.to(torch.promote_types(activation.dtype, torch.float32))
