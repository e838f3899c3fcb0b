"""Whether a network falls into modules: weight graphs, clusterings, their quality and null models."""

from .graph import Block, WeightGraph, chain
from .quality import in_out_ratio, modularity, modularity_by_cluster, ncut, ncut_by_cluster
from .spectral import SpectralPartition, laplacian_eigenpairs, spectral_partition

__all__ = [
    "Block",
    "SpectralPartition",
    "WeightGraph",
    "chain",
    "in_out_ratio",
    "laplacian_eigenpairs",
    "modularity",
    "modularity_by_cluster",
    "ncut",
    "ncut_by_cluster",
    "spectral_partition",
]
