"""Where a language model stores a fact, and edits of it (Meng et al., 2022 and 2023)."""

from .editing import Edit, EditRequest, EditSettings, RankOneEditor, export_lora, revert_all
from .evaluation import EditCase, Evaluation, counterfact_cases, evaluate_edits, world_cases
from .statistics import KeyStatistics, collect_statistics
from .tracing import AverageEffects, CausalTrace, CausalTracer, EmbeddingNoise, TraceSettings

__all__ = [
    "AverageEffects",
    "CausalTrace",
    "CausalTracer",
    "Edit",
    "EditCase",
    "EditRequest",
    "EditSettings",
    "EmbeddingNoise",
    "Evaluation",
    "KeyStatistics",
    "RankOneEditor",
    "TraceSettings",
    "collect_statistics",
    "counterfact_cases",
    "evaluate_edits",
    "export_lora",
    "revert_all",
    "world_cases",
]
