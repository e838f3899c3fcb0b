"""The objectives that pictures are optimized for, and the pipeline that optimizes them."""

from .batches import Alignment, Diversity, Interpolation
from .classes import ClassLogit
from .combinations import Add, ConstantScore, Function, Multiply, PerImage, Power, as_objective
from .directions import Direction, NeuronDirection, TensorDirection
from .groups import ChannelWeights, LocalGroup
from .objective import IMAGE, Objective
from .references import ActivationDifference, DotCompare, Style, gram, reference_activations
from .regularizers import L1, L2, BlurDifference, BoundaryComplexity, LInf, TotalVariation
from .units import Channel, DeepDream, Layer, Neuron

# The pipeline imports the objectives, so it comes last.
from ..pipeline import Pipeline  # isort: skip

__all__ = [
    "IMAGE",
    "L1",
    "L2",
    "ActivationDifference",
    "Add",
    "Alignment",
    "BlurDifference",
    "BoundaryComplexity",
    "Channel",
    "ChannelWeights",
    "ClassLogit",
    "ConstantScore",
    "DeepDream",
    "Direction",
    "Diversity",
    "DotCompare",
    "Function",
    "Interpolation",
    "LInf",
    "Layer",
    "LocalGroup",
    "Multiply",
    "Neuron",
    "NeuronDirection",
    "Objective",
    "PerImage",
    "Pipeline",
    "Power",
    "Style",
    "TensorDirection",
    "TotalVariation",
    "as_objective",
    "gram",
    "reference_activations",
]
