"""The ground floor: recording and editing of activations, names, units, seeds, sweeps and errors."""

from .hooks import Activations, hooked, run
from .modules import evaluating, find_module, find_modules, frozen
from .outputs import main_tensor, with_main_tensor
from .parallel import sweep
from .seeding import make_generator, seeded
from .units import Unit, channels_first, parse

__all__ = [
    "Activations",
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
    "run",
    "seeded",
    "sweep",
    "with_main_tensor",
]
