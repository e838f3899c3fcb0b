"""Interventions on activations: ablation, activation patching, path patching, attribution patching."""

from .ablation_edits import ablation
from .ablation_table import HeadAblation
from .activations import activation_patching
from .gradients import AttributionPatching, attribution_patching
from .head_ablations import head_ablation
from .metrics import Metric, kl_to_clean, logit_difference, probability
from .patching_result import PatchingResult
from .paths import path_patching

__all__ = [
    "AttributionPatching",
    "HeadAblation",
    "Metric",
    "PatchingResult",
    "ablation",
    "activation_patching",
    "attribution_patching",
    "head_ablation",
    "kl_to_clean",
    "logit_difference",
    "path_patching",
    "probability",
]
