"""Questions to whole networks: modularity, style, sharpness, the tangent kernel and rank.

`modularity` asks whether a network falls into modules: its graphs, clusterings, and tests are exported here
too. `StyleTransfer` paints one photograph in the style of another. `perturbation_sharpness`, `hessian_trace`
and `top_eigenvalue` measure minima, `neural_tangent_kernel` compares inputs by their gradients, and
`effective_rank` and `participation_ratio` count the dimensions that activations use.
"""

from typing import TYPE_CHECKING, Any

from . import modularity
from .modularity import (
    CNNGraph,
    Communities,
    LesionTest,
    LocalityCost,
    MLPGraph,
    ModelGraph,
    NullTest,
    SpectralPartition,
    WeightGraph,
    clusterability_loss,
    correlation_graph,
    lesion_test,
    ncut,
    null_test,
    spectral_partition,
)
from .rank import effective_rank, participation_ratio
from .sharpness import Sharpness, hessian_trace, perturbation_sharpness, top_eigenvalue
from .tangent_kernels import kernel_distance, kernel_velocity, neural_tangent_kernel

if TYPE_CHECKING:
    from .style_transfer import StyleTransfer

__all__ = [
    "CNNGraph",
    "Communities",
    "LesionTest",
    "LocalityCost",
    "MLPGraph",
    "ModelGraph",
    "NullTest",
    "Sharpness",
    "SpectralPartition",
    "StyleTransfer",
    "WeightGraph",
    "clusterability_loss",
    "correlation_graph",
    "effective_rank",
    "hessian_trace",
    "kernel_distance",
    "kernel_velocity",
    "lesion_test",
    "modularity",
    "ncut",
    "neural_tangent_kernel",
    "null_test",
    "participation_ratio",
    "perturbation_sharpness",
    "spectral_partition",
    "top_eigenvalue",
]


def __getattr__(name: str) -> Any:
    if name == "StyleTransfer":  # imported when it is first used: it needs kornia, which takes a second
        from .style_transfer import StyleTransfer

        return StyleTransfer
    raise AttributeError(f"module 'toumei.misc' has no attribute {name!r}; it has {', '.join(__all__)}")
