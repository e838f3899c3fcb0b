"""Lenses: what a model predicts from the output of each layer, and what adds to its logits."""

from .attribution import direct_logit_attribution, linear_contributions
from .attribution_result import LogitAttribution
from .evaluation import LensEvaluation
from .logit import LogitLens, logit_lens
from .table import LensTable
from .training import LensRecipe
from .tuned import TunedLens

__all__ = [
    "LensEvaluation",
    "LensRecipe",
    "LensTable",
    "LogitAttribution",
    "LogitLens",
    "TunedLens",
    "direct_logit_attribution",
    "linear_contributions",
    "logit_lens",
]
