"""Feature visualization: pictures of what the units of a vision network look for.

`objectives` say what a picture is optimized for, `parameterization` what it is made of, `robustness` how it
is moved about meanwhile; `Pipeline` puts them together and `Visualization` is what comes out.
"""

from . import objectives, parameterization, robustness
from .dead_units import redirected_relu, relaxed_max_pool
from .optimize import Progress
from .pipeline import Pipeline
from .several_networks import Several
from .visualization import Visualization

__all__ = [
    "Pipeline",
    "Progress",
    "Several",
    "Visualization",
    "objectives",
    "parameterization",
    "redirected_relu",
    "relaxed_max_pool",
    "robustness",
]
