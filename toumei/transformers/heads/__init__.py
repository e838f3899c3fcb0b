"""What attention heads do: their weights and circuits, scores of their attention, flow through all layers."""

from .circuit_tokens import SingularReadOut, TokenPair, singular_read_out, top_token_pairs
from .circuits import copying_scores, matching_scores, ov_circuit, qk_circuit
from .composition import composition_scores
from .composition_result import CompositionScores
from .directions import read_strengths, write_strengths
from .factored_matrix import SVD, FactoredMatrix
from .head_values import HeadValues
from .pages import attention_page
from .rollout import attention_flow, attention_rollout
from .score_table import SCORES, HeadScores
from .scores import head_scores, repeated_tokens
from .vocabulary_weights import embedding_weights, unembedding_weights
from .weights import HeadWeights, head_weights

__all__ = [
    "SCORES",
    "SVD",
    "CompositionScores",
    "FactoredMatrix",
    "HeadScores",
    "HeadValues",
    "HeadWeights",
    "SingularReadOut",
    "TokenPair",
    "attention_flow",
    "attention_page",
    "attention_rollout",
    "composition_scores",
    "copying_scores",
    "embedding_weights",
    "head_scores",
    "head_weights",
    "matching_scores",
    "ov_circuit",
    "qk_circuit",
    "read_strengths",
    "repeated_tokens",
    "singular_read_out",
    "top_token_pairs",
    "unembedding_weights",
    "write_strengths",
]
