"""The graph of every operation of a model, with its tensors, and what is found in it."""

from .attention_batches import AttentionBatch
from .fmrai_names import Fmrai, fmrai, instrument_model
from .graph import OperationGraph
from .head_clustering import AttentionHeadClusterAnalyzer, cluster_attention_heads
from .head_clusters import AttentionHeadClusteringResult
from .nodes import Operation, TensorNode
from .other_graphs import GraphDifferences, compare_with_export, compare_with_fx
from .probe import Probe, Tracker, instrument
from .tensors import TensorMap

__all__ = [
    "AttentionBatch",
    "AttentionHeadClusterAnalyzer",
    "AttentionHeadClusteringResult",
    "Fmrai",
    "GraphDifferences",
    "Operation",
    "OperationGraph",
    "Probe",
    "TensorMap",
    "TensorNode",
    "Tracker",
    "cluster_attention_heads",
    "compare_with_export",
    "compare_with_fx",
    "fmrai",
    "instrument",
    "instrument_model",
]
