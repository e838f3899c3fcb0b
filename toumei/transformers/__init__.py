"""Transformers: activations under the names of TransformerLens, heads, lenses, causal tracing, model editing.

`HookedModel` reads and writes any activation of a Hugging Face transformer. `CausalTracer` shows which states
carry a fact, `RankOneEditor` rewrites it, `evaluate_edits` scores that. `logit_lens`, `TunedLens` and
`direct_logit_attribution` show what each layer predicts and which parts the logits are made of.
"""

from .heads import HeadScores, attention_flow, attention_rollout, head_scores, repeated_tokens
from .lenses import (
    LensEvaluation,
    LensTable,
    LogitAttribution,
    LogitLens,
    TunedLens,
    direct_logit_attribution,
    logit_lens,
)
from .model import Anatomy, anatomy
from .model.activation_cache import ActivationCache
from .model.hooked_model import HookedModel
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
    "HeadScores",
    "HookedModel",
    "KeyStatistics",
    "LensEvaluation",
    "LensTable",
    "LogitAttribution",
    "LogitLens",
    "RankOneEditor",
    "TraceSettings",
    "TunedLens",
    "anatomy",
    "attention_flow",
    "attention_rollout",
    "collect_statistics",
    "counterfact_cases",
    "direct_logit_attribution",
    "evaluate_edits",
    "export_lora",
    "head_scores",
    "logit_lens",
    "repeated_tokens",
    "revert_all",
    "world_cases",
]
