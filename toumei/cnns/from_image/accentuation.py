"""Feature accentuation: a photograph that is changed a little to excite a unit more."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ...core.checks import checked
from ...core.errors import ArgumentError, ShapeError
from ...core.modules import device_and_dtype
from ...core.summaries import counted
from .. import robustness
from ..inputs import as_images
from ..objectives import IMAGE, ActivationDifference, as_objective
from ..objectives.objective import ObjectiveLike
from ..parameterization import FFTImage, Transform
from ..pipeline import Pipeline
from ..visualization import Visualization


@checked
def accentuate(
    model: nn.Module,
    image: Tensor,
    objective: ObjectiveLike,
    *,
    penalty: float = 1.0,
    views: nn.Module | None = None,
    preprocess: Callable[[Tensor], Tensor] | None = None,
    steps: int = 100,
    lr: float = 0.05,
    snapshots: int | Sequence[int] = (),
    seed: int | None = None,
    verbose: bool = True,
) -> Visualization:
    """Returns an image that is changed so that the score of an objective rises, but stays similar to itself.

    The optimization starts from the image. Low frequencies, which people see, change faster than high ones,
    and the mean squared change of the pixels is a part of the loss (Hamblin et al., Feature Accentuation,
    2024). To keep the image similar in a layer instead, set `penalty` to 0 and subtract an
    `ActivationDifference` from the objective.

    Args:
        model: The network.
        image: (C, H, W), or several images (N, C, H, W), in [0, 1].
        objective: The score that is raised, as for `Pipeline`: one for all images, or a list with one for
            each.
        penalty: Weight of the mean squared change. Larger scores need a larger weight.
        views: Random transforms; by default `robustness.lucid`, cut to the size of the image for a network
            that takes no other. ``nn.Identity()`` for none.
        preprocess: From RGB in [0, 1] to the input of the model; see `robustness.preprocess`.
        steps: Optimizer steps.
        lr: Learning rate.
        snapshots: Steps after which to keep the images; see `Pipeline.optimize`.
        seed: Seed of the views.
        verbose: Show a progress bar.

    Raises:
        ShapeError: An image of a wrong size or range, or another number of images than objectives.
        ArgumentError: A negative penalty.
        LayerError: A layer that the model does not have.

    Example:
        >>> import torch
        >>> from toumei.models import SimpleCNN
        >>> accentuate(SimpleCNN(3, 10), torch.rand(3, 40, 60), "conv2:3", steps=2, verbose=False)
        Visualization(1 picture of 40x60 after 2 steps, moved by ..., finished: conv2:3)
    """
    if penalty < 0:
        raise ArgumentError(f"penalty is a weight of at least 0, got {penalty}")
    original, objective = as_images(image).to(device_and_dtype(model)[0]), as_objective(objective)
    if objective.images not in (None, len(original)):
        raise ShapeError(
            f"the objective is for {counted(objective.images, 'picture')}, and there are {len(original)}"
        )
    # Without a sigmoid black and white are exact and change as easily as any other colour. Its slope at gray
    # is 1/4: four times the usual saturation makes steps as large as with it.
    changed = FFTImage.from_image(original, sigmoid=False, saturation=16)
    moved = robustness.lucid() if views is None else views
    shown = Transform(changed, moved, *[preprocess] if preprocess else [])
    change = ActivationDifference(IMAGE, original, distance="squared")
    pipeline = Pipeline(shown, objective - penalty * change).attach_fitted(model, views is None)
    return pipeline.optimize(steps, lr=lr, snapshots=snapshots, seed=seed, verbose=verbose)
