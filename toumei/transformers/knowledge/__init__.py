"""What a transformer knows, where that can be read, and directions that steer it."""

from .graph_extractor import KnowledgeGraphExtractor
from .head_relations import HeadRelations
from .knowledge_graph import GraphComparison, KnowledgeGraph
from .probe_result import ProbeResult
from .prober import KnowledgeProber
from .steering import SteeringVector, steering_vector
from .strengths import SteeringSweep, steering_sweep

__all__ = [
    "GraphComparison",
    "HeadRelations",
    "KnowledgeGraph",
    "KnowledgeGraphExtractor",
    "KnowledgeProber",
    "ProbeResult",
    "SteeringSweep",
    "SteeringVector",
    "steering_sweep",
    "steering_vector",
]
