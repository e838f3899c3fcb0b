"""Feature inversion: a picture that has the same activation at a layer as a photograph."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from ...core.checks import checked
from ...core.modules import device_and_dtype
from ..inputs import as_image, as_layers
from ..objectives import ActivationDifference, Objective, PerImage, TotalVariation, reference_activations
from ..parameterization import FFTImage, Transform
from ..pipeline import Pipeline
from ..visualization import Visualization


@checked
def invert(
    model: nn.Module,
    image: Tensor,
    layer: str | Sequence[str],
    *,
    smoothness: float = 0.1,
    preprocess: Callable[[Tensor], Tensor] | None = None,
    steps: int = 512,
    lr: float = 0.05,
    snapshots: int | Sequence[int] = (),
    seed: int | None = None,
    verbose: bool = True,
) -> Visualization:
    """Returns a picture whose activation at a layer is that of an image; one for each of several layers.

    It shows what the layer keeps of the image. The picture starts as noise. The loss is the squared distance
    of the activations divided by the squared norm of that of the image, plus the total variation (Mahendran
    and Vedaldi, Understanding Deep Image Representations by Inverting Them, 2015).

    Args:
        model: The network.
        image: The image (C, H, W) or (1, C, H, W) in [0, 1]; the pictures have its size.
        layer: Name of the layer, or names of several.
        smoothness: Weight of the total variation, which is divided by how many numbers the picture has.
        preprocess: From RGB in [0, 1] to the input of the model; see `robustness.preprocess`.
        steps: Optimizer steps.
        lr: Learning rate.
        snapshots: Steps after which to keep the pictures; see `Pipeline.optimize`.
        seed: Seed of the noise.
        verbose: Show a progress bar.

    Raises:
        ShapeError: An image of a wrong size or range.
        ArgumentError: No layers.
        LayerError: A layer that the model does not have.

    Example:
        >>> import torch
        >>> from toumei.models import SimpleCNN
        >>> invert(SimpleCNN(3, 10), torch.rand(3, 40, 60), ["conv1", "conv2"], steps=2, verbose=False)
        Visualization(2 pictures of 40x60 after 2 steps, moved by ..., finished: conv1, conv2)
    """
    original = as_image(image)
    layers = as_layers(layer)
    wanted = reference_activations(model, layers, original, preprocess)
    size = original[0].numel()
    objectives = [_likeness(name, wanted[name]) - smoothness / size * TotalVariation() for name in layers]
    noise = FFTImage(len(layers), *original.shape[1:], seed=seed).to(device_and_dtype(model)[0])
    shown = Transform(noise, *[preprocess] if preprocess else [])
    pipeline = Pipeline(shown, PerImage(*objectives)).attach(model)
    result = pipeline.optimize(steps, lr=lr, snapshots=snapshots, seed=seed, verbose=verbose)
    return replace(result, titles=layers)


def _likeness(layer: str, wanted: Tensor) -> Objective:
    """Minus the squared distance to an activation, divided by its squared norm."""
    norm = wanted.square().mean().clamp(min=1e-12).item()
    return ActivationDifference(layer, wanted, distance="squared") / -norm
