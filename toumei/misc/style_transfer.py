"""Style transfer: a picture with the content of one photograph and the textures of another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from typing_extensions import Self

from ..cnns.inputs import as_image
from ..cnns.objectives import ActivationDifference, Add, Objective, Style, gram, reference_activations
from ..cnns.objectives.objective import ActivationMap
from ..cnns.parameterization import FFTImage, Transform
from ..cnns.pipeline import Pipeline
from ..cnns.robustness.normalization import preprocess as named_preprocess
from ..core.checks import checked
from ..core.errors import ArgumentError, NotAttachedError, ShapeError
from ..models import Inception5h

CONTENT_LAYERS = ("mixed3b",)
STYLE_LAYERS = ("conv2d2", "mixed3a", "mixed4a", "mixed4b", "mixed4c")


@checked
class StyleTransfer(Pipeline):
    """A pipeline whose picture has the content of one photograph and the style of another.

    The picture starts as the content. Its targets are computed once, when a model is attached: the
    activations of the content, and the Gram matrices of the style (Gatys, Ecker and Bethge, 2016). The loss
    is the weighted sum, over the layers, of mean absolute differences as in lucid, each divided by the mean
    absolute value of its target, so that weights mean the same for all layers and networks. A step is one
    forward and one backward pass of one picture, which ends after the deepest layer.

    Args:
        content_image: (C, H, W) or (1, C, H, W) in [0, 1], of any size; the picture has its size.
        content_weight: Weight of the content.
        style_image: (C, H, W) or (1, C, H, W) in [0, 1], of any size.
        style_weight: Weight of the style.
        content_layers: Layers whose activations are the targets; by default lucid's, which `Inception5h` has.
        style_layers: Layers whose Gram matrices are the targets; by default lucid's, which `Inception5h` has.
        preprocess: From RGB in [0, 1] to the input of the model; see `toumei.cnns.robustness.preprocess`. By
            default that of `Inception5h` for such a model, and none for any other.

    Raises:
        ShapeError: An image of a wrong size or range, or of other channels than the other image.
        ArgumentError: A negative weight, two that are 0, or no layers.

    Example:
        >>> import torch
        >>> from toumei.models import SimpleCNN
        >>> content, style = torch.rand(3, 40, 60), torch.rand(3, 32, 32)
        >>> transfer = StyleTransfer(content, 1, style, 1, ["conv2"], ["conv1", "conv2"])
        >>> transfer.attach(SimpleCNN(3, 10)).optimize(epochs=2, verbose=False)
        Visualization(1 picture of 40x60 after 2 steps, moved by ..., finished: style transfer)
    """

    def __init__(
        self,
        content_image: Tensor,
        content_weight: float,
        style_image: Tensor,
        style_weight: float,
        content_layers: Sequence[str] | None = None,
        style_layers: Sequence[str] | None = None,
        *,
        preprocess: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        content = as_image(content_image, "content_image")
        style = as_image(style_image, "style_image")
        if content.shape[1] != style.shape[1]:
            raise ShapeError(
                f"content_image and style_image must have the same channels, got {content.shape[1]} and "
                f"{style.shape[1]}"
            )
        targets = (
            _Target(content, content_weight, _layers(content_layers, CONTENT_LAYERS), _content),
            _Target(style, style_weight, _layers(style_layers, STYLE_LAYERS), _style),
        )
        if not content_weight and not style_weight:
            raise ArgumentError("content_weight and style_weight are both 0: there is nothing to optimize")
        # Without a sigmoid black and white are exact and change as easily as any other colour. Its slope at
        # gray is 1/4: four times the usual saturation makes steps as large as with it.
        picture = FFTImage.from_image(content, sigmoid=False, saturation=16)
        super().__init__(picture, _Transfer(targets, preprocess))
        self._picture, self._preprocess = picture, preprocess

    @checked
    def attach(self, model: nn.Module) -> Self:
        """Attaches a model, and computes the targets of the two photographs, once and without graph.

        Args:
            model: The network, which is not changed.

        Raises:
            LayerError: A layer that the model does not have.
            UnreachedLayerError: A layer that the forward pass does not reach.
        """
        self.generator = Transform(self._picture, _preprocess_of(model, self._preprocess))
        return super().attach(model)


@dataclass(frozen=True, eq=False)
class _Target:
    """A photograph, the layers of its targets, and the distance to a target."""

    image: Tensor
    weight: float
    layers: tuple[str, ...]
    distance: Callable[[str, Tensor], Objective]

    def __post_init__(self) -> None:
        if not self.weight >= 0 or not self.layers:
            raise ArgumentError(
                f"content and style need a weight of at least 0 and at least one layer, got {self.weight} "
                f"and {list(self.layers)}"
            )

    def losses(self, model: nn.Module, preprocess: Callable[[Tensor], Tensor]) -> list[Objective]:
        """Returns the weighted distance at each layer, after one forward pass of the photograph."""
        if not self.weight:
            return []
        seen = reference_activations(model, self.layers, self.image, preprocess)
        return [-self.weight * self.distance(layer, seen[layer]) for layer in self.layers]


@dataclass(frozen=True, repr=False, eq=False)
class _Transfer(Objective):
    """The objective of content and style; a sum of distances once a model is attached."""

    targets: Sequence[_Target]
    preprocess: Callable[[Tensor], Tensor] | None

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for target in self.targets for layer in target.layers))

    def bind(self, model: nn.Module) -> Objective:
        preprocess = _preprocess_of(model, self.preprocess)
        return _Sum(*(loss for target in self.targets for loss in target.losses(model, preprocess)))

    def score(self, activations: ActivationMap) -> Tensor:
        raise NotAttachedError("the targets of content and style are known once a model is attached")

    def titles(self, images: int) -> list[str]:
        return ["style transfer"] * images

    def __repr__(self) -> str:
        content, style = (f"{target.weight:g} * ({', '.join(target.layers)})" for target in self.targets)
        return f"content {content}, style {style}"


class _Sum(Add):
    titles = _Transfer.titles


def _content(layer: str, activation: Tensor) -> Objective:
    return ActivationDifference(layer, activation) / _size(activation)


def _style(layer: str, activation: Tensor) -> Objective:
    matrix = gram(activation)
    return Style(layer, matrix) / _size(matrix)


def _size(target: Tensor) -> float:
    return target.abs().mean().clamp(min=1e-12).item()


def _layers(given: Sequence[str] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if given is None:
        return default
    return (given,) if isinstance(given, str) else tuple(given)


def _preprocess_of(model: nn.Module, given: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor]:
    if given is not None:
        return given
    return named_preprocess("inception5h") if isinstance(model, Inception5h) else nn.Identity()
