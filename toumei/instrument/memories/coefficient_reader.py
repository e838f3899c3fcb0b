"""Everything that is kept of the coefficients of some layers while batches of texts go through a model."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor

from ...core.errors import ShapeError
from ...core.summaries import counted
from ...core.tensors import whole
from .coefficient_moments import CoefficientMoments
from .down_projections import DownProjection
from .layer_memories import LayerMemories
from .triggers import BatchCoefficients, TopTriggers, Triggers

Strategy = Literal["prefix", "cls"]
Text = TypeVar("Text")
_PRUNED_FROM = 4096  # texts that are kept before those that trigger no neuron are dropped


class LayerReader:
    """What is kept of the coefficients of one layer.

    Attributes:
        highest: The texts with the highest coefficients.
        lowest: Those with the lowest ones, of gated layers.
        moments: Mean and variance over all prefixes that count.
    """

    def __init__(self, like: Tensor, count: int, gated: bool) -> None:
        made = partial(TopTriggers, like.shape[-1], count, dtype=like.dtype, device=like.device)
        self.highest = made()
        self.lowest = made(lowest=True) if gated else None
        self.moments = CoefficientMoments(like.shape[-1], like.device)

    def add(self, batch: BatchCoefficients, numbers: Tensor) -> None:
        """Adds the coefficients of a batch of texts with these numbers."""
        self.moments.add(batch.of_tokens())
        for top in self.tops():
            top.add(batch, numbers)

    def tops(self) -> list[TopTriggers]:
        """Returns the triggers that are kept."""
        return [self.highest] if self.lowest is None else [self.highest, self.lowest]

    def result(self, name: str, numbers: Tensor) -> LayerMemories:
        """Returns what was kept, without what the values promote.

        Args:
            name: The name of the layer.
            numbers: The numbers of the texts of all layers, sorted; triggers name texts by their rows in it.
        """

        def rows(triggers: Triggers) -> Triggers:
            found = torch.searchsorted(numbers, triggers.texts)
            return replace(triggers, texts=torch.where(triggers.texts < 0, -1, found).int())

        return LayerMemories(
            name=name,
            mean=self.moments.mean.cpu().double(),
            variance=self.moments.variance().cpu().double(),
            highest=rows(self.highest.result()),
            lowest=None if self.lowest is None else rows(self.lowest.result()),
            promoted=None,
            lowered=None,
        )


class CoefficientReader:
    """What is kept of the coefficients of several layers, in memory that does not grow with the texts.

    Args:
        projections: The down projections, whose inputs are the coefficients.
        strategy: ``"prefix"`` reads every token, ``"cls"`` the first one of a text.
        count: How many texts are kept for each neuron.
    """

    def __init__(self, projections: Iterable[DownProjection], strategy: Strategy, count: int) -> None:
        self.layers: dict[str, LayerReader] = {}
        self._gated = {projection.name: projection.gated for projection in projections}
        self._strategy, self._count = strategy, count

    def add(self, inputs: Mapping[str, Tensor], mask: Tensor, numbers: Tensor) -> None:
        """Adds a batch: its coefficients of all layers or, if there is an error, of none.

        Args:
            inputs: What each down projection was given, (texts, tokens, neurons).
            mask: (texts, tokens), bool: which are tokens and no padding.
            numbers: The numbers of the texts, (texts,).

        Raises:
            ShapeError: A layer was given something else than a vector for each token.
            NonFiniteError: Coefficients are NaN or infinite.
        """
        batches: dict[str, BatchCoefficients] = {}
        for name in self._gated:
            values = _by_text(name, whole(inputs[name]), mask)
            local = mask.to(values.device)
            if self._strategy == "cls":
                first = local.long().argmax(1)
                values = values[torch.arange(len(first), device=first.device), first][:, None]
                local = torch.ones_like(local[:, :1])
            batches[name] = BatchCoefficients.of(name, values, local)
        for name, batch in batches.items():
            if name not in self.layers:
                self.layers[name] = LayerReader(batch.values, self._count, self._gated[name])
            self.layers[name].add(batch, numbers.to(batch.values.device))

    def result(self) -> list[LayerMemories]:
        """Returns what was kept of each layer; triggers name texts by their rows among `kept_texts`."""
        numbers = self.kept_texts()
        return [layer.result(name, numbers) for name, layer in self.layers.items()]

    def kept_texts(self) -> Tensor:
        """Returns the numbers of the texts that some neuron keeps, sorted."""
        kept = [top.texts.unique().cpu() for layer in self.layers.values() for top in layer.tops()]
        numbers = torch.cat(kept).unique() if kept else torch.zeros(0, dtype=torch.long)
        return numbers[numbers >= 0]


def _by_text(name: str, values: Tensor, mask: Tensor) -> Tensor:
    """Coefficients as (texts, tokens, neurons); some models lay the tokens of all texts in a row."""
    texts, tokens = mask.shape
    if values.shape[:-1] == (texts * tokens,):
        values = values.unflatten(0, (texts, tokens))
    if values.dim() != 3 or values.shape[:2] != mask.shape:
        raise ShapeError(
            f"layer {name!r} was given {tuple(values.shape)} for {counted(texts, 'text')} of "
            f"{counted(tokens, 'token')}: expected (texts, tokens, neurons); experts, which get a part of "
            "the tokens, have no coefficients for all"
        )
    return values


class KeptTexts(Generic[Text]):
    """The texts that some neuron keeps; now and then the others are dropped.

    Args:
        reader: Knows which are kept.
    """

    def __init__(self, reader: CoefficientReader) -> None:
        self._reader, self._most = reader, _PRUNED_FROM
        self._texts: dict[int, Text] = {}

    def add(self, texts: Mapping[int, Text]) -> None:
        """Adds texts by their numbers, after the reader got them."""
        self._texts.update(texts)
        if len(self._texts) > self._most:
            self._texts = self.result()
            self._most = max(_PRUNED_FROM, 2 * len(self._texts))

    def result(self) -> dict[int, Text]:
        """Returns the texts that are kept, by their numbers, which are sorted."""
        return {number: self._texts[number] for number in self._reader.kept_texts().tolist()}
