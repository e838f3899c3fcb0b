"""Edits of facts: ROME, R-ROME, MEMIT, EMMET and AlphaEdit."""

from .edit import Edit, revert_all
from .editor import RankOneEditor
from .effect import EditEffect
from .lora import export_lora
from .methods import EDITING_METHODS
from .requests import EditRequest
from .settings import EditSettings, settings_for

__all__ = [
    "EDITING_METHODS",
    "Edit",
    "EditEffect",
    "EditRequest",
    "EditSettings",
    "RankOneEditor",
    "export_lora",
    "revert_all",
    "settings_for",
]
