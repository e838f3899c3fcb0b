"""Reductions of states to a few coordinates: PCA, SVD, UMAP. One fit for the texts of all categories."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.checks import check_choice, check_counts, check_seed, checked
from ...core.errors import ArgumentError
from ...core.optional import require
from ...core.summaries import counted
from .moments import Moments

_NOTHING = 1e-10  # share of the variance below which a direction is rounding


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear map to coordinates.

    Attributes:
        mean: (width,) is subtracted.
        scale: (width,) divides; infinite for numbers that are the same in all texts.
        directions: (components, width), orthogonal, of length 1, or 0 where nothing varies any more.
        explained: (components,) the share of the variance, or of the squares, along each direction.
    """

    mean: Tensor
    scale: Tensor
    directions: Tensor
    explained: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        """Returns the coordinates (texts, components) of states (texts, width), in float64."""
        return ((states.double() - self.mean) / self.scale) @ self.directions.T


@checked
@dataclass(frozen=True)
class Reduction(ABC):
    """What states are reduced to; see `PCA`, `SVD` and `UMAP`.

    Attributes:
        n_components: How many coordinates, from 2 on. Two make maps; more make graphs of components.
        random_state: The seed of what is random.
        gridsize: Cells in a row of a map.
    """

    n_components: int = 2
    random_state: int | None = 0
    gridsize: int = 10

    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_counts(2, n_components=self.n_components)
        check_counts(1, gridsize=self.gridsize)
        check_seed(self.random_state)

    @property
    def seed(self) -> int | None:
        """The seed as scikit-learn takes it."""
        return None if self.random_state is None else self.random_state % 2**32

    @abstractmethod
    def estimator(self) -> Any:
        """Returns an estimator of scikit-learn that does the same, to be fitted on other states."""

    @abstractmethod
    def projection(self, moments: Moments) -> Projection | None:
        """Returns the linear map that the moments of all states give, None where there is none."""

    def check(self, layer: str, texts: int, width: int) -> None:
        """Raises an error for states that are too few or too short for so many components."""
        if self.n_components > min(texts, width):
            raise ArgumentError(
                f"at most {counted(min(texts, width), 'component')} for {counted(texts, 'text')} with states "
                f"of {counted(width, 'number')} in layer {layer!r}, got n_components={self.n_components}"
            )


class PCA(Reduction):
    """Principal components of standardized states, as of ``StandardScaler`` and ``PCA`` of scikit-learn.

    Every number of a state counts the same: some models have a few whose variance is far above all others.

    Args:
        n_components: How many coordinates.
        random_state: Is not used: the fit is exact.
        gridsize: Cells in a row of a map.

    Example:
        >>> moments = Moments(3)
        >>> moments.add(torch.tensor([[0.0, 0.0, 1.0], [1.0, 2.0, 1.0], [2.0, 4.0, 1.0]]))
        >>> PCA().projection(moments).explained
        tensor([1., 0.], dtype=torch.float64)
    """

    name: ClassVar[str] = "pca"

    def estimator(self) -> Any:
        """Returns a pipeline of scikit-learn."""
        from sklearn.decomposition import PCA as Components
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        return make_pipeline(StandardScaler(), Components(self.n_components, random_state=self.seed))

    def projection(self, moments: Moments) -> Projection:
        """Returns the map to the principal components."""
        deviations = moments.deviations
        scale = torch.where(deviations > 0, deviations, torch.inf)
        correlations = moments.scatter / moments.count / torch.outer(scale, scale)
        directions, explained = _leading(correlations, self.n_components)
        return Projection(moments.mean, scale, directions, explained)


class SVD(Reduction):
    """Singular vectors of the states as they are, as of ``TruncatedSVD`` of scikit-learn: not centred.

    Args:
        n_components: How many coordinates.
        random_state: Is not used: the fit is exact.
        gridsize: Cells in a row of a map.

    Example:
        >>> SVD(n_components=3).estimator()
        TruncatedSVD(algorithm='arpack', n_components=3, random_state=0)
    """

    name: ClassVar[str] = "svd"

    def estimator(self) -> Any:
        """Returns an estimator of scikit-learn."""
        from sklearn.decomposition import TruncatedSVD

        return TruncatedSVD(self.n_components, algorithm="arpack", random_state=self.seed)

    def projection(self, moments: Moments) -> Projection:
        """Returns the map to the singular vectors."""
        directions, explained = _leading(moments.second, self.n_components)
        zeros = torch.zeros_like(moments.mean)
        return Projection(zeros, torch.ones_like(zeros), directions, explained)


@checked
@dataclass(frozen=True)
class UMAP(Reduction):
    """UMAP (McInnes et al. 2018, arXiv:1802.03426) of standardized states, by the package umap-learn.

    Distances on its maps say little, neighbours much; it needs all states in memory.

    Args:
        n_components: How many coordinates.
        random_state: The seed.
        gridsize: Cells in a row of a map.
        metric: Of umap-learn, between standardized states.

    Raises:
        MissingDependencyError: umap-learn is not installed.

    Example:
        >>> UMAP(gridsize=8).metric  # doctest: +SKIP
        'cosine'
    """

    metric: str = "cosine"

    name: ClassVar[str] = "umap"

    def __post_init__(self) -> None:
        super().__post_init__()
        require("umap", "the reduction 'umap'", "umap-learn")

    def estimator(self) -> Any:
        """Returns a pipeline of scikit-learn and umap-learn."""
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        umap = require("umap", "the reduction 'umap'", "umap-learn")
        options = {"metric": self.metric, "random_state": self.seed, "n_jobs": 1}
        return make_pipeline(StandardScaler(), umap.UMAP(n_components=self.n_components, **options))

    def projection(self, moments: Moments) -> None:
        """Returns None: there is no linear map."""
        return


REDUCTIONS: dict[str, type[Reduction]] = {"pca": PCA, "svd": SVD, "umap": UMAP}


def reduction_of(given: "str | Reduction") -> Reduction:
    """Returns a reduction that may be given by its name.

    Raises:
        ArgumentError: There is no such reduction.
        MissingDependencyError: It needs a package that is not installed.

    Example:
        >>> reduction_of("svd")
        SVD(n_components=2, random_state=0, gridsize=10)
    """
    if isinstance(given, Reduction):
        return given
    check_choice("reduction", given, REDUCTIONS)
    return REDUCTIONS[given]()


def _leading(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The eigenvectors (count, width) with the largest eigenvalues, and their shares of the trace.

    The largest entry of each is positive, so that two fits of the same states give the same map.
    """
    values, vectors = torch.linalg.eigh(matrix)
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count].T
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    shares = values / matrix.trace().clamp(min=torch.finfo(torch.float64).tiny)
    real = shares > _NOTHING
    return vectors * largest.sign() * real[:, None], torch.where(real, shares, 0.0)
