"""The ground floor: names, recording and editing of activations, layouts, seeds, sweeps and errors."""

from .activations import Activations
from .failed_items import FailedItem
from .hooks import hooked, run, seeded_passes
from .layout import channels_first, with_channels_first
from .modules import evaluating, find_module, find_modules, frozen
from .names import Layer, Unit, parse, parse_layer
from .outputs import main_tensor, with_main_tensor
from .parallel import sweep
from .seeding import make_generator, seeded
from .surveys import Survey, survey
from .targets import CallEdit

__all__ = [
    "Activations",
    "CallEdit",
    "FailedItem",
    "Layer",
    "Survey",
    "Unit",
    "channels_first",
    "evaluating",
    "find_module",
    "find_modules",
    "frozen",
    "hooked",
    "main_tensor",
    "make_generator",
    "parse",
    "parse_layer",
    "run",
    "seeded",
    "seeded_passes",
    "survey",
    "sweep",
    "with_channels_first",
    "with_main_tensor",
]
