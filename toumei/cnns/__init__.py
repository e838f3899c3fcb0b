"""Feature visualization: pictures of what the units of a vision network look for.

`objectives` say what a picture is optimized for, `parameterization` what it is made of, `robustness` how it
is moved about meanwhile; `Pipeline` puts them together and `Visualization` is what comes out. `Several`
networks are optimized for as one; `redirected_relu` and `relaxed_max_pool` wake dead units.

What starts from a photograph: `accentuate` and `invert` here, and in modules of their names
`caricature.caricature` and `deep_dream.deep_dream`. What looks at a whole layer: `activation_atlas`,
`group_channels` and `expanded_weights`. What to believe: `dataset_examples`, and `sanity.sanity`, which
returns a `SanityScore`.
"""

from . import objectives, parameterization, robustness
from .accentuation import accentuate
from .atlas import ActivationAtlas, activation_atlas
from .channel_groups import ChannelGroups, group_channels
from .circuits import ExpandedWeights, expanded_weights
from .dead_units import redirected_relu, relaxed_max_pool
from .example_images import DatasetExamples
from .examples import dataset_examples
from .inversion import invert
from .optimize import Progress
from .pipeline import Pipeline
from .sanity import SanityScore
from .several_networks import Several
from .visualization import Visualization

__all__ = [
    "ActivationAtlas",
    "ChannelGroups",
    "DatasetExamples",
    "ExpandedWeights",
    "Pipeline",
    "Progress",
    "SanityScore",
    "Several",
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
