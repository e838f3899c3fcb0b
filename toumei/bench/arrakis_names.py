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
    """

    def __init__(self, model: Any, save_dir: str | Path = "experiments") -> None:
        super().__init__(save_dir, model)


BaseInterpretabilityTool = Tool
