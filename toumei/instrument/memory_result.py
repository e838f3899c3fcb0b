"""The memories of the feed-forward layers of a model: what triggers each neuron and what it promotes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..core.checks import checked
from ..core.errors import ArgumentError, LayerError, UnitError
from ..core.serialization import Saved
from ..core.summaries import listed
from ..core.tensor_specs import Spec, specs
from ..plots.html import save_page
from .agreement import Agreement, agreement_of


from .neuron_memory import NeuronMemory, Trigger
from .triggers import Triggers
from .value_distributions import ValueDistributions


@dataclass(frozen=True, repr=False, eq=False)
class LayerMemories:
    """The memories of one layer.

    Attributes:
        name: The name of its down projection.
        mean: The mean coefficient of each neuron over all prefixes, (neurons,), float64.
        variance: The unbiased variances, (neurons,), float64.
        highest: The prefixes with the highest coefficients; their texts are rows of the texts of `Memories`.
        lowest: Those with the lowest ones, of gated layers.
        promoted: What the values promote, None where it was not asked for.
        lowered: What the negative values promote, of gated layers.
    """

    name: str
    mean: Tensor
    variance: Tensor
    highest: Triggers
    lowest: Triggers | None
    promoted: ValueDistributions | None
    lowered: ValueDistributions | None

    _specs = specs(mean="neurons", variance="neurons")

    def __len__(self) -> int:
        return len(self.mean)

    def z(self, values: Tensor) -> Tensor:
        """Returns how many standard deviations coefficients (neurons, ...) are above the mean of their neuron.

        It is 0 for a neuron that never changes.
        """
        shape = (-1, *(1,) * (values.dim() - 1))
        above = values.double() - self.mean.view(shape)
        deviation = self.variance.sqrt().nan_to_num(0.0).view(shape)
        return torch.where(deviation > 0, above / deviation.clamp(min=1e-300), 0.0)

    def tails(self) -> list[tuple[str, Triggers]]:
        """Returns the triggers by their names, ``highest`` and ``lowest``."""
        both = (("highest", self.highest), ("lowest", self.lowest))
        return [(name, triggers) for name, triggers in both if triggers is not None]


@dataclass(frozen=True, repr=False, eq=False)
class Memories(Saved):
    """The memories of some feed-forward layers, from a pass over texts.

    Attributes:
        layers: The memories of each layer.
        texts: The texts that trigger some neuron.
        numbers: Their numbers in the corpus, (texts,).
        starts: Where the tokens of each text begin in `ids`, and the end of the last, (texts + 1,).
        ids: The tokens of all texts one after another.
        ends: The character of its text at which each token ends.
        vocabulary: The text of each token.
        strategy: ``"prefix"`` if every token counted, ``"cls"`` if only the first of each text.
        read: How many texts were read.
        prefixes: How many prefixes counted.
        cut: How many texts were cut off because they were too long.
    """

    layers: tuple[LayerMemories, ...]
    texts: tuple[str, ...]
    numbers: Tensor
    starts: Tensor
    ids: Tensor
    ends: Tensor
    vocabulary: tuple[str, ...]
    strategy: str
    read: int
    prefixes: int
    cut: int

    _specs = specs(
        numbers=Spec("texts", "integer"),
        texts="texts",
        starts=Spec("_", "integer"),
        ids=Spec("tokens", "integer"),
        ends=Spec("tokens", "integer"),
    )

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the layers."""
        return tuple(layer.name for layer in self.layers)

    def layer(self, layer: int | str) -> LayerMemories:
        """Returns the memories of a layer, by its name or its place among the layers.

        Raises:
            LayerError: There is no such layer.
        """
        names = self.names
        place = names.index(layer) if isinstance(layer, str) and layer in names else layer
        if not isinstance(place, int) or not -len(names) <= place < len(names):
            raise LayerError(
                f"no layer {layer!r}: there are {listed(names)}, or numbers from 0 to {len(names) - 1}"
            )
        return self.layers[place]

    @checked
    def neuron(self, layer: int | str, index: int) -> NeuronMemory:
        """Returns one neuron: the texts that trigger it and the tokens that it promotes.

        Args:
            layer: The name of its layer, or the place of it among the layers.
            index: Its number in the layer.

        Raises:
            LayerError: There is no such layer.
            UnitError: The layer has no such neuron.
        """
        found = self.layer(layer)
        if not 0 <= index < len(found):
            raise UnitError(f"layer {found.name!r} has neurons 0 to {len(found) - 1}, got {index}")
        triggers = {
            name: tuple(self._triggers(found, kept, index)) if kept else ()
            for name, kept in (("highest", found.highest), ("lowest", found.lowest))
        }
        return NeuronMemory(
            layer=found.name,
            index=index,
            triggers=triggers["highest"],
            lowest=triggers["lowest"],
            promoted=self._words(found.promoted, index),
            lowered=self._words(found.lowered, index),
            mean=float(found.mean[index]),
            deviation=float(found.variance[index].sqrt()),
        )

    def next_tokens(self, triggers: Triggers) -> Tensor:
        """Returns the tokens that follow triggers, (neurons, count), -1 where a text ends or there is none."""
        ends = self.starts[1:]
        place = self.starts[triggers.texts.long()] + triggers.positions.long() + 1
        there = (triggers.texts >= 0) & (place < ends[triggers.texts.long().clamp(min=0)])
        return torch.where(there, self.ids[place.clamp(max=len(self.ids) - 1)].long(), -1)

    @cached_property
    def agreement(self) -> Agreement:
        """How often a value promotes the token that follows the neuron's strongest trigger, by layer.

        Raises:
            ArgumentError: What the values promote was not asked for.
        """
        return self._agreement("highest", "promoted")

    @cached_property
    def lowest_agreement(self) -> Agreement:
        """The same of gated layers for the lowest coefficients and the negative values.

        Raises:
            ArgumentError: No layer is gated, or what the values promote was not asked for.
        """
        return self._agreement("lowest", "lowered")

    @checked
    def save_html(self, path: str | Path, *, triggers: int = 5) -> None:
        """Writes a page to browse the neurons, which needs no other file. It is written whole or not at all.

        Args:
            path: File to write.
            triggers: How many triggers of each neuron the page has.
        """
        save_page(memory_page(self, triggers), path)

    @checked
    def save_sqlite(self, path: str | Path) -> None:
        """Writes an SQLite database for `MemoryStore`. It is written whole or not at all."""
        save_store(self, path)

    def _agreement(self, tail: str, read: str) -> Agreement:
        found = {}
        for layer in self.layers:
            triggers, values = getattr(layer, tail), getattr(layer, read)
            if triggers is not None and values is not None:
                following = self.next_tokens(triggers)[:, 0]
                found[layer.name] = values.tokens[:, 0], following, values.ranks
        if not found:
            raise ArgumentError(
                f"no layer has {tail} triggers and {read} tokens: agreement needs promoted=1 or more"
                + (", and gated layers" if tail == "lowest" else "")
            )
        return agreement_of(found, len(self.vocabulary))

    def _triggers(self, layer: LayerMemories, kept: Triggers, index: int) -> Sequence[Trigger]:
        scores, following = layer.z(kept.values)[index], self.next_tokens(kept)[index]
        found = []
        for row, position, value, score, after in zip(
            kept.texts[index].tolist(),
            kept.positions[index].tolist(),
            kept.values[index].tolist(),
            scores.tolist(),
            following.tolist(),
            strict=True,
        ):
            if row >= 0:
                prefix, token = self._prefix(row, position)
                found.append(
                    Trigger(
                        text=self.texts[row],
                        number=int(self.numbers[row]),
                        position=position,
                        value=value,
                        z=score,
                        prefix=prefix,
                        token=token,
                        next_token=None if after < 0 else self.vocabulary[after],
                    )
                )
        return found

    def _prefix(self, row: int, position: int) -> tuple[str, str]:
        """A text up to a token, and the token."""
        place = int(self.starts[row]) + position
        end = int(self.ends[place])
        start = int(self.ends[place - 1]) if position else 0
        text = self.texts[row]
        return text[:end], text[start:end] or self.vocabulary[int(self.ids[place])]

    def _words(self, values: ValueDistributions | None, index: int) -> tuple[tuple[str, float], ...]:
        if values is None:
            return ()
        tokens = (self.vocabulary[token] for token in values.tokens[index].tolist())
        return tuple(zip(tokens, values.probabilities[index].tolist(), strict=True))

    def __repr__(self) -> str:
        neurons = sum(map(len, self.layers))
        return (
            f"Memories({len(self.layers)} layers, {neurons:,} neurons, {self.prefixes:,} prefixes of "
            f"{self.read:,} texts)"
        )
