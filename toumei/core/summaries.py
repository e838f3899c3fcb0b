"""Short forms of long texts and lists, for the `repr` of results, which is a line."""

from collections.abc import Iterable

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
