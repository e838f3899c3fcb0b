"""How the keys of a layer are spread over texts: their second moments, collected in one pass.

Meng et al. (2022) take 100,000 texts; far fewer are enough, since C needs only a few times as many keys as a
key has entries (arXiv:2506.04226).
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...core.errors import ArgumentError
from ...core.hooks import hooked
from ...core.modules import evaluating
from ..families import Anatomy, anatomy
from .applied import unedited_fingerprint
from .moments import KeyStatistics, SecondMoment
from .requests import padded
from .weights import whole

__all__ = ["KeyStatistics", "SecondMoment", "collect_statistics"]

_SECONDS = 60.0  # between two checkpoints: those of large models are gigabytes
_SORTED_AT_ONCE = 16  # batches of texts that are sorted by length, so that little is filled up


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
    verbose: bool = True,
) -> KeyStatistics:
    """Returns the second moments of the keys of some layers, from one pass over the texts.

    The forward pass ends behind the deepest layer. Memory does not grow with the texts.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        texts: A list or an iterator of texts, a dataset whose rows have a ``"text"``, or the path of a file
            with a text on each line.
        layers: The layers to collect, counted from 0.
        batch_size: Texts in a forward pass.
        max_length: Tokens of a text that are read; what is longer is cut off, as in the paper.
        enough: Stop after this many keys for each entry of a key; by default all texts are read.
        dtype: In what the products are summed up, float32 or float64. A product of one batch is made in the
            precision of the keys, at least float32.
        checkpoint: A file that is written about once a minute and at the end. If it is there, the pass goes
            on where it was.
        verbose: Show a progress bar.

    Raises:
        ArgumentError: There are no texts, no such layer, or the checkpoint belongs to another model, other
            layers or other texts.
        ArchitectureError: A layer has no down-projection.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> texts = (text for text, _ in zip(world.texts(seed=0), range(50)))
        >>> collect_statistics(model, tokenizer, texts, [1, 2], verbose=False)
        KeyStatistics(layers 1, 2: ... keys of 50 texts)
    """
    parts = anatomy(model)
    if not layers:
        raise ArgumentError("expected at least one layer to collect statistics of, got none")
    pass_ = _Pass(parts, list(layers), dtype)
    source = _texts(texts)
    if checkpoint is not None and Path(checkpoint).exists():
        pass_.resume(KeyStatistics.load(checkpoint), source)
    progress = tqdm(desc="statistics", unit="text", initial=pass_.texts, disable=not verbose)
    with progress, evaluating(model), torch.no_grad(), _saving(pass_, checkpoint) as save:
        while not pass_.has(enough) and (read := list(islice(source, batch_size * _SORTED_AT_ONCE))):
            with pass_.part(read):
                for rows in _batches(read, tokenizer, batch_size, min(max_length, _positions(parts))):
                    pass_.add(rows)
            progress.update(len(read))
            save()
    if not any(pass_.counts.values()):
        raise ArgumentError("expected texts to collect statistics over, got an empty corpus")
    return pass_.result()


class _Pass:
    """The running sums of a pass over texts."""

    def __init__(self, parts: Anatomy, layers: list[int], dtype: torch.dtype) -> None:
        self.parts, self.names = parts, {layer: parts.down(layer) for layer in layers}
        self.totals: dict[int, Tensor] = {}
        self.counts = dict.fromkeys(layers, 0)
        self.dtype, self.model = dtype, unedited_fingerprint(parts.model)
        self.corpus, self.texts, self.complete = "", 0, True

    def resume(self, begun: KeyStatistics, source: Iterator[str]) -> None:
        """Takes over what a killed pass had, and reads past its texts."""
        if begun.model != self.model or set(begun.moments) != set(self.names):
            raise ArgumentError(
                f"the checkpoint has {begun} of {'this' if begun.model == self.model else 'another'} model, "
                f"wanted are layers {', '.join(map(str, self.names))}: remove it or give another path"
            )
        for text in islice(source, begun.texts):
            self.corpus = _chained(self.corpus, text)
        if self.corpus != begun.corpus:
            raise ArgumentError("the checkpoint was made of other texts: remove it or give another path")
        self.texts = begun.texts
        self.totals = {layer: moment.total.to(self.dtype) for layer, moment in begun.moments.items()}
        self.counts = {layer: moment.count for layer, moment in begun.moments.items()}

    def add(self, rows: Sequence[Sequence[int]]) -> None:
        """Adds the keys of a batch. Causal models need no mask for what is filled up behind a text."""
        tokens, mask = padded(rows, self.parts.device)
        with hooked(self.parts.model, self.names.values(), inputs=True, stop=True, clone=False) as given:
            self.parts.model(tokens, use_cache=False)
        for layer, name in self.names.items():
            keys = whole(given[name])
            keys = keys.reshape(-1, keys.shape[-1])
            if mask.numel() != mask.sum():
                keys = keys[mask.flatten().bool().to(keys.device)]
            keys = keys if keys.dtype in (torch.float32, torch.float64) else keys.float()
            product = keys.T @ keys
            if layer in self.totals:
                self.totals[layer] += product
            else:
                self.totals[layer] = product.to(self.dtype)
            self.counts[layer] += len(keys)

    @contextmanager
    def part(self, texts: Iterable[str]) -> Iterator[None]:
        """Within it the keys of these texts are added; if that fails, the sums are good for nothing."""
        self.complete = False
        yield
        for text in texts:
            self.corpus = _chained(self.corpus, text)
            self.texts += 1
        self.complete = True

    def has(self, enough: float | None) -> bool:
        """Says whether each layer has seen so many keys for each entry of a key."""
        return enough is not None and all(
            layer in self.totals and count >= enough * len(self.totals[layer])
            for layer, count in self.counts.items()
        )

    def result(self) -> KeyStatistics:
        """The second moments so far."""
        moments = {
            layer: SecondMoment(total.cpu().clone(), self.counts[layer])
            for layer, total in self.totals.items()
        }
        return KeyStatistics(moments, self.model, self.corpus, self.texts)


@contextmanager
def _saving(pass_: _Pass, checkpoint: str | Path | None) -> Iterator[Callable[[], None]]:
    """Gives a function that saves what there is if the last time is long ago; saves it at the end too."""
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


def _texts(given: Any) -> Iterator[str]:
    if isinstance(given, (str, Path)):
        with open(given, encoding="utf-8") as file:
            yield from (line.strip() for line in file if line.strip())
        return
    for item in given:
        text = item["text"] if isinstance(item, Mapping) else item
        if not isinstance(text, str):
            raise ArgumentError(f"expected texts, or rows with a 'text', got {text!r}")
        if text.strip():
            yield text


def _batches(
    texts: Sequence[str], tokenizer: Any, batch_size: int, max_length: int
) -> Iterator[list[list[int]]]:
    """The tokens of the texts in batches of similar length."""
    rows = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    rows = sorted((row for row in rows if row), key=len)
    yield from (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))


def _positions(parts: Anatomy) -> int:
    """How many tokens the model can read at once."""
    config = parts.model.config
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
    return int(next((getattr(config, name) for name in names if getattr(config, name, None)), 1024))


def _chained(corpus: str, text: str) -> str:
    return hashlib.sha256(corpus.encode() + text.encode()).hexdigest()
