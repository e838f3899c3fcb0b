"""The version of an experiment: a hash of its source, its arguments, the model and its tools."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from ..core.reached_code import Held
from .hashes import class_name, read_value
from .sources import Code


@dataclass(frozen=True)
class Ingredients:
    """What the version of an experiment is the hash of.

    Attributes:
        code: Its source, with what it calls and reads.
        arguments: A hash of each argument.
        model: The class of the model, its mode, and hashes of its structure and weights; empty without one.
        tools: The class and a hash of the settings of each tool.
    """

    code: Code
    arguments: dict[str, str]
    model: dict[str, Any]
    tools: dict[str, dict[str, str]]

    @property
    def version(self) -> str:
        """The hash, 12 digits."""
        text = json.dumps([asdict(self.code), self.arguments, self.model, self.tools], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def argument_hash(value: Any) -> str:
    """Returns a hash of the content of an argument; of one that cannot be read its class."""
    return argument_parts(value)[0]


def argument_parts(value: Any) -> tuple[str, list[Held]]:
    """Returns a hash as `argument_hash` does, and the functions and classes that the argument holds."""
    digest, code = read_value(value)
    return digest or class_name(type(value)), list(code)


def tool_parts(tool: Any) -> dict[str, str]:
    """Returns the class of a tool and hashes of its settings, which are its attributes beside the model."""
    settings = {name: argument_hash(value) for name, value in vars(tool).items() if name != "model"}
    return {"class": class_name(type(tool)), **settings}
