"""Hashes of what experiments are given and read: values and models."""

import hashlib
import json
import sys
from importlib import import_module
from typing import Any

from torch import nn

from ..core.content import content_and_code
from ..core.fingerprint import fingerprint_of
from ..core.reached_code import Part, Reading


def class_name(kind: type) -> str:
    """Returns where a class is found: its module and its name."""
    return f"{kind.__module__}:{kind.__qualname__}"


def named_class(name: str) -> Any:
    """Returns a class that is named by `class_name`, of this package or of a module that is imported.

    No other module is imported for it: a folder of somebody else should run no code.
    """
    module, _, path = name.partition(":")
    if module.split(".")[0] == __name__.split(".")[0]:
        found: Any = import_module(module)
    else:
        found = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def plain_model(value: Any) -> nn.Module | None:
    """Returns the module that is given, or that something such as a `HookedModel` holds as its model."""
    if isinstance(value, nn.Module):
        return value
    try:
        inner = getattr(value, "model", None)
    except Exception:  # a property of a class of the user
        return None
    return inner if isinstance(inner, nn.Module) else None


def model_parts(model: Any) -> dict[str, Any]:
    """Returns what tells a model from others: its class, structure, mode and weights; nothing without one."""
    plain = plain_model(model)
    if plain is None:
        return {}
    structure = hashlib.sha256(repr(plain).encode()).hexdigest()[:16]
    return {
        "class": class_name(type(plain)),
        "structure": structure,
        "training": plain.training,
        "weights": fingerprint_of(plain),
    }


def model_code(model: Any) -> list[Part]:
    """Returns the classes that a model consists of; none without one."""
    plain = plain_model(model)
    return [] if plain is None else list(dict.fromkeys([type(model), *map(type, plain.modules())]))


def read_value(value: Any) -> Reading:
    """Returns a hash of the content of a value, and the functions and classes that it holds.

    The hash is None if the content cannot be read, as of an open file.
    """
    if plain_model(value) is not None:
        digest = hashlib.sha256(json.dumps(model_parts(value)).encode()).hexdigest()
        return digest[:32], model_code(value)
    try:
        digest, code = content_and_code(value)
    except Exception:  # of a class of the user, or because it is an open file
        return None, [type(value)]
    return digest[:32], code


def value_hash(value: Any) -> str | None:
    """Returns a hash of the content of a value; None if that cannot be read."""
    return read_value(value)[0]
