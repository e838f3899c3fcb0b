"""What a transformer is given: texts, chats, token ids, encodings, pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import ArchitectureError, ArgumentError
from ...core.kinds import shown
from ...core.modules import device_and_dtype
from .tokens import encode


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

    def __call__(self, given: Any) -> dict[str, Any]:
        """Returns the keyword arguments of the model."""
        device = device_and_dtype(self._model)[0]
        if isinstance(given, Mapping):
            return {name: one.to(device) if isinstance(one, Tensor) else one for name, one in given.items()}
        name = getattr(self._model, "main_input_name", "input_ids")
        if isinstance(given, Tensor) and given.is_floating_point():
            return {name: given.to(device)}
        if isinstance(given, Tensor):
            return {"input_ids": self._checked((given if given.dim() > 1 else given[None]).to(device))}
        rows = [self._ids(one) for one in self._several(given)]
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[self.padding] * (longest - len(row))] for row in rows], device=device)
        inputs = {"input_ids": self._checked(ids)}
        if any(len(row) < longest for row in rows):
            lengths = torch.tensor([len(row) for row in rows], device=device)
            inputs["attention_mask"] = (torch.arange(longest, device=device) < lengths[:, None]).long()
        return inputs

    def tokens(self, given: Any) -> Tensor:
        """Returns token ids (batch, position)."""
        ids = self(given).get("input_ids")
        if ids is None:
            raise ArgumentError(f"{shown(given)} has no tokens")
        return ids

    def token_texts(self, given: Any) -> list[str]:
        """Returns the texts of the tokens of one text."""
        if self._tokenizer is None:
            raise ArgumentError("there is no tokenizer: HookedModel(model, tokenizer) reads texts of tokens")
        ids = self.tokens(given)
        if len(ids) != 1:
            raise ArgumentError(f"expected one text, got {len(ids)}")
        return [self._tokenizer.decode([index]) for index in ids[0].tolist()]

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
        return [given] if all(isinstance(one, int) for one in given) else given

    def _ids(self, given: Any) -> list[int]:
        """The ids of one text."""
        if isinstance(given, Sequence) and not isinstance(given, str) and all(type(n) is int for n in given):
            return list(given)
        if self._tokenizer is None:
            raise ArgumentError(
                f"there is no tokenizer to read {shown(given)} with: give token ids, or HookedModel(model, "
                f"tokenizer)"
            )
        if _is_chat(given):
            text = self._tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=True)
            return encode(self._tokenizer, text)
        if not isinstance(given, str) or not given:
            raise ArgumentError(f"expected a text with words, got {shown(given)}")
        if getattr(self._model, "can_generate", bool)():
            return encode(self._tokenizer, given)
        ids: list[int] = self._tokenizer(given)["input_ids"]
        return ids

    def _checked(self, ids: Tensor) -> Tensor:
        """The ids, which the model knows and has positions for."""
        embedding: Any = getattr(self._model, "get_input_embeddings", lambda: None)()
        known = len(embedding.weight) if isinstance(getattr(embedding, "weight", None), Tensor) else None
        if not ids.numel():
            raise ArgumentError(f"expected tokens, got none: {tuple(ids.shape)}")
        if known is not None and not bool(((ids >= 0) & (ids < known)).all()):
            raise ArgumentError(
                f"token ids are from 0 to {known - 1}, got {int(ids.min())} to {int(ids.max())}"
            )
        config = getattr(self._model, "config", None)
        most = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        learned = sum(isinstance(one, nn.Embedding) for one in self._model.modules()) > 1
        if learned and most is not None and ids.shape[1] > most:
            raise ArgumentError(
                f"the text is {ids.shape[1]} tokens long, {type(self._model).__name__} reads at most {most}"
            )
        return ids


def _is_chat(given: Any) -> bool:
    return (
        isinstance(given, Sequence)
        and bool(given)
        and all(isinstance(one, Mapping) and "role" in one for one in given)
    )


def trial_inputs(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Tensor]]:
    """Returns inputs of two short rows for a trial pass, which tell the axes of heads and positions apart.

    Raises:
        ArchitectureError: It is not known what the model is given.
    """
    device, dtype = device_and_dtype(model)
    config: Any = getattr(model, "config", None)
    name = getattr(model, "main_input_name", None)
    generator = torch.Generator().manual_seed(0)
    if name == "pixel_values":
        size = config.image_size
        height, width = size if isinstance(size, Sequence) else (size, size)
        pixels = torch.rand(2, getattr(config, "num_channels", 3), height, width, generator=generator)
        return (), {"pixel_values": pixels.to(device, dtype)}
    embedding = getattr(model, "get_input_embeddings", lambda: None)()
    if config is None or embedding is None or not isinstance(getattr(embedding, "weight", None), Tensor):
        raise ArchitectureError(
            f"it is not known what {type(model).__name__} is given: expected a Hugging Face transformer of "
            f"tokens (input_ids) or pictures (pixel_values)"
        )
    numbers = {value for value in vars(config).values() if isinstance(value, int)}
    length = next(one for one in (7, 11, 13, 5, 17, 19) if one not in numbers)
    padding = getattr(config, "pad_token_id", None)
    known = [token for token in range(min(len(embedding.weight), 64)) if token != padding]
    picks = torch.randint(len(known), (2, length), generator=generator)
    return (), {"input_ids": torch.tensor(known)[picks].to(device)}
