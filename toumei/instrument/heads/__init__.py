"""Which attention heads behave alike, and what they attend to (Clark et al. 2019)."""

from .attention_batches import AttentionBatch
from .behaviours import HeadBehaviours
from .clustering import AttentionHeadClusterAnalyzer, cluster_attention_heads
from .clusters import AttentionHeadClusteringResult
from .divergences import head_divergences

__all__ = [
    "AttentionBatch",
    "AttentionHeadClusterAnalyzer",
    "AttentionHeadClusteringResult",
    "HeadBehaviours",
    "cluster_attention_heads",
    "head_divergences",
]
