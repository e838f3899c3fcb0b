"""What attention heads do: scores of their weights, and the flow of attention through all layers."""

from .rollout import attention_flow, attention_rollout
from .score_table import SCORES, HeadScores
from .scores import head_scores, repeated_tokens

__all__ = ["SCORES", "HeadScores", "attention_flow", "attention_rollout", "head_scores", "repeated_tokens"]
