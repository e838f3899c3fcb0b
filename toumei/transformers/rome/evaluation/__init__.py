"""How well edits do: efficacy, paraphrases, neighbourhoods, fluency."""

from .cases import Case, counterfact_cases, world_cases
from .generation import entropy, generate, reference_score
from .metrics import Evaluation, evaluate, evaluate_edits, known_only

__all__ = [
    "Case",
    "Evaluation",
    "counterfact_cases",
    "entropy",
    "evaluate",
    "evaluate_edits",
    "generate",
    "known_only",
    "reference_score",
    "world_cases",
]
