"""The contributions of the tokens of a text to what a model of Hugging Face says."""

from .attribution import token_attribution
from .generation import generation_attribution
from .scores import AnswerSpan, LogProbability

__all__ = ["AnswerSpan", "LogProbability", "generation_attribution", "token_attribution"]
