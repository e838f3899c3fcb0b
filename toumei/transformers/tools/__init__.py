"""The tools of Arrakis under their names, each a thin door of a `HookedModel`."""

from .attention_composer import AttentionComposer, HeadComposition
from .attention_tools import AttentionTools
from .causal_tracing_intervention import CausalTracingIntervention, TokenTrace
from .knowledge_tools import KnowledgeGraphExtractor, KnowledgeProber, NeuronProbe, Subspaces
from .logit_attributor import LogitAttributor
from .logit_lens import LogitLens
from .model_surgery import ModelSurgery
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
    "KnowledgeGraphExtractor",
    "KnowledgeProber",
    "LogitAttributor",
    "LogitLens",
    "ModelSurgery",
    "NeuronProbe",
    "PolysemanticNeurons",
    "ResidualDecomposer",
    "ResidualParts",
    "ResidualTools",
    "SparsityAnalyzer",
    "Subspaces",
    "SuperpositionDisentangler",
    "TokenTrace",
    "WriteReadAnalyzer",
]
