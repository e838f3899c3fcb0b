"""toumei (透明, "transparent") shows what a trained PyTorch network has learned, and lets you change it.

`toumei.cnns` makes pictures of what units look for, from `Pipeline(parameterization, objective)` objects.
`toumei.transformers` looks inside transformers: activations, heads, circuits, features, and edits facts.
`toumei.attribution` says which parts of the input made a network decide so.
`toumei.misc` asks whole networks: do they fall into modules, and what style do they see.
`toumei.instrument` records the graph of every operation of a model, and finds attention in it.
`toumei.bench` keeps, compares and tests experiments.
`toumei.models` holds networks to look into, some of them trained and shipped with the package.
`toumei.core` is the floor under all of it: recording and editing of activations, names, units, seeds.
`toumei.plots` turns arrays into matplotlib axes. Subpackages are imported when they are first used.
"""

from importlib import import_module
from types import ModuleType

__version__ = "0.2.0"

_SUBPACKAGES = (
    "attribution",
    "bench",
    "cnns",
    "core",
    "instrument",
    "misc",
    "models",
    "plots",
    "transformers",
)
__all__ = ["__version__", *_SUBPACKAGES]


def __getattr__(name: str) -> ModuleType:
    if name in _SUBPACKAGES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module 'toumei' has no attribute {name!r}; it has {', '.join(_SUBPACKAGES)}")


def __dir__() -> list[str]:
    return sorted(__all__)
