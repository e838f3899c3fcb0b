"""How a corpus lights up a model: maps and graphs of where the texts of each category lie in each layer."""

from .activation_areas import ActivationAreas
from .comparison import AreaComparison
from .evaluation import AreaEvaluation
from .llm_mri_names import LLM_MRI, Evaluation, Metrics
from .metrics import graph_metrics
from .pictures import plot_graph
from .reductions import PCA, SVD, UMAP
from .result import Areas

__all__ = [
    "LLM_MRI",
    "PCA",
    "SVD",
    "UMAP",
    "ActivationAreas",
    "AreaComparison",
    "AreaEvaluation",
    "Areas",
    "Evaluation",
    "Metrics",
    "graph_metrics",
    "plot_graph",
]
