"""Hashes of what experiments are given and read: values and models."""

import hashlib
import json
from typing import Any

from torch import nn

from ..core.content import content_hash
from ..core.fingerprint import fingerprint_of


def class_name(kind: type) -> str:
    """Returns where a class is found: its module and its name."""
    return f"{kind.__module__}:{kind.__qualname__}"


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


def value_hash(value: Any) -> str | None:
    """Returns a hash of the content of a value; None if that cannot be read, as of an open file."""
    if plain_model(value) is not None:
        return hashlib.sha256(json.dumps(model_parts(value)).encode()).hexdigest()[:32]
    try:
        return content_hash(value)[:32]
    except Exception:  # of a class of the user, or because it is an open file
        return None
