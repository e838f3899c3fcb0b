"""Circuits found by feature attribution over the nodes of a network.

`CircuitDetector` attributes a score to heads and MLPs of transformers, or to the channels of layers, by
gradients, integrated gradients, DeepLift, Shapley values or ablation, and returns a `NodeCircuit`.
"""

from .detector import CircuitDetector
from .faithfulness import Faithfulness
from .node_circuit import NodeCircuit

__all__ = ["CircuitDetector", "Faithfulness", "NodeCircuit"]
