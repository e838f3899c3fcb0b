"""Any causal language model of Hugging Face: parts, tokens, weights, scores, passes through some blocks."""

from .families import FAMILIES, Anatomy, anatomy
from .scoring import AnswerScore, score_answers
from .tokens import ROLES, continuation, subject_range, token_roles, tokenize

__all__ = [
    "FAMILIES",
    "ROLES",
    "Anatomy",
    "AnswerScore",
    "anatomy",
    "continuation",
    "score_answers",
    "subject_range",
    "token_roles",
    "tokenize",
]
