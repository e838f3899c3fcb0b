"""Networks to look into: the InceptionV1 of the feature-visualization literature and small ones."""

from .cppn import CPPN
from .download import load_state_dict
from .inception5h import Inception5h
from .shapes_cnn import ShapesCNN
from .shapes_world import ShapesDataset
from .simple import SimpleCNN, SimpleMLP

__all__ = ["CPPN", "Inception5h", "ShapesCNN", "ShapesDataset", "SimpleCNN", "SimpleMLP", "load_state_dict"]
