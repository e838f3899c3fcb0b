"""The valid calls of every room."""

from .of_areas import areas_of_texts
from .of_attribution import methods, metrics
from .of_bench import bench
from .of_circuits import edges_of_transformers
from .of_edits import edits_and_traces
from .of_features import features
from .of_heads import weights
from .of_instrument import instrument
from .of_lenses import lenses
from .of_networks import networks, whole_networks
from .of_node_circuits import node_circuits
from .of_patching import patched
from .of_pipelines import objectives, parameterizations, views
from .of_plots import drawn
from .of_results import methods_of_results
from .of_surgery import changed_and_known
from .of_tools import arrakis
from .of_transformers import language
from .of_visualization import visualization
from .of_workbench import workbench

ROOMS = (methods, metrics, visualization, objectives, parameterizations, views, whole_networks)
ROOMS = (*ROOMS, drawn, networks, language, instrument, workbench)
ROOMS = (*ROOMS, weights, lenses, patched, arrakis)
ROOMS = (*ROOMS, areas_of_texts, changed_and_known, node_circuits, edges_of_transformers, features, bench)
ROOMS = (*ROOMS, methods_of_results, edits_and_traces)
