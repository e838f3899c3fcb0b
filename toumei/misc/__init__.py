"""Questions to whole networks: modularity, style, sharpness, the tangent kernel and rank.

`modularity` asks whether a network falls into modules: its graphs, clusterings, and tests are exported here
too. `StyleTransfer` paints one photograph in the style of another. `perturbation_sharpness`, `hessian_trace`
and `top_eigenvalue` measure minima, `neural_tangent_kernel` compares inputs by their gradients, and
`effective_rank` and `participation_ratio` count the dimensions that activations use. `CircuitDetector` finds
the heads, MLPs or channels that make a score.
"""

from importlib import import_module
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
    from .circuits import CircuitDetector, NodeCircuit
    from .style_transfer import StyleTransfer

__all__ = [
    "CNNGraph",
    "CircuitDetector",
    "Communities",
    "LesionTest",
    "LocalityCost",
    "MLPGraph",
    "ModelGraph",
    "NodeCircuit",
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


_LATE = {"StyleTransfer": "style_transfer", "CircuitDetector": "circuits", "NodeCircuit": "circuits"}
"""Modules that are imported when they are first used: they need packages that take a second."""


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(f".{_LATE[name]}", __name__), name)
    raise AttributeError(f"module 'toumei.misc' has no attribute {name!r}; it has {', '.join(__all__)}")
