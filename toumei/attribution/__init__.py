"""Which parts of the input made the network decide so: gradients, DeepLift, Shapley values and LIME.

Settings belong to the constructor and data to the call: ``KernelShap(model, samples=200)(inputs, target,
baselines)``. Every method returns an `Attribution`.
"""

from .base.baselines import AtLayer, Baseline, Constant, MaxDistance, Mean
from .base.method import Method
from .base.picture_baselines import Blur, Inpaint
from .base.random_baselines import FromData, Gaussian, Uniform
from .base.result import Attribution
from .explaining import explain
from .explanation import Explanation
from .gradient.cams import GradCam, GradCamPlusPlus, GuidedGradCam, LayerCam
from .gradient.conductance import LayerConductance
from .gradient.expected_gradients import ExpectedGradients
from .gradient.gradients import InputXGradient, Saliency
from .gradient.guided import GuidedBackprop
from .gradient.integrated_gradients import IntegratedGradients
from .gradient.smooth_grad import SmoothGrad, VarGrad
from .many_inputs import attribute_many
from .metrics.comparison import Comparison, compare
from .metrics.insertion_curves import Curve, deletion, insertion
from .metrics.localization import balance_inside, chance_level, pointing_game, relevance_mass_accuracy
from .metrics.removed_sets import Removals, faithfulness_correlation, infidelity, removals
from .metrics.sanity_checks import Randomization, max_sensitivity, randomization
from .overlays import overlay
from .perturbation.image_segments import grid, superpixels
from .perturbation.kernel_shap import KernelShap
from .perturbation.lime import Lime
from .perturbation.occlusion import Occlusion
from .perturbation.partition_shap import PartitionShap
from .perturbation.rise import Rise
from .perturbation.sampling_shap import ShapleySampling
from .perturbation.shapley import ExactShapley
from .propagation.deep_lift import DeepLift, DeepLiftShap
from .propagation.lrp import LRP
from .text import AnswerSpan, LogProbability, generation_attribution, token_attribution

__all__ = [
    "LRP",
    "AnswerSpan",
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
    "Explanation",
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
    "attribute_many",
    "balance_inside",
    "chance_level",
    "compare",
    "deletion",
    "explain",
    "faithfulness_correlation",
    "generation_attribution",
    "grid",
    "infidelity",
    "insertion",
    "max_sensitivity",
    "overlay",
    "pointing_game",
    "randomization",
    "relevance_mass_accuracy",
    "removals",
    "superpixels",
    "token_attribution",
]
