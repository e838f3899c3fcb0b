"""Networks to interpret: the InceptionV1 of the feature-visualization literature, and small ones."""

from .cppn import CPPN
from .download import load_state_dict
from .facts_model import facts_gpt
from .facts_world import Fact, FactsWorld
from .inception5h import Inception5h
from .shapes_cnn import ShapesCNN
from .shapes_world import ShapesDataset
from .simple import SimpleCNN, SimpleMLP

__all__ = [
    "CPPN",
    "Fact",
    "FactsWorld",
    "Inception5h",
    "ShapesCNN",
    "ShapesDataset",
    "SimpleCNN",
    "SimpleMLP",
    "facts_gpt",
    "load_state_dict",
]
