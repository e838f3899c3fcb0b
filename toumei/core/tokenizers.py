"""What a tokenizer makes of texts, or an error that says that it is none; how long texts may be."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

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


def without_second_start(tokenizer: Any, ids: Sequence[int], special: Sequence[int]) -> int:
    """Returns how many tokens in front the tokenizer added to a text that begins with the same tokens.

    Args:
        tokenizer: The tokenizer.
        ids: The tokens.
        special: Which of them were added.
    """
    added = next((index for index, is_special in enumerate(special) if not is_special), 0)
    again = ids[added : 2 * added]
    return added if list(again) == list(ids[:added]) and set(again) <= set(tokenizer.all_special_ids) else 0


def positions_in_table(model: nn.Module) -> int | None:
    """Returns how many positions a model has in a table; None if it computes them.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> positions_in_table(GPT2LMHeadModel(GPT2Config(n_positions=16, n_embd=4, n_layer=1, n_head=1)))
        16
    """
    config = getattr(model, "config", None)
    most = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if not isinstance(most, int):
        return None
    for name, module in model.named_modules():
        table = getattr(module, "weight", None) if isinstance(module, nn.Embedding) else None
        table = getattr(module, "embed_positions", None) if table is None else table  # of GPT-J
        if not isinstance(table, Tensor) or not re.search("pos|wpe|attn", name):
            continue
        if most <= len(table) <= most + 2:  # OPT has two rows more
            padding = getattr(module, "padding_idx", None)  # positions of RoBERTa begin after it
            return min(most, len(table) - (0 if padding is None else padding + 1))
    return None


def check_positions(model: nn.Module, tokens: int) -> None:
    """Makes sure that a model has a position for each token of a text.

    Raises:
        ArgumentError: The text is longer.
    """
    most = positions_in_table(model)
    if most is not None and tokens > most:
        raise ArgumentError(f"the text is {tokens} tokens long, {type(model).__name__} reads at most {most}")
