"""Language models: the parts of an architecture, logit lenses, causal tracing and model editing.

`CausalTracer` shows which states carry a fact, `RankOneEditor` rewrites it, `evaluate_edits` scores that, and
`logit_lens` shows the predictions after each layer. `HookedModel` reads and writes activations by the names
of TransformerLens. `anatomy` finds the parts of any causal language model.
"""

from .lenses import LogitLens, logit_lens
from .model import ActivationCache, Anatomy, HookedAutoConfig, HookedAutoModel, HookedModel, anatomy
from .rome import (
    AverageEffects,
    CausalTrace,
    CausalTracer,
    Edit,
    EditCase,
    EditRequest,
    EditSettings,
    EmbeddingNoise,
    Evaluation,
    KeyStatistics,
    RankOneEditor,
    TraceSettings,
    collect_statistics,
    counterfact_cases,
    evaluate_edits,
    export_lora,
    revert_all,
    world_cases,
)

__all__ = [
    "ActivationCache",
    "Anatomy",
    "AverageEffects",
    "CausalTrace",
    "CausalTracer",
    "Edit",
    "EditCase",
    "EditRequest",
    "EditSettings",
    "EmbeddingNoise",
    "Evaluation",
    "HookedAutoConfig",
    "HookedAutoModel",
    "HookedModel",
    "KeyStatistics",
    "LogitLens",
    "RankOneEditor",
    "TraceSettings",
    "anatomy",
    "collect_statistics",
    "counterfact_cases",
    "evaluate_edits",
    "export_lora",
    "logit_lens",
    "revert_all",
    "world_cases",
]
