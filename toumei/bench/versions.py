"""The version of an experiment: a hash of its source, its arguments, the model and its tools."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from .hashes import class_name, value_hash
from .sources import Code, is_of_the_user, source_of


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
    return value_hash(value) or class_name(type(value))


def tool_parts(tool: Any) -> dict[str, str]:
    """Returns the class of a tool and hashes of its settings, which are its attributes beside the model."""
    kind = type(tool)
    settings = {name: argument_hash(value) for name, value in vars(tool).items() if name != "model"}
    source = source_of(kind) if is_of_the_user(kind) else ""
    return {"class": class_name(kind), **settings, **({"source": argument_hash(source)} if source else {})}
