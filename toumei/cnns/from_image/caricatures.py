"""Caricature: a picture that exaggerates what a layer sees in a photograph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.modules import device_and_dtype
from ...core.summaries import counted
from .. import robustness
from ..inputs import as_image, as_layers
from ..objectives import DotCompare, Objective
from ..objectives.objective import ActivationMap
from ..parameterization import FFTImage, Transform
from ..pipeline import Pipeline
from ..visualization import Visualization


@checked
def caricature(
    model: nn.Module,
    image: Tensor,
    layer: str | Sequence[str],
    *,
    power: float = 0.0,
    views: nn.Module | None = None,
    preprocess: Callable[[Tensor], Tensor] | None = None,
    steps: int = 512,
    lr: float = 0.05,
    tv_loss: bool | float = False,
    snapshots: int | Sequence[int] = (),
    seed: int | None = None,
    verbose: bool = True,
) -> Visualization:
    """Returns a picture that excites a layer as an image does, but more; one for each of several layers.

    The picture starts as noise. It is optimized for the dot product of its activation with that of the image,
    which is transformed in the same way in each step (lucid, ``recipes/caricature.py``; Olah et al., The
    Building Blocks of Interpretability, 2018).

    Args:
        model: The network.
        image: The image (C, H, W) or (1, C, H, W) in [0, 1]; the pictures have its size.
        layer: Name of the layer, or names of several.
        power: See `DotCompare`; 0 exaggerates most.
        views: Random transforms of image and picture, with ``same_on_batch=True`` so that both get the same;
            by default `robustness.lucid`, cut to the size of the image for a network that takes no other.
            ``nn.Identity()`` for none.
        preprocess: From RGB in [0, 1] to the input of the model; see `robustness.preprocess`.
        steps: Optimizer steps.
        lr: Learning rate.
        tv_loss: Weight of the total variation; see `Pipeline.optimize`.
        snapshots: Steps after which to keep the pictures; see `Pipeline.optimize`.
        seed: Seed of the noise and of the views.
        verbose: Show a progress bar.

    Raises:
        ShapeError: An image of a wrong size or range.
        ArgumentError: Views that differ between image and picture, or several of each, or no layers.
        LayerError: A layer that the model does not have.

    Example:
        >>> from toumei.models import SimpleCNN
        >>> caricature(SimpleCNN(3, 10), torch.rand(3, 40, 60), ["conv1", "conv2"], steps=2, verbose=False)
        Visualization(2 pictures of 40x60 after 2 steps, moved by ..., finished: conv1, conv2)
    """
    reference = as_image(image)
    layers = as_layers(layer)
    transforms = robustness.lucid(same_on_batch=True) if views is None else views
    if any(getattr(piece, "same_on_batch", True) is False for piece in transforms.modules()):
        raise ArgumentError("views must be the same for image and picture: give them same_on_batch=True")
    noise = FFTImage(len(layers), *reference.shape[1:], seed=seed)
    shown = _BesideReference(reference, noise, transforms, *[preprocess] if preprocess else [])
    if shown.views > 1:
        raise ArgumentError(
            f"views must show image and picture once each, not {counted(shown.views, 'time')}"
        )
    shown.to(device_and_dtype(model)[0])
    return (
        Pipeline(shown, _Alike(layers, power))
        .attach_fitted(model, views is None)
        .optimize(steps, lr=lr, tv_loss=tv_loss, snapshots=snapshots, seed=seed, verbose=verbose)
    )


class _BesideReference(Transform):
    """Pictures that the network sees after a reference, which gets the same transforms."""

    def __init__(self, reference: Tensor, noise: FFTImage, *transforms: Callable[[Tensor], Tensor]) -> None:
        super().__init__(noise, *transforms)
        self.reference = reference

    def view(self, image: Tensor) -> Tensor:
        """Returns the transformed reference and then the transformed pictures."""
        return super().view(torch.cat([self.reference, image]))

    def to(self, device: torch.device | str) -> Self:
        """Moves the reference too."""
        self.reference = self.reference.to(device)
        return super().to(device)


@dataclass(frozen=True, repr=False)
class _Alike(Objective):
    """The similarity of each picture to the reference in a layer; the reference is first in the batch."""

    names: tuple[str, ...]
    power: float

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.names))

    @property
    def images(self) -> int:
        return len(self.names)

    def score(self, activations: ActivationMap) -> Tensor:
        scores = []
        for picture, layer in enumerate(self.names, 1):
            pair = activations[layer][[0, picture]]
            scores.append(DotCompare(layer, 0, power=self.power).score({layer: pair})[1])
        return torch.stack(scores)

    def titles(self, images: int) -> list[str]:
        return list(self.names)
