"""Collects the second moments of the keys of some layers in one pass over texts.

Meng et al. (2022) take 100,000 texts. Far fewer are enough: C needs only a few times as many keys as a key
has entries (arXiv:2506.04226).
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ....core.checks import checked
from ....core.errors import ArgumentError
from ....core.fingerprint import fingerprint_of
from ....core.hooks import hooked
from ....core.modules import evaluating
from ....core.parallel import streamed
from ....core.progress import tqdm
from ....core.tensors import whole
from ...model.corpus import texts_in, token_rows
from ...model.families import Anatomy, anatomy
from ...model.tokens import padded
from .second_moments import KeyStatistics, SecondMoment

_SECONDS = 60.0  # between two checkpoints: those of large models are gigabytes
_SORTED_AT_ONCE = 16  # batches whose texts are sorted by length together, so that there is little padding


@checked
def collect_statistics(
    model: nn.Module,
    tokenizer: Any,
    texts: Any,
    layers: Sequence[int],
    *,
    batch_size: int = 8,
    max_length: int = 1024,
    enough: float | None = None,
    dtype: torch.dtype = torch.float64,
    checkpoint: str | Path | None = None,
    jobs: int = 1,
    verbose: bool = True,
) -> KeyStatistics:
    """Returns the second moments of the keys of some layers, from one pass over the texts.

    The forward pass ends after the deepest layer. Memory does not grow with the number of texts. Sums are
    those of parts of 16 batches, added in the order of the texts.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        texts: A list or an iterator of texts, a dataset whose rows have a ``"text"``, or the path of a file
            with a text on each line.
        layers: The layers to collect, counted from 0.
        batch_size: Texts in a forward pass.
        max_length: The number of tokens at which longer texts are cut off, as in the paper.
        enough: Stop after this many keys for each entry of a key; by default all texts are read.
        dtype: The precision of the sums, float32 or float64. The product of one batch is computed in the
            precision of the keys, at least float32.
        checkpoint: A file that is written about once a minute and at the end. If it exists, the pass
            continues from it.
        jobs: How many parts run at once, in processes or on a cluster; see `toumei.core.sweep`. Any number
            gives the same sums. With several, an iterator is read some parts ahead.
        verbose: Show a progress bar.

    Raises:
        ArgumentError: There are no texts, no such layer, another precision, or the checkpoint belongs to
            another model, other layers or other texts.
        ArchitectureError: A layer has no down-projection.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> texts = (text for text, _ in zip(world.texts(seed=0), range(50)))
        >>> collect_statistics(model, tokenizer, texts, [1, 2], verbose=False)
        KeyStatistics(layers 1, 2: ... keys of 50 texts)
    """
    parts = anatomy(model)
    if not isinstance(layers, Iterable) or not (wanted := list(layers)):
        raise ArgumentError(f"expected a list of layers to collect statistics of, got {layers!r}")
    if batch_size < 1 or max_length < 1:
        raise ArgumentError(f"batch_size and max_length are from 1 on, got {batch_size} and {max_length}")
    if dtype not in (torch.float32, torch.float64):
        raise ArgumentError(f"sums of many keys need float32 or float64, got {dtype}")
    pass_ = _Pass(parts, wanted, dtype)
    task = _PartTask(parts, pass_.names, batch_size, dtype)
    source = token_rows(texts_in(texts), tokenizer, min(max_length, parts.positions or max_length))
    if checkpoint is not None and Path(checkpoint).exists():
        pass_.resume(KeyStatistics.load(checkpoint), source)
    reading = iter(lambda: list(islice(source, batch_size * _SORTED_AT_ONCE)), [])
    progress = tqdm(desc="statistics", unit="text", initial=pass_.texts, disable=not verbose)
    with progress, _saving(pass_, checkpoint) as save, closing(streamed(task, reading, jobs=jobs)) as found:
        while not pass_.has(enough) and (following := next(found, None)) is not None:
            pass_.add(*following)
            progress.update(len(following[0]))
            save()
    if not any(pass_.counts.values()):
        raise ArgumentError("expected texts to collect statistics over, got an empty corpus")
    return pass_.result()


@dataclass(frozen=True)
class _PartTask:
    """The function of a sweep over parts of a corpus.

    Attributes:
        parts: The parts of the model.
        names: The down-projection of each layer.
        batch_size: Texts in a forward pass.
        dtype: The precision of the sums.
    """

    parts: Anatomy
    names: dict[int, str]
    batch_size: int
    dtype: torch.dtype

    @torch.no_grad()
    def __call__(self, read: Sequence[Sequence[int]]) -> dict[int, SecondMoment]:
        """Returns the second moments of the keys of some texts; none if all texts are empty."""
        rows = sorted(filter(None, read), key=len)
        totals: dict[int, Tensor] = {}
        counts = dict.fromkeys(self.names, 0)
        with evaluating(self.parts.model):
            for start in range(0, len(rows), self.batch_size):
                self._add(rows[start : start + self.batch_size], totals, counts)
        return {layer: SecondMoment(total.cpu(), counts[layer]) for layer, total in totals.items()}

    def _add(self, rows: Sequence[Sequence[int]], totals: dict[int, Tensor], counts: dict[int, int]) -> None:
        """Adds the keys of a batch. Causal models need no mask for padding on the right."""
        tokens, mask = padded(rows, self.parts.device)
        runs = self.parts.runs(self.names.values())
        with hooked(self.parts.model, runs, inputs=True, stop=True, clone=False) as given:
            self.parts.model(tokens, use_cache=False)
        for layer, name in self.names.items():
            keys = whole(given[name])
            keys = keys.reshape(-1, keys.shape[-1])
            if mask.numel() != mask.sum():
                keys = keys[mask.flatten().bool().to(keys.device)]
            keys = keys if keys.dtype in (torch.float32, torch.float64) else keys.float()
            product = keys.T @ keys
            if layer in totals:
                totals[layer] += product
            else:
                totals[layer] = product.to(self.dtype)
            counts[layer] += len(keys)


class _Pass:
    """The running sums of a pass over texts, on the CPU."""

    def __init__(self, parts: Anatomy, layers: list[int], dtype: torch.dtype) -> None:
        self.names = {layer: parts.down(layer) for layer in layers}
        self.totals: dict[int, Tensor] = {}
        self.counts = dict.fromkeys(layers, 0)
        self.dtype, self.model = dtype, fingerprint_of(parts.model)
        self.corpus, self.texts, self.complete = "", 0, True

    def resume(self, begun: KeyStatistics, source: Iterator[list[int]]) -> None:
        """Takes over the sums of a pass that was killed, and skips its texts."""
        if begun.model != self.model or set(begun.moments) != set(self.names):
            raise ArgumentError(
                f"the checkpoint has {begun} of {'this' if begun.model == self.model else 'another'} model, "
                f"wanted are layers {', '.join(map(str, self.names))}: remove it or give another path"
            )
        for row in islice(source, begun.texts):
            self.corpus = _chained(self.corpus, row)
        if self.corpus != begun.corpus:
            raise ArgumentError(
                "the checkpoint was made of other texts or other tokens: remove it or give another path"
            )
        self.texts = begun.texts
        self.totals = {layer: moment.total.to(self.dtype) for layer, moment in begun.moments.items()}
        self.counts = {layer: moment.count for layer, moment in begun.moments.items()}

    def add(self, rows: Iterable[Sequence[int]], moments: Mapping[int, SecondMoment]) -> None:
        """Adds the second moments of a part of the texts. Until it is done the sums are incomplete."""
        self.complete = False
        for layer, moment in moments.items():
            if layer in self.totals:
                self.totals[layer] += moment.total
            else:
                self.totals[layer] = moment.total
            self.counts[layer] += moment.count
        for row in rows:
            self.corpus = _chained(self.corpus, row)
            self.texts += 1
        self.complete = True

    def has(self, enough: float | None) -> bool:
        """Returns whether each layer has this many keys for each entry of a key."""
        return enough is not None and all(
            layer in self.totals and count >= enough * len(self.totals[layer])
            for layer, count in self.counts.items()
        )

    def result(self) -> KeyStatistics:
        """The second moments so far."""
        moments = {
            layer: SecondMoment(total.clone(), self.counts[layer]) for layer, total in self.totals.items()
        }
        return KeyStatistics(moments, self.model, self.corpus, self.texts)


@contextmanager
def _saving(pass_: _Pass, checkpoint: str | Path | None) -> Iterator[Callable[[], None]]:
    """Yields a function that saves the sums if the last save is long ago; saves them at the end too."""
    last = time.monotonic()

    def save(every: float = _SECONDS) -> None:
        nonlocal last
        if checkpoint is not None and pass_.complete and time.monotonic() - last >= every:
            pass_.result().save(checkpoint)
            last = time.monotonic()

    try:
        yield save
    finally:
        if pass_.texts:
            save(every=0)


def _chained(corpus: str, row: Sequence[int]) -> str:
    return hashlib.sha256(f"{corpus} {row}".encode()).hexdigest()
