"""Networks to look into: the InceptionV1 of the feature-visualization literature and small ones."""

from .cppn import CPPN
from .inception5h import Inception5h
from .simple import SimpleCNN, SimpleMLP

__all__ = ["CPPN", "Inception5h", "SimpleCNN", "SimpleMLP"]
