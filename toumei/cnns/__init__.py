"""Feature visualization: pictures of what the units of a vision network look for.

`objectives` say what a picture is optimized for, `parameterization` what it is made of, `robustness` how it
is moved about meanwhile; `Pipeline` puts them together and `Visualization` is what comes out. `JointModel`
networks are optimized for as one; `redirected_relu` and `relaxed_max_pool` wake dead units.

What starts from a photograph: `accentuate` and `invert` here, and in modules of their names
`caricature.caricature` and `deep_dream.deep_dream`. What looks at a whole layer: `activation_atlas`,
`group_channels` and `expanded_weights`. What to believe: `dataset_examples`, and `sanity.sanity`, which
returns a `SanityScore`.
"""

from . import objectives, parameterization, robustness
from .examples.result import DatasetExamples
from .examples.search import dataset_examples
from .from_image.accentuation import accentuate
from .from_image.inversion import invert
from .gradient_overrides import redirected_relu, relaxed_max_pool
from .joint_model import JointModel
from .layers.atlas import ActivationAtlas, activation_atlas
from .layers.channel_groups import ChannelGroups, group_channels
from .layers.weight_expansion import ExpandedWeights, expanded_weights
from .optimization import Progress
from .pipeline import Pipeline
from .sanity import SanityScore
from .visualization import Visualization

__all__ = [
    "ActivationAtlas",
    "ChannelGroups",
    "DatasetExamples",
    "ExpandedWeights",
    "JointModel",
    "Pipeline",
    "Progress",
    "SanityScore",
    "Visualization",
    "accentuate",
    "activation_atlas",
    "dataset_examples",
    "expanded_weights",
    "group_channels",
    "invert",
    "objectives",
    "parameterization",
    "redirected_relu",
    "relaxed_max_pool",
    "robustness",
]
