"""How a corpus lights up a model: maps and graphs of where the texts of each category lie in each layer."""

from .activation_areas import ActivationAreas
from .comparison import GraphComparison
from .evaluation import AreaEvaluation, Evaluation
from .graph_metrics import Metrics, graph_metrics
from .pictures import plot_graph
from .reductions import PCA, SVD, UMAP
from .result import Areas

LLM_MRI = ActivationAreas
"""The name of the class in LLM-MRI's first README."""

__all__ = [
    "LLM_MRI",
    "PCA",
    "SVD",
    "UMAP",
    "ActivationAreas",
    "AreaEvaluation",
    "Areas",
    "Evaluation",
    "GraphComparison",
    "Metrics",
    "graph_metrics",
    "plot_graph",
]
