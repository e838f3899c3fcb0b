"""The graph of every operation of a model, with its tensors, and what is found in it."""

from .activations import Activation, find_activations
from .attention import find_multi_head_attention
from .attention_batches import AttentionBatch
from .attention_instance import MultiHeadAttentionInstance
from .feed_forward import FeedForward, FindTransformerFFN, find_feed_forward
from .fmrai_names import Fmrai, fmrai, instrument_model
from .graph import OperationGraph
from .head_clustering import AttentionHeadClusterAnalyzer, cluster_attention_heads
from .head_clusters import AttentionHeadClusteringResult
from .key_value_analyzer import KeyValueAnalyzer, KeyValueMaxSearchStrategy, KVResults, NeuronKVRecord
from .key_value_memories import KeyValueMemories
from .linear_maps import LinearMap, find_linear
from .memory_result import Memories
from .memory_store import MemoryStore
from .nodes import Operation, TensorNode
from .normalizations import Normalization, find_normalizations
from .other_graphs import GraphDifferences, compare_with_export, compare_with_fx
from .patterns import Constant, Either, Match, Pattern, Skip, Step, Value, Weight, chain
from .probe import Probe, Tracker, instrument
from .residual_sums import ResidualSum, find_residual_sums
from .search import find
from .tensors import TensorMap

__all__ = [
    "Activation",
    "AttentionBatch",
    "AttentionHeadClusterAnalyzer",
    "AttentionHeadClusteringResult",
    "Constant",
    "Either",
    "FeedForward",
    "FindTransformerFFN",
    "Fmrai",
    "GraphDifferences",
    "KVResults",
    "KeyValueAnalyzer",
    "KeyValueMaxSearchStrategy",
    "KeyValueMemories",
    "LinearMap",
    "Match",
    "Memories",
    "MemoryStore",
    "MultiHeadAttentionInstance",
    "NeuronKVRecord",
    "Normalization",
    "Operation",
    "OperationGraph",
    "Pattern",
    "Probe",
    "ResidualSum",
    "Skip",
    "Step",
    "TensorMap",
    "TensorNode",
    "Tracker",
    "Value",
    "Weight",
    "chain",
    "cluster_attention_heads",
    "compare_with_export",
    "compare_with_fx",
    "find",
    "find_activations",
    "find_feed_forward",
    "find_linear",
    "find_multi_head_attention",
    "find_normalizations",
    "find_residual_sums",
    "fmrai",
    "instrument",
    "instrument_model",
]
