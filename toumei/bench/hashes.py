"""Hashes of what experiments are given and read: values and models."""

import hashlib
import json
import sys
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from types import FunctionType, MethodType
from typing import Any

from torch import nn

from ..core.content import value_and_code
from ..core.fingerprint import bits_of, fingerprint_of
from ..core.reached_code import Held, Reading, is_of_the_user

_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})
_OF_EACH_MODULE = frozenset(vars(nn.Module()))
_OF_FILES = {"name_or_path", "_name_or_path", "_is_hf_initialized", "_commit_hash", "transformers_version"}
_NO_SETTINGS = _OF_EACH_MODULE | _OF_FILES | {"architectures"}
_HOOKS = [name for name in sorted(_OF_EACH_MODULE) if name.endswith("_hooks")]


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


def model_parts(model: Any, settings: Mapping[str, str]) -> dict[str, Any]:
    """Returns what tells a model from others: its class, structure, mode, weights and settings.

    It is empty without a model.

    Args:
        model: The model.
        settings: Those of its settings that count.
    """
    plain = plain_model(model)
    if plain is None:
        return {}
    return {
        "class": class_name(type(plain)),
        "structure": hashlib.sha256(repr(plain).encode()).hexdigest()[:16],
        "training": _modes(plain),
        "weights": fingerprint_of(plain),
        "settings": settings_hash(settings),
    }


def settings_hash(settings: Mapping[str, str]) -> str:
    """Returns a hash of the settings of a model."""
    counted = sorted(settings.items())
    return hashlib.sha256(json.dumps(counted).encode()).hexdigest()[:16]


def model_settings(model: Any) -> tuple[dict[str, str], list[Held]]:
    """Returns what a model does beside its structure, mode and weights, by name, and the code that it runs.

    The first are attributes of its modules and of their ``config`` that are plain values, functions and hooks
    of the user on the modules, buffers that no state dict has, and parameters without gradients. The second
    are classes and these functions. Both are empty without a model.

    Example:
        >>> model_settings(nn.Dropout(0.1))[0]
        {'p': '0.1', 'inplace': 'False'}
    """
    plain = plain_model(model)
    if plain is None:
        return {}, []
    settings: dict[str, str] = {}
    code: list[Held] = [type(model)]
    configs: set[int] = set()  # many modules hold the same one
    for name, module in plain.named_modules():
        found: dict[str, str] = {}
        code.append(type(module))
        for key, value in _attributes(module):
            if _is_plain(value):
                found[key] = repr(value)
            elif id(value) not in configs and _is_config(value):
                configs.add(id(value))
                inside = {one: repr(part) for one, part in vars(value).items() if _is_plain(part)}
                found |= {f"{key}.{one}": text for one, text in inside.items() if one not in _NO_SETTINGS}
            elif _is_function_of_the_user(value):
                digest, parts = read_value(value)
                found[key] = digest or class_name(type(value))
                code += parts
        for key in module._non_persistent_buffers_set:
            buffer = module._buffers.get(key)
            if buffer is not None and not buffer.is_meta:
                found[key] = bits_of(buffer)
        for key, parameter in module._parameters.items():
            if parameter is not None and not parameter.requires_grad:
                found[key] = "no gradient"
        settings |= {f"{name}.{key}".lstrip("."): text for key, text in found.items()}
    return settings, list(dict.fromkeys(code))


def _attributes(module: nn.Module) -> list[tuple[str, Any]]:
    """The attributes of a module that not each module has, and its hooks."""
    space = vars(module)
    found = [(key, value) for key, value in space.items() if key not in _NO_SETTINGS]
    for key in _HOOKS:
        if space[key]:
            found += [(f"{key} {place}", hook) for place, hook in enumerate(space[key].values())]
    return found


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, a text or such, or a sequence of them."""
    kind = type(value)
    return kind in _PLAIN or (kind in (list, tuple) and all(type(one) in _PLAIN for one in value))


def _is_config(value: Any) -> bool:
    """Whether a value is a configuration, as models of transformers have them."""
    return hasattr(type(value), "to_dict") and hasattr(value, "__dict__")


def _is_function_of_the_user(value: Any) -> bool:
    """Whether a value is a function, a method, a class or something that is called, and of the user."""
    if isinstance(value, nn.Module) or not callable(value):
        return False
    while isinstance(value, MethodType | partial):
        value = value.__func__ if isinstance(value, MethodType) else value.func
    return is_of_the_user(value if isinstance(value, FunctionType | type) else type(value))


def _modes(model: nn.Module) -> bool | str:
    """Whether a model is in training mode, and which of its modules are not as it is."""
    others = [name for name, module in model.named_modules() if module.training != model.training]
    return f"{model.training}, but not {', '.join(others)}" if others else model.training


def read_value(value: Any) -> Reading:
    """Returns a hash of the content of a value, and the functions and classes that it holds.

    The hash is None if a part of the content cannot be read, as an open file.
    """
    if plain_model(value) is not None:
        settings, code = model_settings(value)
        digest = hashlib.sha256(json.dumps(model_parts(value, settings)).encode()).hexdigest()
        return digest[:32], code
    found, held = value_and_code(value)
    return None if found is None else found[:32], held


def value_hash(value: Any) -> str | None:
    """Returns a hash of the content of a value; None if that cannot be read."""
    return read_value(value)[0]
