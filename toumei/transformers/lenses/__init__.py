"""Lenses: what a model predicts from the output of each layer."""

from .logit import LogitLens, logit_lens

__all__ = [
    "LogitLens",
    "logit_lens",
]
