"""Whether a space stands between two texts, by the characters on both sides."""

import re
import unicodedata

# How the names of characters begin whose scripts are written without spaces between words.
_UNSPACED = (
    "CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "FULLWIDTH", "IDEOGRAPHIC", "BOPOMOFO",
    "YI SYLLABLE", "TANGUT", "NUSHU", "THAI", "LAO", "KHMER", "MYANMAR", "TAI LE", "NEW TAI LUE", "TAI THAM",
    "TAI VIET", "AHOM", "TIBETAN", "JAVANESE", "BALINESE",
)  # fmt: skip
_APOSTROPHES = "'\u2019"
_ENDINGS = re.compile(rf"[{_APOSTROPHES}](s|t|re|ve|ll|d|m)\b", re.IGNORECASE)  # of English words


def space_between(before: str, after: str) -> str:
    """Returns the space that stands between two texts that follow each other, or nothing.

    There is none where one of them has it already, inside of brackets and quotes, before a full stop and its
    like, after signs that join, such as a hyphen or a slash, and next to scripts without spaces.

    Args:
        before: The first text.
        after: The text that follows.

    Example:
        >>> space_between("The tower is in", "Paris"), space_between("The tower (", "Paris")
        (' ', '')
        >>> space_between("首都は", "東京"), space_between("수도는", "부산")
        ('', ' ')
    """
    if not before or not after or before[-1].isspace() or after[0].isspace():
        return ""
    last, first = _last(before), after[0]
    if _unspaced(last) or _unspaced(first) or _opens(before, last) or _closes(after, first):
        return ""
    return " "


def _last(text: str) -> str:
    """The last character, without marks that change it."""
    plain = (one for one in reversed(text) if unicodedata.category(one) not in ("Mn", "Me", "Cf"))
    return next(plain, text[-1])


def _opens(before: str, last: str) -> bool:
    """Whether what follows belongs to the last character: a bracket, an opening quote, a sign that joins."""
    previous = before[: before.rindex(last)]
    alone = not previous or previous[-1].isspace() or unicodedata.category(previous[-1]) in ("Ps", "Pi")
    if last in "\"'`":
        return alone
    if unicodedata.category(last) == "Pd":  # hyphens and dashes
        return not alone
    return unicodedata.category(last) in ("Ps", "Pi", "Sc") or last in "/\\@#_~¿¡"


def _closes(after: str, first: str) -> bool:
    """Whether the first character belongs to what is before it: a full stop, a closing bracket or quote."""
    if first in _APOSTROPHES:
        return bool(_ENDINGS.match(after)) or len(after) == 1
    if unicodedata.category(first) == "Pd":
        return len(after) > 1 and after[1].isalpha()
    if first in '"`':
        return len(after) == 1 or not (after[1].isalnum() or after[1] in "([{¿¡")
    return unicodedata.category(first) in ("Pe", "Pf") or first in ".,;:!?%…‰°/\\"


def _unspaced(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_UNSPACED)
