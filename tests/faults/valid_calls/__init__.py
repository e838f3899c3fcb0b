"""A valid call of every public entry, on tiny models: what `test_bad_inputs` spoils."""

from .rooms import ROOMS
from .small_models import MODELS, world

__all__ = ["MODELS", "ROOMS", "world"]
