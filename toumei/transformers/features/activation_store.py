"""Activations in a folder: shards of safetensors that are written once and read in random order."""

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.checks import check_counts, check_jobs, checked
from ...core.checksums import tensors_of
from ...core.errors import ArgumentError
from ...core.files import atomic_write
from ...core.json_files import from_json
from ...core.optional import require
from ...core.parallel import streamed
from ...core.progress import tqdm
from ...core.serialization import write_safetensors
from ...core.summaries import counted, listed
from ...core.user_warnings import warn
from .activation_source import ActivationSource, Block, activations_of
from .token_batches import TokenBatch

_INDEX, _KEY, _VERSION = "activations.json", "toumei", 1
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class ActivationStore:
    """Activations that were written to a folder.

    Memory holds one shard at a time. Shards are read in an order that a seed chooses.

    Args:
        folder: A folder that `ActivationStore.write` wrote.

    Raises:
        ArgumentError: The folder has no activations, or is damaged.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import HookedModel
        >>> model, tokenizer, world = facts_gpt()
        >>> texts = [fact.text for fact in world.facts[:30]]
        >>> source = ActivationSource(HookedModel(model, tokenizer), texts, ("resid_post", 2))
        >>> with TemporaryDirectory() as folder:
        ...     ActivationStore.write(source, folder, shard_tokens=100, verbose=False)
        ActivationStore(blocks.2.hook_resid_post: 196 tokens in 2 shards)
    """

    @checked
    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = _read_index(self.folder)
        self.names: tuple[str, ...] = tuple(index["names"])
        self.fingerprint: str = index["fingerprint"]
        self.shards = sorted(self.folder.glob("shard_*.safetensors"))
        missing = [one for place, one in enumerate(self.shards) if one.name != _shard(place)]
        if missing:
            raise ArgumentError(
                f"{folder} lacks the shard before {missing[0].name}: write the activations again with "
                f"the same call, which goes on where shards are missing"
            )
        self._notes = [_notes(path) for path in self.shards]
        self.tokens: int = sum(note["tokens"] for note in self._notes)
        if not self.tokens:
            raise ArgumentError(
                f"{folder} has no shard of activations yet: write them with the same call again"
            )
        if index.get("tokens") != self.tokens:
            warn(
                f"{folder} has {counted(self.tokens, 'token')} and was not written to its end, or by toumei "
                "0.2.0, which did not note the end: write it with the same call again, which adds what is "
                "missing"
            )

    @classmethod
    @checked
    def write(
        cls,
        source: ActivationSource,
        folder: str | Path,
        *,
        shard_tokens: int = 2**15,
        dtype: torch.dtype = torch.float32,
        jobs: int = 1,
        verbose: bool = True,
    ) -> "ActivationStore":
        """Writes the activations of a source to a folder, and returns the store.

        Shards that are there already stay, so a call that was killed goes on where it was: the texts of the
        shards are compared with those of the corpus, and the model does not run on them again.

        Args:
            source: The activations.
            folder: Where to write; it is made where it is missing.
            shard_tokens: A shard ends with the pass in which it gets so many tokens.
            dtype: The precision of the numbers on disk: float32, float16 or bfloat16.
            jobs: How many passes run at once, in processes or on a cluster; see `toumei.core.sweep`. Any
                number writes the same shards.
            verbose: Show a progress bar.

        Raises:
            ArgumentError: The folder has activations of other names, texts, settings or weights; the corpus
                is empty.
        """
        check_counts(1, shard_tokens=shard_tokens)
        if dtype not in _DTYPES.values():
            raise ArgumentError(f"activations are stored as {', '.join(_DTYPES)}, got {dtype}")
        check_jobs(jobs)
        writer = _Writer(source, Path(folder), shard_tokens, dtype)
        task = partial(activations_of, source.model, source.names)
        with tqdm(
            desc="activations", unit="token", total=source.batches.max_tokens, disable=not verbose
        ) as bar:
            batches = iter(source.batches)
            while writer.passes_over and (batch := next(batches, None)) is not None:
                bar.update(writer.add(batch, None))
            with closing(streamed(task, batches, jobs=jobs)) as found:
                for batch, block in found:
                    bar.update(writer.add(batch, block))
        writer.finish()
        return cls(folder)

    @checked
    def blocks(self, seed: int = 0) -> Iterator[Block]:
        """Yields the activations of each shard by their names, (tokens, width), shards in random order."""
        order = list(self.shards)
        random.Random(seed).shuffle(order)
        for path in order:
            yield _read_shard(path, self.names)

    def __len__(self) -> int:
        return self.tokens

    def __repr__(self) -> str:
        tokens = f"{counted(self.tokens, 'token')} in {counted(len(self.shards), 'shard')}"
        return f"ActivationStore({listed(self.names)}: {tokens})"


class _Writer:
    """Writes shards, and passes over those that are there."""

    def __init__(self, source: ActivationSource, folder: Path, shard_tokens: int, dtype: torch.dtype) -> None:
        self.source, self.folder, self.most, self.dtype = source, folder, shard_tokens, dtype
        batches = source.batches
        self.index: dict[str, Any] = {
            "version": _VERSION,
            "names": list(source.names),
            "fingerprint": source.fingerprint,
            "dtype": next(name for name, one in _DTYPES.items() if one == dtype),
            "shard_tokens": shard_tokens,
            "length": batches.length,
            "batch_size": batches.batch_size,
            "skip_first": batches.skip_first,
        }
        if (folder / _INDEX).exists():
            _check_same(_read_index(folder), self.index, folder)
        else:
            self._write_index(self.index)
        self.corpus = ""
        self.shard = 0
        self.blocks: list[Block] = []
        self.tokens = self.passes = self.tokens_of_shards = 0
        self._known = self._next_known()

    def _path(self) -> Path:
        return self.folder / _shard(self.shard)

    def _next_known(self) -> dict[str, Any] | None:
        return _notes(self._path()) if self._path().exists() else None

    @property
    def passes_over(self) -> bool:
        """Whether the next batch is in a shard that is there already."""
        return self._known is not None

    def add(self, batch: TokenBatch, block: Block | None) -> int:
        """Adds a batch, with its activations unless they are known; returns how many tokens count."""
        self.corpus = hashlib.sha256(f"{self.corpus} {batch.ids.tolist()}".encode()).hexdigest()
        count = int(batch.counted.sum())
        if self._known is None:
            assert block is not None
            self.blocks.append({name: one.to(self.dtype) for name, one in block.items()})
        self.tokens += count
        self.passes += 1
        if self._known is not None and self.passes == self._known["passes"]:
            if self._known["corpus"] != self.corpus or self._known["tokens"] != self.tokens:
                raise ArgumentError(
                    f"{self._path()} was made of other texts or tokens: give another folder, or remove it"
                )
            self._begin_next()
        elif self._known is None and self.tokens >= self.most:
            self.close()
        return count

    def finish(self) -> None:
        """Writes what is left as a shard, and notes that there is nothing more to come."""
        self.close()
        self._write_index({**self.index, "tokens": self.tokens_of_shards})

    def _write_index(self, index: dict[str, Any]) -> None:
        with atomic_write(self.folder / _INDEX) as partial:
            partial.write_text(json.dumps(index), encoding="utf-8")

    def close(self) -> None:
        """Writes what is left as a shard."""
        if self._known is not None:
            raise ArgumentError(
                f"{self._path()} was made of more texts than there are now: give another folder, or remove it"
            )
        if not self.blocks:
            return
        values = {name: torch.cat([block[name] for block in self.blocks]) for name in self.source.names}
        notes = {"tokens": self.tokens, "passes": self.passes, "corpus": self.corpus}
        with atomic_write(self._path()) as partial:
            write_safetensors(values, partial, {_KEY: json.dumps(notes)})
        self._begin_next()

    def _begin_next(self) -> None:
        self.shard += 1
        self.tokens_of_shards += self.tokens
        self.blocks, self.tokens, self.passes = [], 0, 0
        self._known = self._next_known()


def _shard(place: int) -> str:
    """The name of the file of a shard."""
    return f"shard_{place:05d}.safetensors"


def _check_same(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ArgumentError(
                f"{folder} has activations whose {name} is {found.get(name)!r}, wanted is {value!r}: give "
                f"another folder, or remove it"
            )


def _read_index(folder: Path) -> dict[str, Any]:
    """The index of a folder.

    Raises:
        ArgumentError: There is none, or it is damaged.
    """
    path = folder / _INDEX
    try:
        index: dict[str, Any] = from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArgumentError(f"{folder} has no activations: there is no {_INDEX} in it") from None
    except (ValueError, OSError) as error:
        raise ArgumentError(f"{path} is damaged: {error}") from error
    names = index.get("names") if isinstance(index, dict) else None
    named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not named or not isinstance(index.get("fingerprint"), str):
        raise ArgumentError(f"{path} is damaged: it should name activations and a model")
    if index.get("version") != _VERSION:
        raise ArgumentError(f"{path} has version {index.get('version')!r}, this toumei reads {_VERSION}")
    return index


def _notes(path: Path) -> dict[str, Any]:
    """What a shard says of itself."""
    safetensors = require("safetensors", "reading activations")
    try:
        with safetensors.safe_open(path, "pt") as file:
            notes = from_json((file.metadata() or {})[_KEY])
        if not all(type(notes[name]) is int for name in ("tokens", "passes")) or "corpus" not in notes:
            raise ValueError("its notes are no counts of a corpus")
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
        raise ArgumentError(
            f"{path} is damaged, remove it and write the activations again: {error}"
        ) from error
    return dict(notes)


def _read_shard(path: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    safetensors = require("safetensors", "reading activations")
    try:
        with safetensors.safe_open(path, "pt") as file:
            return tensors_of(file, names, copied=False)
    except (safetensors.SafetensorError, OSError) as error:
        raise ArgumentError(
            f"{path} is damaged, remove it and write the activations again: {error}"
        ) from error
