"""The bench: every run of every experiment is kept, told apart by version, and compared."""

from .comparison import Rerun, VersionDifference
from .experiment_bench import Bench
from .families import HypothesisFamily, adjusted, compare_family
from .hypotheses import HypothesisTest, compare_samples
from .loaded_values import NotKept
from .run_table import RunTable
from .runs import Run
from .tools import Tool

__all__ = [
    "Bench",
    "HypothesisFamily",
    "HypothesisTest",
    "NotKept",
    "Rerun",
    "Run",
    "RunTable",
    "Tool",
    "VersionDifference",
    "adjusted",
    "compare_family",
    "compare_samples",
]
