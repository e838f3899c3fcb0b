"""Texts that a model says by itself: beginnings to read a subject behind, and what it says of a subject."""

from collections.abc import Sequence
from typing import Any

import torch

from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.seeding import seeded
from .families import Anatomy
from .tokens import tokenize


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
    """Returns continuations of a prompt that the model samples, without the prompt; see `sampled_tokens`."""
    start = len(_prompt_tokens(tokenizer, prompt))
    rows = sampled_tokens(parts, tokenizer, prompt, count, length, top_k=top_k, seed=seed)
    return [tokenizer.decode(row[start:], skip_special_tokens=True).strip() for row in rows]


def sampled_tokens(
    parts: Anatomy,
    tokenizer: Any,
    prompt: str,
    count: int,
    length: int,
    *,
    top_k: int = 5,
    seed: int | None = 0,
) -> list[list[int]]:
    """Returns the tokens of texts that the model goes on to after a prompt, those of the prompt included.

    Args:
        parts: The model.
        tokenizer: Its tokenizer.
        prompt: What to continue; the empty text stands for the beginning of a document.
        count: How many.
        length: How many tokens each; an end of the document does not end it.
        top_k: Out of how many of the likeliest tokens each is drawn.
        seed: Of the draws; the global generators stay as they are.
    """
    ids = _prompt_tokens(tokenizer, prompt)
    parts.check_length(len(ids) + length, prompt)
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
    return [list(row) for row in longer.tolist()]


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
        text
        for number, (count, length) in enumerate(prefixes)
        for text in sampled(parts, tokenizer, "", count, length, seed=None if seed is None else seed + number)
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


def _prompt_tokens(tokenizer: Any, prompt: str) -> list[int]:
    """The tokens of a prompt; the empty one is the token that begins a document."""
    if prompt:
        return list(tokenize(tokenizer, prompt).ids)
    for index in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if index is not None:
            return [index]
    return [0]
