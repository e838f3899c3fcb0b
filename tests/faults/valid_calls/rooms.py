"""The valid calls of every room."""

from .of_attribution import methods, metrics
from .of_bench import bench
from .of_heads import weights
from .of_instrument import instrument
from .of_lenses import lenses
from .of_networks import networks, whole_networks
from .of_patching import patched
from .of_pipelines import objectives, parameterizations, views
from .of_plots import drawn
from .of_tools import arrakis
from .of_transformers import language
from .of_visualization import visualization
from .of_workbench import workbench

ROOMS = (methods, metrics, visualization, objectives, parameterizations, views, whole_networks)
ROOMS = (*ROOMS, drawn, networks, language, instrument, workbench)
ROOMS = (*ROOMS, weights, lenses, patched, arrakis, bench)
