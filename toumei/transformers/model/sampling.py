"""Texts that are sampled from a model: continuations of prompts, and contexts to put in front of prompts."""

from collections.abc import Sequence
from typing import Any

import torch

from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.seeding import seeded
from .families import Anatomy
from .tokens import tokenize


def sample_continuations(
    parts: Anatomy,
    tokenizer: Any,
    prompt: str,
    count: int,
    length: int,
    *,
    top_k: int = 5,
    seed: int | None = 0,
) -> list[str]:
    """Returns sampled continuations of a prompt, without the prompt; see `sample_tokens`."""
    start = len(_prompt_tokens(tokenizer, prompt))
    rows = sample_tokens(parts, tokenizer, prompt, count, length, top_k=top_k, seed=seed)
    return [tokenizer.decode(row[start:], skip_special_tokens=True).strip() for row in rows]


def sample_tokens(
    parts: Anatomy,
    tokenizer: Any,
    prompt: str,
    count: int,
    length: int,
    *,
    top_k: int = 5,
    seed: int | None = 0,
) -> list[list[int]]:
    """Returns the tokens of sampled texts that begin with a prompt, including the tokens of the prompt.

    Args:
        parts: The model.
        tokenizer: Its tokenizer.
        prompt: The prompt; an empty one means the beginning of a document.
        count: How many texts.
        length: How many tokens are added to the prompt; an end-of-document token does not end a text.
        top_k: Each token is drawn from this many of the likeliest tokens.
        seed: Seed of the draws; the global generators stay as they are.
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


def sample_contexts(
    parts: Anatomy, tokenizer: Any, prefixes: Sequence[tuple[int, int]], seed: int | None = 0
) -> tuple[str, ...]:
    """Returns templates that put a sampled text in front of a prompt, ``"text. {}"``.

    Args:
        parts: The model.
        tokenizer: Its tokenizer.
        prefixes: Pairs (how many texts, tokens in each).
        seed: Seed of the draws.
    """
    texts = [
        text
        for number, (count, length) in enumerate(prefixes)
        for text in sample_continuations(
            parts, tokenizer, "", count, length, seed=None if seed is None else seed + number
        )
    ]
    return tuple(f"{text.replace('{', ' ').replace('}', ' ')}. {{}}" for text in texts)


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Returns the templates if each has exactly one ``{}``.

    Raises:
        ArgumentError: A template has no ``{}`` or several.
    """
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise ArgumentError(f"expected a context with one {{}} for the prompt, got {template!r}")
    return tuple(templates)


def _prompt_tokens(tokenizer: Any, prompt: str) -> list[int]:
    """The tokens of a prompt; of an empty one the token that begins a document."""
    if prompt:
        return list(tokenize(tokenizer, prompt).ids)
    for index in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if index is not None:
            return [index]
    return [0]
