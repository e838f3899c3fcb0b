"""Key-value memories under the names of fMRAi: batches that the user runs are tracked one by one."""

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ...core.blocks import block
from ...core.checks import check_counts, checked
from ...core.errors import ArchitectureError, ArgumentError, LayerError, ShapeError, UnitError
from ...core.hooks import hooked
from ...core.interrupts import uninterrupted
from ...core.kinds import shown
from ...core.modules import check_model, layer_name, without_wrapper
from ...core.summaries import counted
from ..fmrai_names import current_scope
from .coefficient_reader import CoefficientReader, KeptTexts
from .default_layers import FeedForwardLayers
from .down_projections import find_down_projections
from .layer_memories import LayerMemories
from .text_batches import token_texts


class KeyValueMaxSearchStrategy(str, Enum):
    """Which prefixes count: all of a text, or its first token alone.

    Example:
        >>> [strategy.name for strategy in KeyValueMaxSearchStrategy]
        ['PREFIX', 'CLS']
    """

    PREFIX = "prefix"
    CLS = "cls"


class FeedForwardSource(Protocol):
    """A model and the names of the last linear maps of its feed-forward layers."""

    @property
    def model(self) -> nn.Module:
        """The model that the user runs."""

    @property
    def down_projections(self) -> Sequence[str]:
        """The names of its down projections."""


class NeuronKVRecord(NamedTuple):
    """A text that triggers a neuron.

    Attributes:
        instance_idx: The number of the text among all that were tracked.
        prefix_idx: The last token of the prefix, counted from 0 among the tokens that are no padding.
        value: The coefficient.
        z: How many standard deviations that is above the neuron's mean over all prefixes.

    Example:
        >>> NeuronKVRecord(instance_idx=0, prefix_idx=1, value=2.5, z=3.0).z
        3.0
    """

    instance_idx: int
    prefix_idx: int
    value: float
    z: float


class KVResults:
    """What triggers each neuron.

    Attributes:
        tokenization: The tokens of each text that triggers some neuron, by its number; None if no tokenizer
            was given.

    Example:
        >>> from types import SimpleNamespace
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> source = SimpleNamespace(model=model, down_projections=["transformer.h.2.mlp.c_proj"])
        >>> analyzer = KeyValueAnalyzer(KeyValueMaxSearchStrategy.PREFIX, max_entries=3, source=source)
        >>> with analyzer.track_batch():
        ...     output = model(**tokenizer(world.facts[0].text, return_tensors="pt"))
        >>> results = analyzer.analyze()
        >>> results.keys()[:2], results.get(0, 17)[0].instance_idx
        ([(0, 0), (0, 1)], 0)
    """

    def __init__(
        self,
        layers: Sequence[LayerMemories],
        numbers: Sequence[int],
        max_entries: int,
        tokenization: dict[int, tuple[str, ...]] | None,
    ) -> None:
        self._layers, self._numbers, self._max_entries = layers, numbers, max_entries
        self._z = [[layer.z(triggers.values) for _, triggers, _ in layer.tails()] for layer in layers]
        self.tokenization = tokenization

    def keys(self) -> list[tuple[int, int]]:
        """Returns all pairs of a layer and a neuron, each counted from 0."""
        return [(place, neuron) for place, layer in enumerate(self._layers) for neuron in range(len(layer))]

    @checked
    def get(self, layer: int, neuron: int) -> list[NeuronKVRecord]:
        """Returns the texts that trigger a neuron, those with the largest absolute coefficients first.

        In gated layers a text can come twice, with its highest and with its lowest coefficient.

        Raises:
            LayerError: There is no such layer.
            UnitError: The layer has no such neuron.
        """
        if not 0 <= layer < len(self._layers):
            raise LayerError(f"no layer {layer}: there are layers 0 to {len(self._layers) - 1}")
        found = self._layers[layer]
        if not 0 <= neuron < len(found):
            raise UnitError(f"layer {layer} has neurons 0 to {len(found) - 1}, got {neuron}")
        records = []
        for (_, triggers, _), z in zip(found.tails(), self._z[layer], strict=True):
            columns = (triggers.texts, triggers.positions, triggers.values, z)
            rows = zip(*(column[neuron].tolist() for column in columns), strict=True)
            records += [NeuronKVRecord(self._numbers[text], *rest) for text, *rest in rows if text >= 0]
        return sorted(records, key=lambda record: -abs(record.value))[: self._max_entries]

    def __repr__(self) -> str:
        neurons = sum(map(len, self._layers))
        return (
            f"KVResults({counted(len(self._layers), 'layer')}, {counted(neurons, 'neuron', form=',')}, "
            f"{counted(len(self._numbers), 'text', form=',')})"
        )


@checked
class KeyValueAnalyzer:
    """Finds what triggers the neurons of feed-forward layers in batches that the user runs.

    `toumei.instrument.memories.key_value_memories.KeyValueMemories` also says what the values promote.

    Args:
        strategy: Which prefixes count.
        max_entries: How many texts are kept for each neuron.
        source: The model and its down projections; by default those of the model that was instrumented in the
            innermost block of `toumei.instrument.fmrai`.

    Raises:
        ArchitectureError: The model has no input embedding, where the tokens are seen.

    Example:
        >>> from types import SimpleNamespace
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> source = SimpleNamespace(model=model, down_projections=["transformer.h.2.mlp.c_proj"])
        >>> analyzer = KeyValueAnalyzer(KeyValueMaxSearchStrategy.PREFIX, max_entries=3, source=source)
        >>> inputs = tokenizer([fact.text for fact in world.facts[:8]], padding=True, return_tensors="pt")
        >>> with analyzer.track_batch(attention_mask=inputs.attention_mask):
        ...     output = model(**inputs)
        >>> len(analyzer.analyze(tokenizer=tokenizer).get(0, 17))
        3
    """

    def __init__(
        self,
        strategy: KeyValueMaxSearchStrategy,
        *,
        max_entries: int = 10,
        source: FeedForwardSource | None = None,
    ) -> None:
        check_counts(1, max_entries=max_entries)
        source = FeedForwardLayers(current_scope().probe.model) if source is None else source
        self.strategy, self.max_entries = strategy, max_entries
        if not (hasattr(source, "model") and hasattr(source, "down_projections")):
            raise ArgumentError(f"expected a source with model and down_projections, got {shown(source)}")
        check_model(source.model)
        self._model = source.model
        gated = source.gated if isinstance(source, FeedForwardLayers) else None
        projections = find_down_projections(self._model, source.down_projections, gated)
        self._names = [projection.name for projection in projections]
        self._embedding = _embedding(self._model)
        self._reader = CoefficientReader(projections, strategy.value, max_entries)
        self._kept = KeptTexts[tuple[int, ...]](self._reader)
        self._tracked = 0

    @block
    @checked
    def track_batch(self, *, attention_mask: Tensor | None = None) -> Iterator[None]:
        """Tracks the forward pass of the model in the block; of several the last one counts.

        A block that raises an error adds nothing.

        Args:
            attention_mask: (texts, tokens), 1 for tokens and 0 for padding; by default there is no padding.

        Raises:
            UnreachedLayerError: The model did not run, or not all of its layers.
            ShapeError: The mask has another shape than the tokens.
            ArgumentError: The mask hides a whole text.
        """
        record = [self._embedding, *self._names]
        with hooked(self._model, record, inputs=True, clone=False, detach=True) as given:
            yield
        ids = given[self._embedding]
        mask = torch.ones_like(ids) if attention_mask is None else attention_mask
        if mask.shape != ids.shape:
            raise ShapeError(f"the attention mask is {tuple(mask.shape)}, and the tokens {tuple(ids.shape)}")
        if not (mask := mask.bool().to(ids.device)).any(1).all():
            raise ArgumentError("the attention mask hides all tokens of a text")
        numbers = range(self._tracked, self._tracked + len(ids))
        with torch.no_grad(), uninterrupted():  # the whole batch counts, or none of it
            self._reader.add({name: given[name] for name in self._names}, mask, torch.tensor(numbers))
            rows = zip(numbers, ids, mask, strict=True)
            self._kept.add({number: tuple(row[tokens].tolist()) for number, row, tokens in rows})
            self._tracked += len(ids)

    @checked
    def analyze(self, *, tokenizer: Any = None) -> KVResults:
        """Returns what triggers each neuron in the batches so far.

        Args:
            tokenizer: Gives the texts of tokens; without it the results have none.

        Raises:
            ArgumentError: No batch was tracked.
        """
        if not self._tracked:
            raise ArgumentError("no batch was tracked: run the model inside track_batch()")
        texts = self._kept.result()
        tokens = None
        if tokenizer is not None:
            tokens = {number: token_texts(tokenizer, ids) for number, ids in texts.items()}
        return KVResults(self._reader.result(), list(texts), self.max_entries, tokens)


def _embedding(model: nn.Module) -> str:
    """The name of the module that is given the ids of the tokens."""
    inner: Any = without_wrapper(model)
    embedding = inner.get_input_embeddings() if hasattr(inner, "get_input_embeddings") else None
    if embedding is None:
        raise ArchitectureError(f"{type(inner).__name__} has no input embedding, where its tokens are seen")
    name: str = layer_name(inner, embedding)
    return name
