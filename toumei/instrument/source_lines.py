"""The line of code that called a function of torch."""

import os
import sys
from pathlib import Path
from types import FrameType

import torch

# With the separator: torchvision is not torch.
_TORCH, _TOUMEI = (
    str(folder) + os.sep for folder in (Path(torch.__file__).parent, Path(__file__).parents[1])
)
_OVERRIDES = _TORCH + "overrides.py"  # in which functions tell what listens to them


def source_line(outside: FrameType | None, depth: int) -> str:
    """Returns file and line of the innermost call outside torch and toumei, else the innermost one in torch.

    Args:
        outside: The frame at which the search ends.
        depth: How many frames of the caller to leave out.
    """
    frame: FrameType | None = sys._getframe(depth + 1)
    inside = ""
    while frame is not None and frame is not outside:
        file = frame.f_code.co_filename
        if file.startswith(_TORCH):
            inside = inside or ("" if file == _OVERRIDES else f"{file}:{frame.f_lineno}")
        elif not file.startswith(_TOUMEI) or "/models/" in file:
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return inside
