"""Edits of facts: ROME, R-ROME, MEMIT, EMMET and AlphaEdit."""

from .edit import Edit, revert_all
from .editor import RankOneEditor
from .lora import export_lora
from .requests import Request
from .settings import Settings, settings_for

__all__ = [
    "Edit",
    "RankOneEditor",
    "Request",
    "Settings",
    "export_lora",
    "revert_all",
    "settings_for",
]
