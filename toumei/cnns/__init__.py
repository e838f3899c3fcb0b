"""Feature visualization: pictures of what the units of a vision network look for.

`objectives` say what a picture is optimized for, `parameterization` what it is made of, `robustness` how it
is moved about meanwhile; `Pipeline` puts them together and `Visualization` is what comes out.
"""

from . import objectives, parameterization, robustness
from .atlas import ActivationAtlas, activation_atlas
from .channel_groups import ChannelGroups, group_channels
from .circuits import ExpandedWeights, expanded_weights
from .dead_units import redirected_relu, relaxed_max_pool
from .example_images import DatasetExamples
from .examples import dataset_examples
from .optimize import Progress
from .pipeline import Pipeline
from .several_networks import Several
from .visualization import Visualization

__all__ = [
    "ActivationAtlas",
    "ChannelGroups",
    "DatasetExamples",
    "ExpandedWeights",
    "Pipeline",
    "Progress",
    "Several",
    "Visualization",
    "activation_atlas",
    "dataset_examples",
    "expanded_weights",
    "group_channels",
    "objectives",
    "parameterization",
    "redirected_relu",
    "relaxed_max_pool",
    "robustness",
]
