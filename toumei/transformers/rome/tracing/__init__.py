"""Causal tracing: where a language model stores a fact (Meng et al., 2022)."""

from .averages import AverageEffects
from .facts import Fact, read_facts
from .noise import Corruption, Noise
from .result import CausalTrace
from .tracer import CausalTracer

__all__ = [
    "AverageEffects",
    "CausalTrace",
    "CausalTracer",
    "Corruption",
    "Fact",
    "Noise",
    "read_facts",
]
