"""Memories as an SQLite database, which is queried without reading it whole."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError, LayerError, UnitError
from ...core.files import check_regular
from ...core.summaries import counted, line_of, listed
from .neuron_memory import Trigger
from .tables import APPLICATION, VERSION


@dataclass(frozen=True)
class StoreStats:
    """What a store holds.

    Attributes:
        layers: How many neurons each layer has, by its name.
        texts: How many texts trigger some neuron.
        triggers: How many triggers there are.
        read: How many texts were read.
        prefixes: How many prefixes counted.
        cut: How many texts were cut off.
        strategy: ``"prefix"`` or ``"cls"``.
    """

    layers: Mapping[str, int]
    texts: int
    triggers: int
    read: int
    prefixes: int
    cut: int
    strategy: str

    __repr__ = line_of


@checked
class MemoryStore:
    """The memories in a database that `Memories.save_sqlite` wrote.

    Each query opens the file, reads, and closes it.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ArgumentError: It is no such database, or a damaged one.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from toumei.instrument.memories.key_value_memories import KeyValueMemories
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> memories = KeyValueMemories(model, tokenizer, ["transformer.h.2.mlp.c_proj"], verbose=False)
        >>> with TemporaryDirectory() as folder:
        ...     memories([fact.text for fact in world.facts[:20]]).save_sqlite(f"{folder}/memories.db")
        ...     store = MemoryStore(f"{folder}/memories.db")
        ...     store.stats().layers, len(store.key_sentences(0, neuron=3, limit=4))
        ({'transformer.h.2.mlp.c_proj': 512}, 4)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        check_regular(self.path, "read")
        ((application,),) = self._rows("PRAGMA application_id")
        ((version,),) = self._rows("PRAGMA user_version")
        if (application, version) != (APPLICATION, VERSION):
            raise ArgumentError(f"{path} is no store of memories that this toumei can read")
        self._layers = self._rows("SELECT name, neurons FROM layers ORDER BY layer")

    def stats(self) -> StoreStats:
        """Returns what the store holds."""
        facts = dict(self._rows("SELECT name, value FROM facts"))
        counts = {table: self._rows(f"SELECT count(*) FROM {table}")[0][0] for table in ("texts", "triggers")}
        return StoreStats(layers=dict(self._layers), **counts, **facts)

    @checked
    def key_sentences(self, layer: int | str, neuron: int, limit: int | None = None) -> tuple[Trigger, ...]:
        """Returns the texts that trigger a neuron, those with the largest absolute z first.

        Args:
            layer: The name of its layer, or the place of that among the layers.
            neuron: Its number in the layer.
            limit: Most texts; by default all.

        Raises:
            LayerError: There is no such layer.
            UnitError: The layer has no such neuron.
        """
        check_counts(1, limit=limit)
        place = self._place(layer, neuron)
        rows = self._rows(
            "SELECT texts.content, triggers.text, position, value, z, start, finish, vocabulary.content, "
            "after.content FROM triggers JOIN texts USING (text) JOIN vocabulary USING (token) "
            "LEFT JOIN vocabulary AS after ON after.token = next_token "
            "WHERE layer = ? AND neuron = ? ORDER BY abs(z) DESC, tail, rank LIMIT ?",
            (place, neuron, -1 if limit is None else limit),
        )
        return tuple(
            Trigger.at(
                text,
                number,
                position=position,
                value=value,
                z=z,
                span=(start, end),
                token=token,
                next_token=following,
            )
            for text, number, position, value, z, start, end, token, following in rows
        )

    @checked
    def key_heatmap(self, layer: int | str, sigma: float = 3.0) -> Tensor:
        """Returns how many triggers of each neuron have an absolute z above sigma, (neurons,).

        A neuron has at most as many as texts were kept for it, twice that in gated layers.

        Args:
            layer: The name of the layer, or its place among the layers.
            sigma: The least number of standard deviations.

        Raises:
            LayerError: There is no such layer.
        """
        place = self._place(layer, 0)
        counts = torch.zeros(self._layers[place][1], dtype=torch.long)
        query = "SELECT neuron, count(*) FROM triggers WHERE layer = ? AND abs(z) > ? GROUP BY neuron"
        for neuron, count in self._rows(query, (place, sigma)):
            counts[neuron] = count
        return counts

    def _place(self, layer: int | str, neuron: int) -> int:
        names = [name for name, _ in self._layers]
        place = names.index(layer) if layer in names else layer
        if not isinstance(place, int) or not 0 <= place < len(names):
            raise LayerError(
                f"no layer {layer!r}: there are {listed(names)}, or numbers from 0 to {len(names) - 1}"
            )
        if not 0 <= neuron < self._layers[place][1]:
            raise UnitError(
                f"layer {names[place]!r} has neurons 0 to {self._layers[place][1] - 1}, got {neuron}"
            )
        return place

    def _rows(self, query: str, arguments: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                return connection.execute(query, arguments).fetchall()
        except sqlite3.Error as error:
            raise ArgumentError(
                f"{self.path} is no store of memories that this toumei can read: {error}"
            ) from error

    def __repr__(self) -> str:
        neurons = sum(count for _, count in self._layers)
        return (
            f"MemoryStore({self.path.name}: {counted(len(self._layers), 'layer')}, "
            f"{counted(neurons, 'neuron', form=',')})"
        )
