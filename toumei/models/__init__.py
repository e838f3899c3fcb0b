"""Networks to interpret: the InceptionV1 of the feature-visualization literature, and small ones.

`InductionTransformer` has a circuit that is known edge by edge, `ModularAddition` an algorithm that is known:
methods have a right answer there.
"""

from .cppn import CPPN
from .download import load_state_dict
from .facts_model import facts_gpt
from .facts_world import Fact, FactsWorld
from .inception5h import Inception5h
from .induction_transformer import Edge, InductionTransformer
from .language_models import minilm, smollm2
from .modular_addition import ModularAddition
from .shapes_cnn import ShapesCNN
from .shapes_world import ShapesDataset
from .simple import SimpleCNN, SimpleMLP

__all__ = [
    "CPPN",
    "Edge",
    "Fact",
    "FactsWorld",
    "Inception5h",
    "InductionTransformer",
    "ModularAddition",
    "ShapesCNN",
    "ShapesDataset",
    "SimpleCNN",
    "SimpleMLP",
    "facts_gpt",
    "load_state_dict",
    "minilm",
    "smollm2",
]
