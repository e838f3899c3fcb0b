"""The bench under the names that Arrakis gave it."""

from pathlib import Path
from typing import Any

from .experiment_bench import Bench
from .tools import Tool


class BaseInterpretabilityBench(Bench):
    """A `Bench` whose model comes first, as in Arrakis.

    Args:
        model: A `HookedModel` or a module.
        save_dir: The folder.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from torch import nn
        >>> with TemporaryDirectory() as folder:
        ...     bench = BaseInterpretabilityBench(nn.Linear(2, 2), folder)
        >>> bench.model
        Linear(in_features=2, out_features=2, bias=True)
    """

    def __init__(self, model: Any, save_dir: str | Path = "experiments") -> None:
        super().__init__(save_dir, model)


BaseInterpretabilityTool = Tool
