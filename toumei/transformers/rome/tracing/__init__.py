"""Causal tracing: where a language model stores a fact (Meng et al., 2022)."""

from .averages import AverageEffects
from .facts import FactPrompt, read_facts
from .noise import EmbeddingNoise
from .result import CausalTrace
from .settings import Kind, TraceSettings
from .tracer import CausalTracer

__all__ = [
    "AverageEffects",
    "CausalTrace",
    "CausalTracer",
    "EmbeddingNoise",
    "FactPrompt",
    "Kind",
    "TraceSettings",
    "read_facts",
]
