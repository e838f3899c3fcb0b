"""The tools of Arrakis under their names, each a thin door of a `HookedModel`."""

from .attention_composer import AttentionComposer, HeadComposition
from .attention_tools import AttentionTools
from .causal_tracing_intervention import CausalTracingIntervention, TokenTrace
from .logit_attributor import LogitAttributor
from .logit_lens import LogitLens
from .residual_decomposer import ResidualDecomposer, ResidualParts
from .residual_tools import ResidualTools
from .sparsity_analyzer import PolysemanticNeurons, SparsityAnalyzer
from .superposition_disentangler import Directions, SuperpositionDisentangler
from .write_read_analyzer import Hop, InformationFlow, WriteReadAnalyzer

__all__ = [
    "AttentionComposer",
    "AttentionTools",
    "CausalTracingIntervention",
    "Directions",
    "HeadComposition",
    "Hop",
    "InformationFlow",
    "LogitAttributor",
    "LogitLens",
    "PolysemanticNeurons",
    "ResidualDecomposer",
    "ResidualParts",
    "ResidualTools",
    "SparsityAnalyzer",
    "SuperpositionDisentangler",
    "TokenTrace",
    "WriteReadAnalyzer",
]
