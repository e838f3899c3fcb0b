"""Which parts of the input made the network decide so: gradients, DeepLift, Shapley values and LIME.

Every method is called alike, ``Method(model)(inputs, target, baselines)``, and returns an `Attribution`.
"""

from .baselines import (
    AtLayer,
    Baseline,
    Blur,
    Constant,
    FromData,
    Gaussian,
    Inpaint,
    MaxDistance,
    Mean,
    Uniform,
)
from .deep_lift import DeepLift, DeepLiftShap
from .expected_gradients import ExpectedGradients
from .gradients import InputXGradient, Saliency
from .integrated_gradients import IntegratedGradients
from .method import Method
from .result import Attribution

__all__ = [
    "AtLayer",
    "Attribution",
    "Baseline",
    "Blur",
    "Constant",
    "DeepLift",
    "DeepLiftShap",
    "ExpectedGradients",
    "FromData",
    "Gaussian",
    "InputXGradient",
    "Inpaint",
    "IntegratedGradients",
    "MaxDistance",
    "Mean",
    "Method",
    "Saliency",
    "Uniform",
]
