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
from .cams import GradCam, GradCamPlusPlus, GuidedGradCam, LayerCam
from .comparison import Comparison, compare
from .conductance import LayerConductance
from .deep_lift import DeepLift, DeepLiftShap
from .expected_gradients import ExpectedGradients
from .faithfulness import Curve, Removals, deletion, faithfulness_correlation, infidelity, insertion, removals
from .gradients import InputXGradient, Saliency
from .guided import GuidedBackprop
from .integrated_gradients import IntegratedGradients
from .kernel_shap import KernelShap
from .lime import Lime
from .localization import balance_inside, by_chance, mass_inside, pointing_game
from .method import Method
from .occlusion import Occlusion
from .partition_shap import PartitionShap
from .relevance import LRP
from .result import Attribution
from .rise import Rise
from .sampling_shap import ShapleySampling
from .sanity import Randomization, max_sensitivity, randomization
from .shapley import ExactShapley
from .smooth_grad import SmoothGrad, VarGrad
from .superpixels import grid, superpixels
from .text import LogProbability, token_attribution

__all__ = [
    "LRP",
    "AtLayer",
    "Attribution",
    "Baseline",
    "Blur",
    "Comparison",
    "Constant",
    "Curve",
    "DeepLift",
    "DeepLiftShap",
    "ExactShapley",
    "ExpectedGradients",
    "FromData",
    "Gaussian",
    "GradCam",
    "GradCamPlusPlus",
    "GuidedBackprop",
    "GuidedGradCam",
    "Inpaint",
    "InputXGradient",
    "IntegratedGradients",
    "KernelShap",
    "LayerCam",
    "LayerConductance",
    "Lime",
    "LogProbability",
    "MaxDistance",
    "Mean",
    "Method",
    "Occlusion",
    "PartitionShap",
    "Randomization",
    "Removals",
    "Rise",
    "Saliency",
    "ShapleySampling",
    "SmoothGrad",
    "Uniform",
    "VarGrad",
    "balance_inside",
    "by_chance",
    "compare",
    "deletion",
    "faithfulness_correlation",
    "grid",
    "infidelity",
    "insertion",
    "mass_inside",
    "max_sensitivity",
    "pointing_game",
    "randomization",
    "removals",
    "superpixels",
    "token_attribution",
]
