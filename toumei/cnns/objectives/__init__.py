"""What pictures are optimized for, and the pipeline that optimizes them."""

from .combinations import Add, Constant, Function, Multiply, PerImage, as_objective
from .objective import IMAGE, Objective
from .references import ActivationDifference, DotCompare, Style, gram, reference_activations
from .regularizers import L1, L2, Diversity, TotalVariation
from .unit_objectives import Channel, ClassLogit, DeepDream, Direction, Layer, Neuron

# The pipeline imports the objectives, so it comes last.
from ..pipeline import Pipeline  # isort: skip

__all__ = [
    "IMAGE",
    "L1",
    "L2",
    "ActivationDifference",
    "Add",
    "Channel",
    "ClassLogit",
    "Constant",
    "DeepDream",
    "Direction",
    "Diversity",
    "DotCompare",
    "Function",
    "Layer",
    "Multiply",
    "Neuron",
    "Objective",
    "PerImage",
    "Pipeline",
    "Style",
    "TotalVariation",
    "as_objective",
    "gram",
    "reference_activations",
]
