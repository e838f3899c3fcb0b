"""Texts that a model says by itself: beginnings to read a subject behind, and what it says of a subject."""

from collections.abc import Sequence
from typing import Any

import torch

from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.seeding import seeded
from ..families import Anatomy
from ..tokens import tokenize


def sampled(
    parts: Anatomy,
    tokenizer: Any,
    prompt: str,
    count: int,
    length: int,
    *,
    top_k: int = 5,
    seed: int | None = 0,
) -> list[str]:
    """Returns continuations of a prompt that the model samples, without the prompt.

    Args:
        parts: The model.
        tokenizer: Its tokenizer.
        prompt: What to continue; the empty text stands for the beginning of a document.
        count: How many.
        length: How many tokens each; an end of the document does not end it.
        top_k: Out of how many of the likeliest tokens each is drawn.
        seed: Of the draws; the global generators stay as they are.
    """
    ids = _beginning(tokenizer) if not prompt else list(tokenize(tokenizer, prompt).ids)
    tokens = torch.tensor([ids] * count, device=parts.device)
    end = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    with evaluating(parts.model), seeded(seed, parts.device), torch.no_grad():
        longer = parts.model.generate(  # type: ignore[operator]
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=True,
            top_k=top_k,
            max_new_tokens=length,
            min_new_tokens=length,
            pad_token_id=0 if end is None else end,
        )
    return [tokenizer.decode(row[len(ids) :], skip_special_tokens=True).strip() for row in longer]


def sampled_contexts(
    parts: Anatomy, tokenizer: Any, prefixes: Sequence[tuple[int, int]], seed: int | None = 0
) -> tuple[str, ...]:
    """Returns templates that put a sampled text in front of a prompt, ``"text. {}"``.

    Args:
        parts: The model.
        tokenizer: Its tokenizer.
        prefixes: Pairs (how many, tokens in each).
        seed: Of the draws.
    """
    texts = [
        text for count, length in prefixes for text in sampled(parts, tokenizer, "", count, length, seed=seed)
    ]
    return tuple(f"{text.replace('{', ' ').replace('}', ' ')}. {{}}" for text in texts)


def check_contexts(contexts: Sequence[str]) -> tuple[str, ...]:
    """Returns the templates, if each has one place for a prompt.

    Raises:
        ArgumentError: One has not.
    """
    for context in contexts:
        if not isinstance(context, str) or context.count("{}") != 1:
            raise ArgumentError(f"expected a context with one {{}} for the prompt, got {context!r}")
    return tuple(contexts)


def _beginning(tokenizer: Any) -> list[int]:
    """The token that begins a document."""
    for index in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if index is not None:
            return [index]
    return [0]
