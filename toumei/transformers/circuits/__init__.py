"""Circuits: which edges between embeddings, heads, MLPs and logits carry a behaviour."""

from .attribution import attribution_graph
from .attribution_result import AttributionGraph
from .checks import CircuitChecks, circuit_checks
from .circuit import Circuit
from .circuit_runs import run_circuit
from .curves import SHARES, FaithfulnessCurves, faithfulness_curves
from .discovery import acdc
from .tasks import PromptPairs, greater_than, indirect_objects

__all__ = [
    "SHARES",
    "AttributionGraph",
    "Circuit",
    "CircuitChecks",
    "FaithfulnessCurves",
    "PromptPairs",
    "acdc",
    "attribution_graph",
    "circuit_checks",
    "faithfulness_curves",
    "greater_than",
    "indirect_objects",
    "run_circuit",
]
