"""What is found in a graph of operations, and the patterns that describe it."""

from .activations import Activation, find_activations
from .attention import find_multi_head_attention
from .attention_instance import MultiHeadAttentionInstance
from .feed_forward import FeedForward, FindTransformerFFN, find_feed_forward
from .finding import find
from .linear_maps import LinearMap, find_linear
from .normalizations import Normalization, find_normalizations
from .patterns import Constant, Either, Match, Pattern, Skip, Step, Value, Weight, chain
from .residual_sums import ResidualSum, find_residual_sums

__all__ = [
    "Activation",
    "Constant",
    "Either",
    "FeedForward",
    "FindTransformerFFN",
    "LinearMap",
    "Match",
    "MultiHeadAttentionInstance",
    "Normalization",
    "Pattern",
    "ResidualSum",
    "Skip",
    "Step",
    "Value",
    "Weight",
    "chain",
    "find",
    "find_activations",
    "find_feed_forward",
    "find_linear",
    "find_multi_head_attention",
    "find_normalizations",
    "find_residual_sums",
]
