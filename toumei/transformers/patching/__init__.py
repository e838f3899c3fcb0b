"""Interventions on activations: ablation, activation patching, path patching, attribution patching."""

from .ablation_edits import ablation
from .ablation_table import HeadAblation
from .head_ablations import head_ablation

__all__ = ["HeadAblation", "ablation", "head_ablation"]
