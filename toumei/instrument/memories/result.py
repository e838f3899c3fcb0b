"""The memories of the feed-forward layers of a model: what triggers each neuron and what it promotes."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...core.checks import checked
from ...core.errors import ArgumentError, LayerError, UnitError
from ...core.serialization import Saved
from ...core.summaries import counted, listed
from ...plots.html import save_page
from .agreement import Agreement, agreement_of
from .layer_memories import LayerMemories
from .neuron_memory import NeuronMemory
from .page import browsing_page
from .tables import save_store
from .trigger_texts import TriggerTexts
from .value_distributions import ValueDistributions


@dataclass(frozen=True, repr=False, eq=False)
class Memories(Saved):
    """The memories of some feed-forward layers, from a pass over texts.

    Attributes:
        layers: The memories of each layer.
        corpus: The texts that trigger some neuron.
        strategy: ``"prefix"`` if every token counted, ``"cls"`` if only the first of each text.
        read: How many texts were read.
        prefixes: How many prefixes counted.
        cut: How many texts were cut off because they were too long.

    Example:
        >>> from toumei.instrument import KeyValueMemories
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> texts = [fact.text for fact in world.facts[:6]]
        >>> layers = ["transformer.h.2.mlp.c_proj"]
        >>> KeyValueMemories(model, tokenizer, layers, triggers=2, verbose=False)(texts)
        Memories(1 layer, 512 neurons, 43 prefixes of 6 texts)
    """

    layers: tuple[LayerMemories, ...]
    corpus: TriggerTexts
    strategy: str
    read: int
    prefixes: int
    cut: int

    def __len__(self) -> int:
        return len(self.layers)

    @checked
    def layer(self, layer: int | str) -> LayerMemories:
        """Returns the memories of a layer, by its name or its place among the layers.

        Raises:
            LayerError: There is no such layer.
        """
        names = [one.name for one in self.layers]
        place = names.index(layer) if layer in names else layer
        if not isinstance(place, int) or not 0 <= place < len(names):
            raise LayerError(
                f"no layer {layer!r}: there are {listed(names)}, or numbers from 0 to {len(names) - 1}"
            )
        return self.layers[place]

    @checked
    def neuron(self, layer: int | str, index: int) -> NeuronMemory:
        """Returns one neuron: the texts that trigger it and the tokens that it promotes.

        Args:
            layer: The name of its layer, or the place of that among the layers.
            index: Its number in the layer.

        Raises:
            LayerError: There is no such layer.
            UnitError: The layer has no such neuron.
        """
        found = self.layer(layer)
        if not 0 <= index < len(found):
            raise UnitError(f"layer {found.name!r} has neurons 0 to {len(found) - 1}, got {index}")
        tails = [
            self.corpus.triggers(triggers, index, found.z(triggers.values))
            for _, triggers, _ in found.tails()
        ]
        return NeuronMemory(
            layer=found.name,
            index=index,
            triggers=tails[0],
            lowest=tails[1] if len(tails) > 1 else (),
            promoted=self._words(found.promoted, index),
            lowered=self._words(found.lowered, index),
            mean=float(found.mean[index]),
            deviation=float(found.variance[index].sqrt()),
        )

    @cached_property
    def agreement(self) -> Agreement:
        """How often a value promotes the token that follows the neuron's strongest trigger, by layer.

        Raises:
            ArgumentError: What the values promote was not asked for.
        """
        return self._agreement("highest")

    @cached_property
    def lowest_agreement(self) -> Agreement:
        """The same of gated layers, for the lowest coefficients and the negative values.

        Raises:
            ArgumentError: No layer is gated, or what the values promote was not asked for.
        """
        return self._agreement("lowest")

    @checked
    def save_html(self, path: str | Path, *, triggers: int = 5) -> None:
        """Writes a page to browse the neurons, which needs no other file. It is written whole or not at all.

        Args:
            path: File to write.
            triggers: How many triggers of each neuron the page has.
        """
        save_page(browsing_page(self.layers, self.corpus, triggers, repr(self)), path)

    @checked
    def save_sqlite(self, path: str | Path) -> None:
        """Writes an SQLite database for `MemoryStore`. It is written whole or not at all.

        Args:
            path: File to write.
        """
        facts = {"strategy": self.strategy, "read": self.read, "prefixes": self.prefixes, "cut": self.cut}
        save_store(self.layers, self.corpus, facts, path)

    def _agreement(self, tail: str) -> Agreement:
        found = {
            layer.name: (
                distributions.tokens[:, 0],
                self.corpus.places(triggers).following[:, 0],
                distributions.ranks,
            )
            for layer in self.layers
            for name, triggers, distributions in layer.tails()
            if name == tail and distributions is not None
        }
        if not found:
            gated = ", and gated layers" if tail == "lowest" else ""
            raise ArgumentError(f"agreement needs the tokens that values promote: promoted=1 or more{gated}")
        return agreement_of(found, len(self.corpus.vocabulary))

    def _words(self, values: ValueDistributions | None, index: int) -> tuple[tuple[str, float], ...]:
        if values is None:
            return ()
        tokens = (self.corpus.vocabulary[token] for token in values.tokens[index].tolist())
        return tuple(zip(tokens, values.probabilities[index].tolist(), strict=True))

    def __repr__(self) -> str:
        neurons = sum(map(len, self.layers))
        return (
            f"Memories({counted(len(self.layers), 'layer')}, {counted(neurons, 'neuron', form=',')}, "
            f"{counted(self.prefixes, 'prefix', form=',')} of {counted(self.read, 'text', form=',')})"
        )
