"""The images of a dataset that excite units most."""

from .result import DatasetExamples
from .search import dataset_examples

__all__ = [
    "DatasetExamples",
    "dataset_examples",
]
