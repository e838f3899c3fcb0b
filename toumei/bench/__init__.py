"""The bench: every run of every experiment is kept, told apart by version, and compared."""

from .arrakis_names import BaseInterpretabilityBench, BaseInterpretabilityTool
from .comparison import Rerun, VersionDifference
from .experiment_bench import Bench
from .families import HypothesisFamily, adjusted, compare_family
from .hypotheses import HypothesisTest, compare_samples
from .loaded_values import NotKept
from .plot_specs import PlotSpec
from .plotting_libraries import MatplotlibWrapper, PlotlyWrapper
from .profile_result import Profile
from .profiling import profile_call
from .run_table import RunTable
from .runs import Run
from .tools import Tool

__all__ = [
    "BaseInterpretabilityBench",
    "BaseInterpretabilityTool",
    "Bench",
    "HypothesisFamily",
    "HypothesisTest",
    "MatplotlibWrapper",
    "NotKept",
    "PlotSpec",
    "PlotlyWrapper",
    "Profile",
    "Rerun",
    "Run",
    "RunTable",
    "Tool",
    "VersionDifference",
    "adjusted",
    "compare_family",
    "compare_samples",
    "profile_call",
]
