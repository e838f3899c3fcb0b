"""What a transformer knows, where that can be read, and directions that steer it."""

from .graph_extractor import KnowledgeGraphExtractor
from .head_relations import HeadRelations
from .knowledge_graph import GraphComparison, KnowledgeGraph
from .probe_result import ProbeResult
from .prober import KnowledgeProber

__all__ = [
    "GraphComparison",
    "HeadRelations",
    "KnowledgeGraph",
    "KnowledgeGraphExtractor",
    "KnowledgeProber",
    "ProbeResult",
]
