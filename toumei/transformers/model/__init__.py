"""Any causal language model of Hugging Face: parts, tokens, weights, scores, passes through some blocks."""

from .activation_cache import ActivationCache
from .arrakis_names import HookedAutoConfig, HookedAutoModel
from .families import FAMILIES, Anatomy, anatomy
from .hooked_model import HookedModel
from .many_caches import cache_many
from .scoring import AnswerScore, score_answers
from .tokens import ROLES, continuation, subject_range, token_roles, tokenize

__all__ = [
    "FAMILIES",
    "ROLES",
    "ActivationCache",
    "Anatomy",
    "AnswerScore",
    "HookedAutoConfig",
    "HookedAutoModel",
    "HookedModel",
    "anatomy",
    "cache_many",
    "continuation",
    "score_answers",
    "subject_range",
    "token_roles",
    "tokenize",
]
