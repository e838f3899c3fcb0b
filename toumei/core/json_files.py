"""JSON that may be damaged: one kind of error, also where it is nested without end."""

import json
from typing import Any


def from_json(text: str | bytes) -> Any:
    """Returns what a JSON text says.

    Args:
        text: The text.

    Raises:
        ValueError: It is no JSON, or nested too deeply.

    Example:
        >>> from_json('{"a": [1, 2]}')
        {'a': [1, 2]}
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"it is nested too deeply: {error}") from error
