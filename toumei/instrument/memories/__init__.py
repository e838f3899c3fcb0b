"""Feed-forward layers as key-value memories: their triggers and what they promote (Geva et al. 2021)."""

from .agreement import Agreement
from .key_value_analyzer import KeyValueAnalyzer, KeyValueMaxSearchStrategy, KVResults, NeuronKVRecord
from .key_value_memories import KeyValueMemories
from .neuron_memory import NeuronMemory, Trigger
from .result import Memories
from .store import MemoryStore

__all__ = [
    "Agreement",
    "KVResults",
    "KeyValueAnalyzer",
    "KeyValueMaxSearchStrategy",
    "KeyValueMemories",
    "Memories",
    "MemoryStore",
    "NeuronKVRecord",
    "NeuronMemory",
    "Trigger",
]
