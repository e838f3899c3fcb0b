"""Circuits: which edges between embeddings, heads, MLPs and logits carry a behaviour."""

from .attribution import attribution_graph
from .attribution_result import AttributionGraph
from .circuit import Circuit

__all__ = ["AttributionGraph", "Circuit", "attribution_graph"]
