"""What a transformer is given: texts, chats, token ids, encodings, pictures."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...core.checks import MOST
from ...core.conversions import has_values
from ...core.errors import ArgumentError
from ...core.kinds import shown
from ...core.modules import device_and_dtype
from ...core.tensors import WHOLE_NUMBERS
from ...core.tokenizers import encoded_by, positions_in_table
from .cached_texts import CachedTexts
from .tokens import encode


def plain_rows(given: Any) -> Any:
    """Returns texts and token ids in arrays, tensors and columns of pandas as lists, anything else as it is.

    Raises:
        ArgumentError: A sparse tensor.

    Example:
        >>> plain_rows([torch.tensor([3, 4]), np.array([5])])
        [[3, 4], [5]]
    """
    if isinstance(given, list | tuple):
        return given if all(type(one) in (int, str) for one in given) else [plain_rows(one) for one in given]
    if isinstance(given, Tensor) and given.layout != torch.strided:
        raise ArgumentError(f"token ids are a dense tensor, got {shown(given)}")
    is_column = type(given).__module__.partition(".")[0] == "pandas" and not hasattr(given, "columns")
    return given.tolist() if is_column or isinstance(given, Tensor | np.ndarray | np.integer) else given


class ModelInputs:
    """Makes the inputs of a model from what the user has.

    Args:
        model: A Hugging Face model.
        tokenizer: Its tokenizer, or None.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> inputs = ModelInputs(model, tokenizer)
        >>> inputs.tokens([[3, 4, 5]])
        tensor([[3, 4, 5]])
    """

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer

    def __call__(self, given: Any, *, left: bool = False) -> dict[str, Any]:
        """Returns the keyword arguments of the model.

        Args:
            given: A text, several texts, a chat, several chats, token ids, pictures, or what a tokenizer or
                an image processor returned.
            left: Pad shorter texts on the left, as for generation.

        Raises:
            ArgumentError: Something else, tokens that the model does not know, or more than it reads.
        """
        device = device_and_dtype(self._model)[0]
        if isinstance(given, Mapping):
            name = getattr(self._model, "main_input_name", "input_ids")
            if not {name, "inputs_embeds"} & set(given):
                raise ArgumentError(f"expected inputs with {name!r}, got {shown(given)}")
            inputs = {key: one.to(device) if isinstance(one, Tensor) else one for key, one in given.items()}
            if isinstance(inputs.get("input_ids"), Tensor):
                self._check(inputs["input_ids"])
            return inputs
        if isinstance(given, np.ndarray) and given.dtype.kind in "iuf":
            given = torch.as_tensor(given)
        if isinstance(given, Tensor):
            if not has_values(given):
                raise ArgumentError(f"expected pictures or token ids, got {shown(given)}")
            return self._tensor(given.to(device))
        rows = [self._ids(one) for one in self._several(plain_rows(given))]
        if any(abs(index) >= MOST for row in rows for index in row):
            raise ArgumentError(f"token ids are from 0 on, and below {MOST:,}, got {shown(given)}")
        longest = max(map(len, rows))
        ids, mask = torch.full((len(rows), longest), self.padding), torch.zeros(len(rows), longest).long()
        for place, row in enumerate(rows):
            real = slice(longest - len(row), None) if left else slice(len(row))
            ids[place, real], mask[place, real] = torch.tensor(row, dtype=torch.long), 1
        self._check(ids)
        masked = {} if bool(mask.all()) else {"attention_mask": mask.to(device)}
        return {"input_ids": ids.to(device), **masked}

    def _tensor(self, given: Tensor) -> dict[str, Any]:
        """Pictures or token ids."""
        name = getattr(self._model, "main_input_name", "input_ids")
        if given.is_floating_point() and name != "input_ids":
            dtype = device_and_dtype(self._model)[1]
            return {name: given.to(dtype)}
        if given.dtype not in WHOLE_NUMBERS or not 1 <= given.dim() <= 2:
            raise ArgumentError(
                f"expected token ids, whole numbers of shape (batch, position), got {shown(given)}"
            )
        ids = given.long() if given.dim() > 1 else given.long()[None]
        self._check(ids)
        return {"input_ids": ids}

    def tokens(self, given: Any) -> Tensor:
        """Returns token ids (batch, position)."""
        ids = self(given).get("input_ids")
        if not isinstance(ids, Tensor):
            raise ArgumentError(f"{shown(given)} has no tokens")
        return ids

    def token_texts(self, given: Any) -> list[str]:
        """Returns the texts of the tokens of one text."""
        if self._tokenizer is None:
            raise ArgumentError("there is no tokenizer: HookedModel(model, tokenizer) reads texts of tokens")
        ids = self.tokens(given)
        if len(ids) != 1:
            raise ArgumentError(f"expected one text, got {len(ids)}")
        return [self._text(index) for index in ids[0].tolist()]

    def texts(self, inputs: Mapping[str, Any]) -> CachedTexts | None:
        """Returns the tokens of the inputs of a pass, None for pictures."""
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if not isinstance(ids, Tensor) or ids.dim() != 2:
            return None
        known = isinstance(mask, Tensor) and mask.shape == ids.shape
        return CachedTexts(ids, mask if known else None, self._text)

    def _text(self, token: int) -> str:
        """The text of a token, its number without a tokenizer."""
        return str(token) if self._tokenizer is None else str(self._tokenizer.decode([token]))

    @property
    def padding(self) -> int:
        """The token that shorter texts are padded with."""
        config = getattr(self._model, "config", None)
        candidates = [getattr(self._tokenizer, name, None) for name in ("pad_token_id", "eos_token_id")]
        candidates += [getattr(config, name, None) for name in ("pad_token_id", "eos_token_id")]
        return next((one for one in candidates if isinstance(one, int)), 0)

    def _several(self, given: Any) -> Sequence[Any]:
        """One entry for each row."""
        if isinstance(given, str) or _is_chat(given):
            return [given]
        if not isinstance(given, Sequence) or not given:
            raise ArgumentError(f"expected a text, texts, a chat or token ids, got {shown(given)}")
        return [given] if all(type(one) is int for one in given) else given

    def _ids(self, given: Any) -> list[int]:
        """The ids of one text."""
        if isinstance(given, Sequence) and given and all(type(index) is int for index in given):
            return list(given)
        if self._tokenizer is None:
            raise ArgumentError(
                f"there is no tokenizer to read {shown(given)} with: give token ids, or HookedModel(model, "
                f"tokenizer)"
            )
        if _is_chat(given):
            return encode(self._tokenizer, self._chat(given))
        if not isinstance(given, str) or not given:
            raise ArgumentError(f"expected a text with words, got {shown(given)}")
        if getattr(self._model, "can_generate", bool)():
            return encode(self._tokenizer, given)
        ids: list[int] = encoded_by(self._tokenizer, given)["input_ids"]
        return ids

    def _chat(self, given: Any) -> str:
        """The text of a chat, up to where the model answers."""
        try:
            text: str = self._tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=True)
        except ValueError as error:
            raise ArgumentError(f"the tokenizer makes no text of a chat: {error}") from error
        return text

    def _check(self, ids: Tensor) -> None:
        """Raises an error for ids that the model does not know or has no positions for."""
        if not ids.numel():
            raise ArgumentError(f"expected tokens, got none: {tuple(ids.shape)}")
        known = self._tokens
        if known is not None and not bool(((ids >= 0) & (ids < known)).all()):
            raise ArgumentError(
                f"token ids are from 0 to {known - 1}, got {int(ids.min())} to {int(ids.max())}"
            )
        most = self._positions
        if most is not None and ids.shape[-1] > most:
            raise ArgumentError(
                f"the text is {ids.shape[-1]} tokens long, {type(self._model).__name__} reads at most {most}"
            )

    @cached_property
    def _tokens(self) -> int | None:
        """How many tokens the model knows."""
        table = input_table(self._model)
        return None if table is None else len(table)

    @cached_property
    def _positions(self) -> int | None:
        return positions_in_table(self._model)


def input_table(model: nn.Module) -> Tensor | None:
    """Returns the embeddings of tokens, (tokens, width); None for models of something else."""
    try:
        weight = getattr(getattr(model, "get_input_embeddings", lambda: None)(), "weight", None)
    except NotImplementedError:  # of transformers, where there are none
        return None
    return weight if isinstance(weight, Tensor) and weight.dim() == 2 else None


def _is_chat(given: Any) -> bool:
    return (
        isinstance(given, Sequence)
        and bool(given)
        and all(isinstance(one, Mapping) and "role" in one for one in given)
    )
