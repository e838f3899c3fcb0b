"""The toy model of superposition: more features than dimensions (Elhage et al. 2022, arXiv:2209.10652)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.checks import check_counts, check_seed, checked
from ...core.errors import ArgumentError, ShapeError
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import specs
from ...plots.statistics import heat_map
from ...plots.style import BLUE, GRAY, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REACH = 1.2  # of the axes at least, so that pictures of several densities have one scale
_MOST_PAIRED = 256  # features whose products are drawn


@dataclass(frozen=True, repr=False, eq=False)
class Superposition(Saved):
    """A trained ReLU output model x' = relu(W^T W x + b), of one seed.

    Attributes:
        directions: The columns of W, (features, dimensions).
        biases: (features,).
        importances: The weights of the features in the loss, (features,).
        density: The probability with which a feature is not 0.
        loss: The mean weighted squared error in the last tenth of the training.

    Example:
        >>> from toumei.transformers.features import train_superposition
        >>> toy = train_superposition(2, 1, density=0.05, steps=400, instances=4)[0]
        >>> toy.represented.tolist(), bool((toy.directions[0] * toy.directions[1] < 0).all())
        ([True, True], True)
    """

    directions: Tensor
    biases: Tensor
    importances: Tensor
    density: float
    loss: float

    _specs = specs(directions="features dimensions", biases="features", importances="features")

    @property
    def dimensionalities(self) -> Tensor:
        """The share of a dimension that each feature has; see `feature_dimensionality`."""
        return feature_dimensionality(self.directions)

    @property
    def represented(self) -> Tensor:
        """Which features have a direction at all: a length above 0.5."""
        result: Tensor = self.directions.norm(dim=1) > 0.5
        return result

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the directions in two dimensions, else with the products of all pairs.

        Of many features those with the longest directions are in the pairs.
        """
        features, dimensions = self.directions.shape
        with drawing(ax, 4, 4) as ax:
            if dimensions != 2:
                longest = self.directions.norm(dim=1).topk(min(features, _MOST_PAIRED)).indices.sort().values
                names = [str(feature) for feature in longest.tolist()]
                shown = self.directions[longest]
                heat_map(shown @ shown.T, names, ax, label="product of two features", columns=names)
                longest_of = f"the {len(names)} longest of " if len(names) < features else ""
                ax.set_title(
                    f"density {self.density:g}: {longest_of}{counted(features, 'feature')} in "
                    f"{counted(dimensions, 'dimension')}"
                )
                return ax
            for x, y in self.directions.tolist():
                ax.plot([0, x], [0, y], color=GRAY, linewidth=1, zorder=1)
            ax.scatter(*self.directions.T.tolist(), color=BLUE, zorder=2)
            limit = 1.15 * max(_REACH, float(self.directions.abs().max()))
            ax.set_xlim(-limit, limit)
            ax.set_ylim(-limit, limit)
            ax.set_aspect("equal")
            ax.set(xlabel="first dimension", ylabel="second dimension")
            kept = self.dimensionalities[self.represented]
            share = f",\nabout {float(kept.median()):.2f} dimensions for each" if len(kept) else ""
            ax.set_title(f"density {self.density:g}: {counted(len(kept), 'feature')} in 2 dimensions{share}")
        return ax

    def __repr__(self) -> str:
        features, dimensions = self.directions.shape
        return (
            f"Superposition({int(self.represented.sum())} of {counted(features, 'feature')} in "
            f"{counted(dimensions, 'dimension')}, density {self.density:g}, loss {self.loss:.2g})"
        )


@torch.inference_mode(False)  # which has no gradients
@torch.enable_grad()
@checked
def train_superposition(
    features: int,
    dimensions: int,
    *,
    density: float = 0.05,
    importances: Tensor | None = None,
    steps: int = 2000,
    batch_size: int = 512,
    learning_rate: float = 1e-2,
    instances: int = 1,
    seed: int = 0,
) -> tuple[Superposition, ...]:
    """Returns toy models of superposition, trained side by side from different weights.

    Features are 0, or with the probability `density` even between 0 and 1. The loss is sum_i I_i (x_i -
    x'_i)^2 with the importances I, by AdamW with a learning rate that falls to 0 with a cosine.

    Args:
        features: How many features there are.
        dimensions: How many dimensions they are put into.
        density: The probability of a feature, 1 minus its sparsity.
        importances: Weights of the features, (features,); by default 1.
        steps: Steps of the optimizer.
        batch_size: Inputs of a step.
        learning_rate: That at the beginning.
        instances: How many models.
        seed: Of the weights and the inputs.

    Returns:
        The models, the one with the smallest loss first.

    Raises:
        ArgumentError: A setting that does not fit.

    Example:
        >>> best = train_superposition(2, 1, density=0.05, steps=400, instances=4)[0]
        >>> bool((best.directions[0] * best.directions[1] < 0).all())  # an antipodal pair
        True
    """
    check_counts(
        1,
        features=features,
        dimensions=dimensions,
        steps=steps,
        batch_size=batch_size,
        instances=instances,
    )
    check_seed(seed)
    if not 0 < density <= 1 or not 0 < learning_rate < float("inf"):
        raise ArgumentError(
            f"density is above 0 and at most 1, learning_rate above 0, got {density} and {learning_rate}"
        )
    weights = _weights(features, importances)
    generator = torch.Generator().manual_seed(seed)
    shape = instances, dimensions, features
    matrix = (torch.randn(shape, generator=generator) / dimensions**0.5).requires_grad_()
    bias = torch.zeros(instances, 1, features, requires_grad=True)
    optimizer = torch.optim.AdamW([matrix, bias], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = torch.zeros(instances)
    tail = max(1, steps // 10)
    for step in range(steps):
        inputs = torch.rand(instances, batch_size, features, generator=generator)
        inputs = inputs * (torch.rand(inputs.shape, generator=generator) < density)
        found = (inputs @ matrix.mT @ matrix + bias).relu()
        each = (weights * (inputs - found).square()).sum(2).mean(1)
        optimizer.zero_grad()
        each.sum().backward()
        optimizer.step()
        schedule.step()
        if step >= steps - tail:
            losses += each.detach() / tail
    return tuple(
        Superposition(
            directions=matrix[place].detach().T.contiguous(),
            biases=bias[place, 0].detach().clone(),
            importances=weights,
            density=float(density),
            loss=float(losses[place]),
        )
        for place in losses.argsort().tolist()
    )


def _weights(features: int, importances: Tensor | None) -> Tensor:
    """How much the error of each feature counts."""
    weights = torch.ones(features) if importances is None else importances.float()
    if weights.shape != (features,) or not bool((weights >= 0).all()):
        raise ArgumentError(
            f"expected {counted(features, 'importance')} from 0 on, got {tuple(weights.shape)}"
        )
    return weights


@checked
def feature_dimensionality(directions: Tensor) -> Tensor:
    """Returns the share of a dimension that each feature has, (features,).

    D_i = |W_i|^2 / sum_j (W_i/|W_i| . W_j)^2 (Elhage et al. 2022): 1 where a feature has a dimension to
    itself, 1/2 in antipodal pairs, 2/3 in triangles, 3/4 in tetrahedra, 2/5 in pentagons, 3/8 in square
    antiprisms; 0 for a feature without a direction.

    Args:
        directions: (features, dimensions).

    Raises:
        ShapeError: The directions are no matrix.

    Example:
        >>> feature_dimensionality(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
        tensor([0.5000, 0.5000, 1.0000])
    """
    products = _products(directions)
    return (directions.square().sum(1) / products.square().sum(1)).nan_to_num(0.0)


@checked
def interference(directions: Tensor) -> Tensor:
    """Returns how much of the other features each direction picks up, sum_{j != i} (W_i/|W_i| . W_j)^2.

    Args:
        directions: (features, dimensions).

    Raises:
        ShapeError: The directions are no matrix.

    Example:
        >>> interference(torch.tensor([[2.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
        tensor([1., 4., 0.])
    """
    products = _products(directions)
    return products.fill_diagonal_(0).square().sum(1)


@checked
def polysemanticity(directions: Tensor) -> Tensor:
    """Returns how many features share each neuron: (sum_i w_i^2)^2 / sum_i w_i^4 over its weights w_i.

    This is 1 for a neuron with one feature, n for one that n features share alike, and 0 for one without any.

    Args:
        directions: What each feature writes into the neurons, (features, neurons), such as the `W_dec` of a
            dictionary of an MLP's neurons.

    Raises:
        ShapeError: The directions are no matrix.

    Example:
        >>> polysemanticity(torch.tensor([[1.0, 1.0, 0.0], [0.0, -1.0, 0.0]]))
        tensor([1., 2., 0.])
    """
    _check_directions(directions)
    squares = directions.square()
    return (squares.sum(0).square() / squares.square().sum(0)).nan_to_num(0.0)


def _products(directions: Tensor) -> Tensor:
    """The products of each direction, at length 1, with all of them."""
    _check_directions(directions)
    return F.normalize(directions, dim=1) @ directions.T


def _check_directions(directions: Tensor) -> None:
    if directions.dim() != 2 or not directions.is_floating_point():
        raise ShapeError(f"expected directions (features, width), got {tuple(directions.shape)}")
