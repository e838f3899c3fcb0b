"""The states of the texts of a corpus in some layers, one vector for each text and layer."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import ArgumentError, LayerError, NonFiniteError, ShapeError
from ...core.hooks import hooked, run_past_errors
from ...core.modules import device_and_dtype, evaluating, without_wrapper
from ...core.progress import tqdm
from ...core.summaries import counted
from ...core.surveys import survey
from ...instrument.memories.text_batches import TextBatches, most_positions, padded_ids
from .hidden_states import sees_later_tokens
from .pooling import Pooling, pooled

_MOST_TOKENS = 2**14  # of a batch of several texts, padding included

States = dict[str, Tensor]


class StateReader:
    """Runs a model over texts and pools the states of its layers as they are computed.

    Batches hold texts of about the same length; only pooled states are kept of them. A pass ends after the
    deepest layer.

    Args:
        model: A model of texts.
        tokenizer: Its tokenizer.
        layers: Names of layers that return a vector for each token, or one for each text.
        pooling: See `pooled`; None takes ``"last"`` where no token sees those that follow it, else
            ``"mean"``.
        batch_size: Most texts in a forward pass.
        max_length: The number of tokens at which longer texts are cut off; None is the model's limit.
        verbose: Show a progress bar.

    Attributes:
        pooling: What is taken, known after the first batch.
        read: How many texts were read in the last pass.
        cut: How many of them were cut off.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        layers: Sequence[str],
        *,
        pooling: Pooling | None,
        batch_size: int,
        max_length: int | None,
        verbose: bool,
    ) -> None:
        self.model, self.layers, self.pooling = model, tuple(layers), pooling
        self._tokenizer, self._batch_size, self._verbose = tokenizer, batch_size, verbose
        self._max_length, limit = max_length, most_positions(model, tokenizer)
        self.limit = min(filter(None, (max_length, limit)), default=None)
        self.read = self.cut = 0
        self._runs: dict[str, str] = {}
        taken = signature(without_wrapper(model).forward).parameters
        self._options = {"attention_mask", "use_cache"} & set(taken)

    def batches(self, texts: Iterable[str], total: int, description: str) -> Iterator[tuple[Tensor, States]]:
        """Yields the numbers of the texts of a batch, (texts,), and by layer their states, (texts, width).

        Args:
            texts: The texts.
            total: How many there are, 0 where nobody knows.
            description: Of the progress bar.

        Raises:
            ArgumentError: A text has no tokens.
            ForwardError: The model cannot run on them.
            ShapeError: A layer returns something else than a vector for each token or text.
            NonFiniteError: A state has NaN or infinity in it.
        """
        source = TextBatches(
            self._tokenizer,
            texts,
            batch_size=self._batch_size,
            most_tokens=_MOST_TOKENS,
            limit=self.limit,
        )
        device = device_and_dtype(self.model)[0]
        progress = tqdm(desc=description, unit="text", total=total or None, disable=not self._verbose)
        seen = 0
        with progress, evaluating(self.model), torch.no_grad():
            for batch in source:
                ids, mask = padded_ids(batch, device)
                numbers = torch.tensor([text.number for text in batch])
                self._runs = self._runs or self._surveyed(ids[-1:], mask[-1:])
                yield numbers, self._pooled(ids, mask, numbers)
                seen += len(batch)
                progress.update(len(batch))
        self.read, self.cut = source.read, source.cut
        if seen < source.read:
            raise ArgumentError(
                f"expected texts with tokens, got none in {source.read - seen} of "
                f"{counted(source.read, 'text')}: leave them out"
            )
        if not seen:
            raise ArgumentError("expected texts, got an empty corpus")

    def doubts(self) -> list[str]:
        """Returns that texts were cut off, unless that was asked for."""
        if not self.cut or self._max_length is not None:
            return []
        return [
            f"{self.cut} of {counted(self.read, 'text')} cut off at the {self.limit} tokens that the model "
            "takes: split them, or give max_length"
        ]

    def _pooled(self, ids: Tensor, mask: Tensor, numbers: Tensor) -> States:
        """The states of a batch in all layers, float32 on the CPU."""
        pooling, found = self.pooling, States()
        assert pooling is not None

        def note(layer: str, tensor: Tensor) -> Tensor:
            try:
                found[layer] = pooled(tensor, mask, pooling).float().cpu()
            except ShapeError as error:
                raise ShapeError(f"layer {layer!r} has no vector for each token: {error}") from None
            return tensor

        edits = {run: partial(note, layer) for layer, run in self._runs.items()}
        with hooked(self.model, edit=edits, stop=True):
            run_past_errors(
                lambda: self._forward(ids, mask), lambda: len(found) == len(edits), self.model, (ids,)
            )
        for layer, states in found.items():
            good = states.isfinite().all(1)
            if not bool(good.all()):
                raise NonFiniteError(
                    f"the state of text {int(numbers[good.long().argmin()])} in layer {layer!r} is NaN or "
                    f"infinite"
                )
        return found

    def _surveyed(self, ids: Tensor, mask: Tensor) -> dict[str, str]:
        """The runs that the layers name, with their numbers: passes that read these can stop early."""
        runs = survey(self.model, self.layers, lambda: self._forward(ids, mask), keep=False).names
        if len(set(runs.values())) < len(runs):
            raise LayerError(f"layers are named twice: {', '.join(self.layers)}")
        if self.pooling is None:
            deepest = runs[self.layers[-1]]
            encoder = ids.shape[1] > 1 and sees_later_tokens(
                self.model, deepest, lambda ids: self._forward(ids, mask), ids
            )
            self.pooling = "mean" if encoder else "last"
        return runs

    def _forward(self, ids: Tensor, mask: Tensor) -> None:
        options = {"attention_mask": mask.long(), "use_cache": False}
        self.model(ids, **{name: options[name] for name in self._options})
