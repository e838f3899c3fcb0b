"""Short forms of long texts and lists, for the `repr` of results, which is a line."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

LINE = 200  # characters of a `repr`
_ITEM = 27  # characters of an item in a list


def shortened(text: str, most: int = 60) -> str:
    """Returns a text of at most so many characters, with an ellipsis for its middle.

    Example:
        >>> shortened("The Eiffel Tower is in the city of", 20)
        'The Eiff... city of'
    """
    if len(text) <= most:
        return text
    half = (most - 3) // 2
    return f"{text[:half]}...{text[-half:]}"


def listed(items: Iterable[object], most: int = 4) -> str:
    """Returns the first items of a list as text, and how many more there are.

    Example:
        >>> listed(range(9), 3), listed("ab")
        ('0, 1, 2 and 6 more', 'a, b')
    """
    texts = [shortened(str(item), _ITEM) for item in items]
    shown = ", ".join(texts[:most])
    return shown if len(texts) <= most else f"{shown} and {len(texts) - most} more"


def counted(number: float, one: str, many: str | None = None, *, form: str = "") -> str:
    """Returns a number with its noun, which is the plural unless the number stands there as 1.

    Args:
        number: How many there are.
        one: The noun for one of them, words before it included.
        many: The plural, where it is not `one` with "s", "es" (after s, x, z, ch, sh) or "ies" (for y).
        form: The format of the number, such as ``","`` for thousands.

    Example:
        >>> counted(1, "input"), counted(3, "pass"), counted(2000, "query", form=",")
        ('1 input', '3 passes', '2,000 queries')
        >>> counted(0, "vertex", "vertices")
        '0 vertices'
    """
    text = format(number, form)
    if text == "1":
        return f"{text} {one}"
    return f"{text} {many or _plural(one)}"


def _plural(one: str) -> str:
    """The regular plural of a noun."""
    if re.search("[^aeiou]y$", one):
        return f"{one[:-1]}ies"
    return f"{one}es" if re.search("(s|x|z|ch|sh)$", one) else f"{one}s"


def line_of(result: Any) -> str:
    """Returns what a dataclass or a named tuple holds as a line; is its ``__repr__``.

    All fields stand in it where that is short, else those that differ from their defaults, in short forms.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Settings:
        ...     names: tuple[str, ...]
        ...     steps: int = 3
        ...
        ...     __repr__ = line_of
        >>> Settings(("a",)), Settings(tuple("abcdefgh" * 10))
        (Settings(names=('a',), steps=3), Settings(names=(a, b, c, d and 76 more)))
    """
    if is_dataclass(result):
        values = {one.name: (getattr(result, one.name), one.default) for one in fields(result) if one.repr}
    else:
        defaults = result._field_defaults
        values = {name: (getattr(result, name), defaults.get(name)) for name in result._fields}
    long = any(isinstance(value, Tensor) for value, _ in values.values())
    text = "" if long else ", ".join(f"{name}={value!r}" for name, (value, _) in values.items())
    name = type(result).__qualname__
    if not text or "\n" in text or len(name) + len(text) + 2 > LINE:
        differing = {key: value for key, (value, default) in values.items() if value is not default}
        text = ", ".join(f"{key}={_item(value)}" for key, value in differing.items())
    return shortened(f"{name}({text})", LINE)


def _item(value: Any) -> str:
    """A short form of the value of a field."""
    if isinstance(value, Tensor):
        return f"tensor{tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"{{{listed((f'{key}: {one}' for key, one in value.items()), 2)}}}"
    if isinstance(value, tuple | list):
        return f"({listed(value)})"
    return repr(shortened(value, 40)) if isinstance(value, str) else shortened(repr(value), 40)
