"""Feature visualization: pictures of what the units of a vision network look for.

`objectives` say what a picture is optimized for, `parameterization` what it is made of, `robustness` how it
is transformed. `Pipeline` puts them together and returns a `Visualization`. `JointModel` joins several
networks, `redirected_relu` and `relaxed_max_pool` let gradients through units that are inactive.

`accentuate`, `caricature`, `deep_dream` and `invert` start from a photograph. `activation_atlas`,
`group_channels` and `expanded_weights` look at a whole layer. `dataset_examples` finds the images that excite
a unit, and `sanity_check` says how far a picture can be believed. `unit_pictures` makes pictures of all units
of a layer.
"""

from . import objectives, parameterization, robustness
from .all_units import unit_pictures
from .examples import DatasetExamples, dataset_examples
from .from_image import accentuate, caricature, deep_dream, invert
from .gradient_overrides import redirected_relu, relaxed_max_pool
from .joint_model import JointModel
from .layers import (
    ActivationAtlas,
    ChannelGroups,
    ExpandedWeights,
    activation_atlas,
    expanded_weights,
    factorize,
    group_channels,
    render_icons,
    sample_activations,
)
from .objectives import Objective, gram, reference_activations
from .optimization import Progress
from .parameterization import Generator
from .pipeline import Pipeline
from .sanity import SanityScore, sanity_check
from .visualization import Visualization

__all__ = [
    "ActivationAtlas",
    "ChannelGroups",
    "DatasetExamples",
    "ExpandedWeights",
    "Generator",
    "JointModel",
    "Objective",
    "Pipeline",
    "Progress",
    "SanityScore",
    "Visualization",
    "accentuate",
    "activation_atlas",
    "caricature",
    "dataset_examples",
    "deep_dream",
    "expanded_weights",
    "factorize",
    "gram",
    "group_channels",
    "invert",
    "objectives",
    "parameterization",
    "redirected_relu",
    "reference_activations",
    "relaxed_max_pool",
    "render_icons",
    "robustness",
    "sample_activations",
    "sanity_check",
    "unit_pictures",
]
