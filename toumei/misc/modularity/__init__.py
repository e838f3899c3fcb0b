"""Does a network fall into modules? Weight graphs, clusterings, their quality, null tests and lesions."""

from .communities import CNNGraph, Communities, MLPGraph, ModelGraph
from .correlation import correlation_graph
from .graph import Block, WeightGraph, chain
from .lesions import Lesion, LesionTest, lesion_test
from .null_models import NullTest, null_test
from .plots import plot_blocks, plot_eigenvalues, plot_layers, plot_null_test
from .quality import in_out_ratio, modularity, modularity_by_cluster, ncut, ncut_by_cluster
from .regularizers import LocalityCost, clusterability_loss
from .spectral import SpectralPartition, laplacian_eigenpairs, spectral_partition

__all__ = [
    "Block",
    "CNNGraph",
    "Communities",
    "Lesion",
    "LesionTest",
    "LocalityCost",
    "MLPGraph",
    "ModelGraph",
    "NullTest",
    "SpectralPartition",
    "WeightGraph",
    "chain",
    "clusterability_loss",
    "correlation_graph",
    "in_out_ratio",
    "laplacian_eigenpairs",
    "lesion_test",
    "modularity",
    "modularity_by_cluster",
    "ncut",
    "ncut_by_cluster",
    "null_test",
    "plot_blocks",
    "plot_eigenvalues",
    "plot_layers",
    "plot_null_test",
    "spectral_partition",
]
