"""Scores of edits: efficacy, paraphrases, neighbourhoods, other facts, fluency."""

from .cases import EditCase, counterfact_cases, world_cases
from .generation import entropy, fitted_vectorizer, generate, reference_score
from .metrics import METRICS, Evaluation, evaluate, evaluate_edits, known_only

__all__ = [
    "METRICS",
    "EditCase",
    "Evaluation",
    "counterfact_cases",
    "entropy",
    "evaluate",
    "evaluate_edits",
    "fitted_vectorizer",
    "generate",
    "known_only",
    "reference_score",
    "world_cases",
]
