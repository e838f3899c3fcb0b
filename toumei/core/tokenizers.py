"""What a tokenizer makes of texts, or an error that says that it is none."""

from collections.abc import Mapping
from typing import Any

from .errors import ArgumentError
from .kinds import shown


def encoded_by(tokenizer: Any, *texts: Any, **options: Any) -> Any:
    """Returns what a tokenizer returns for texts.

    Args:
        tokenizer: A tokenizer of Hugging Face.
        *texts: What it is called with.
        **options: Its options.

    Raises:
        ArgumentError: It takes no texts, or returns no token ids.

    Example:
        >>> encoded_by(lambda text: {"input_ids": [len(text)]}, "abc")
        {'input_ids': [3]}
    """
    try:
        encoded = tokenizer(*texts, **options)
    except TypeError as error:
        raise ArgumentError(f"{shown(tokenizer)} is no tokenizer of Hugging Face: {error}") from error
    if not isinstance(encoded, Mapping) or "input_ids" not in encoded:
        raise ArgumentError(
            f"{shown(tokenizer)} is no tokenizer of Hugging Face: it returns {shown(encoded)}"
        )
    return encoded
