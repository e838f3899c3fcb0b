"""The tables of a database of memories.

`layers` (layer, name, neurons), `neurons` (layer, neuron, mean, deviation), `texts` (text, content), where
text is the number in the corpus, `vocabulary` (token, content), `triggers` (layer, neuron, tail, rank, text,
position, value, z, start, finish, token, next_token), with the characters of the token that ends the prefix,
`promoted` (layer, neuron, tail, rank, token, probability), and `facts` (name, value).
"""

import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...core.files import atomic_write
from .layer_memories import LayerMemories
from .trigger_texts import TriggerTexts

APPLICATION, VERSION = 0x746F756D, 1
"""What tells such a database from others, and the version of its tables."""

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE layers (layer INTEGER PRIMARY KEY, name TEXT, neurons INTEGER);
CREATE TABLE texts (text INTEGER PRIMARY KEY, content TEXT);
CREATE TABLE vocabulary (token INTEGER PRIMARY KEY, content TEXT);
CREATE TABLE neurons (layer INTEGER, neuron INTEGER, mean REAL, deviation REAL, PRIMARY KEY (layer, neuron))
    WITHOUT ROWID;
CREATE TABLE triggers (layer INTEGER, neuron INTEGER, tail TEXT, rank INTEGER, text INTEGER, position INTEGER,
    value REAL, z REAL, start INTEGER, finish INTEGER, token INTEGER, next_token INTEGER,
    PRIMARY KEY (layer, neuron, tail, rank)) WITHOUT ROWID;
CREATE TABLE promoted (layer INTEGER, neuron INTEGER, tail TEXT, rank INTEGER, token INTEGER,
    probability REAL, PRIMARY KEY (layer, neuron, tail, rank)) WITHOUT ROWID;
CREATE INDEX promoted_token ON promoted (token, probability);
"""


def save_store(
    layers: Sequence[LayerMemories], corpus: TriggerTexts, facts: Mapping[str, Any], path: str | Path
) -> None:
    """Writes the database of `MemoryStore`, whole or not at all.

    Args:
        layers: The memories.
        corpus: The texts that trigger them.
        facts: What else is to be remembered.
        path: File to write.

    Raises:
        OSError: The file cannot be written.
    """
    # SQLite needs a file that has a name until it is open
    with atomic_write(path) as partial, TemporaryDirectory() as folder:
        made = Path(folder, "memories.db")
        try:
            with closing(sqlite3.connect(made)) as connection, ExitStack() as opened:
                connection.executescript(
                    f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
                    f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_TABLES}"
                )
                source = opened.enter_context(made.open("rb"))
                _take_name(made)
                _fill(connection, layers, corpus, facts)
                connection.commit()
                with partial.open("wb") as target:
                    shutil.copyfileobj(source, target)
        except sqlite3.OperationalError as error:  # what SQLite makes of a full disk
            raise OSError(f"cannot write {str(path)!r}: {error}") from error


def _take_name(made: Path) -> None:
    """Removes the name of an open file and its folder: nothing is left of it if the process is killed."""
    with suppress(OSError):  # some systems keep the names of open files
        made.unlink()
        made.parent.rmdir()


def _fill(
    connection: sqlite3.Connection,
    layers: Sequence[LayerMemories],
    corpus: TriggerTexts,
    facts: Mapping[str, Any],
) -> None:
    tables: dict[str, Any] = {
        "facts": facts.items(),
        "vocabulary": enumerate(corpus.vocabulary),
        "texts": zip(corpus.numbers.tolist(), corpus.texts, strict=True),
        "layers": ((place, layer.name, len(layer)) for place, layer in enumerate(layers)),
        "neurons": (row for place, layer in enumerate(layers) for row in _neurons(place, layer)),
        "triggers": (row for place, layer in enumerate(layers) for row in _triggers(place, layer, corpus)),
        "promoted": (row for place, layer in enumerate(layers) for row in _promoted(place, layer)),
    }
    for table, rows in tables.items():
        columns = connection.execute(f"SELECT * FROM {table} LIMIT 0").description
        marks = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)


def _neurons(place: int, layer: LayerMemories) -> Iterator[tuple[Any, ...]]:
    pairs = zip(layer.mean.tolist(), layer.variance.sqrt().tolist(), strict=True)
    return ((place, neuron, *pair) for neuron, pair in enumerate(pairs))


def _triggers(place: int, layer: LayerMemories, corpus: TriggerTexts) -> Iterator[tuple[Any, ...]]:
    for tail, triggers, _ in layer.tails():
        there = triggers.texts >= 0
        neuron, rank = there.nonzero(as_tuple=True)
        numbers = corpus.numbers[triggers.texts[there].long()]
        starts, ends, tokens, following = (column[there].tolist() for column in corpus.places(triggers))
        columns = (
            numbers,
            triggers.positions[there],
            triggers.values[there],
            layer.z(triggers.values)[there],
        )
        for first, second, *rest, after in zip(
            neuron.tolist(),
            rank.tolist(),
            *(column.tolist() for column in columns),
            starts,
            ends,
            tokens,
            following,
            strict=True,
        ):
            yield place, first, tail, second, *rest, None if after < 0 else after


def _promoted(place: int, layer: LayerMemories) -> Iterator[tuple[Any, ...]]:
    for tail, _, found in layer.tails():
        if found is not None:
            rows = zip(found.tokens.tolist(), found.probabilities.tolist(), strict=True)
            for neuron, (tokens, shares) in enumerate(rows):
                for rank, pair in enumerate(zip(tokens, shares, strict=True)):
                    yield place, neuron, tail, rank, *pair
