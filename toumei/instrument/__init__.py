"""The graph of every operation of a model, with its tensors, and what is found in it."""

from .fmrai_names import Fmrai, fmrai, instrument_model
from .graph import OperationGraph
from .nodes import Operation, TensorNode
from .other_graphs import GraphDifferences, compare_with_export, compare_with_fx
from .probe import Probe, Tracker, instrument
from .tensors import TensorMap

__all__ = [
    "Fmrai",
    "GraphDifferences",
    "Operation",
    "OperationGraph",
    "Probe",
    "TensorMap",
    "TensorNode",
    "Tracker",
    "compare_with_export",
    "compare_with_fx",
    "fmrai",
    "instrument",
    "instrument_model",
]
