"""The texts that excite each neuron of a layer most, found in a stream of texts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import NonFiniteError
from ...core.tensor_specs import Spec, specs


@dataclass(frozen=True, eq=False)
class Triggers:
    """For each neuron the texts with the highest or the lowest coefficients, the strongest first.

    Attributes:
        values: The coefficients, (neurons, count); NaN where there is no text.
        texts: The numbers of the texts, (neurons, count); -1 where there is none.
        positions: The last token of each trigger prefix, counted among the tokens of its text.
    """

    values: Tensor
    texts: Tensor
    positions: Tensor

    _specs = specs(
        values="neurons count",
        texts=Spec("neurons count", "integer"),
        positions=Spec("neurons count", "integer"),
    )


@dataclass(frozen=True, eq=False)
class BatchCoefficients:
    """The coefficients of a layer on a batch of texts.

    Attributes:
        values: (texts, tokens, neurons); padding repeats the first token of its text.
        positions: (texts, tokens): the number of each token among those of its text.
        mask: (texts, tokens): which are tokens; None where all are.
    """

    values: Tensor
    positions: Tensor
    mask: Tensor | None

    @classmethod
    def of(cls, layer: str, values: Tensor, mask: Tensor) -> "BatchCoefficients":
        """Returns the coefficients that count.

        Args:
            layer: The name of the layer, for messages.
            values: (texts, tokens, neurons).
            mask: (texts, tokens), bool: which are tokens, at least one in each text.

        Raises:
            NonFiniteError: Coefficients of tokens are NaN or infinite.
        """
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        if mask.all():
            padded = None
        else:
            padded = mask
            first = values[torch.arange(len(values), device=values.device), mask.long().argmax(1)]
            values = torch.where(mask[..., None], values, first[:, None])
        if not values.sum().isfinite() and not values.isfinite().all():
            raise NonFiniteError(f"coefficients of layer {layer!r} are NaN or infinite")
        return cls(values, positions, padded)

    def of_tokens(self) -> Tensor:
        """Returns the coefficients of all tokens, (tokens, neurons)."""
        return self.values.flatten(0, 1) if self.mask is None else self.values[self.mask]


class TopTriggers:
    """The texts in which each neuron reached its most extreme coefficients so far.

    Of a text only the prefix with the most extreme coefficient counts. Among equal texts the earlier one
    stays. A batch is first compared with the last text of each neuron, so few of its numbers are merged.

    Args:
        neurons: How many neurons.
        count: How many texts to keep for each.
        lowest: Keep the lowest coefficients, not the highest.
        dtype: The precision of the coefficients; at least float32 is kept.
        device: Where the coefficients are.

    Example:
        >>> top = TopTriggers(neurons=1, count=2)
        >>> values, mask = torch.tensor([[1.0, 3.0], [2.0, 0.0], [0.0, 5.0]])[..., None], torch.ones(3, 2)
        >>> top.add(BatchCoefficients.of("mlp", values, mask.bool()), torch.tensor([10, 11, 12]))
        >>> found = top.result()
        >>> found.values.tolist(), found.texts.tolist(), found.positions.tolist()
        ([[5.0, 3.0]], [[12, 10]], [[1, 1]])
    """

    def __init__(
        self,
        neurons: int,
        count: int,
        *,
        lowest: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self._sign = -1.0 if lowest else 1.0
        dtype = torch.promote_types(dtype, torch.float32)
        self._scores = torch.full((neurons, count), -torch.inf, dtype=dtype, device=device)
        self.texts = torch.full((neurons, count), -1, device=device)
        self._positions = torch.zeros(neurons, count, dtype=torch.long, device=device)

    def add(self, batch: BatchCoefficients, numbers: Tensor) -> None:
        """Adds a batch.

        Args:
            batch: Its coefficients.
            numbers: The numbers of its texts, (texts,).
        """
        best = batch.values.amax(1) if self._sign > 0 else -batch.values.amin(1)
        best = best.to(self._scores.dtype)
        neurons = (best > self._scores[:, -1]).any(0).nonzero()[:, 0]
        if not len(neurons):
            return
        count = self._scores.shape[1]
        both = torch.cat([self._scores[neurons], best[:, neurons].T], 1)
        scores, order = both.sort(dim=1, descending=True, stable=True)
        scores, order = scores[:, :count], order[:, :count]
        row, column = (order >= count).nonzero(as_tuple=True)
        text = order[row, column] - count
        old = order.clamp(max=count - 1)
        texts, positions = self.texts[neurons].gather(1, old), self._positions[neurons].gather(1, old)
        texts[row, column] = numbers[text]
        positions[row, column] = self._found(batch, text, neurons[row])
        self._scores[neurons], self.texts[neurons], self._positions[neurons] = scores, texts, positions

    def _found(self, batch: BatchCoefficients, text: Tensor, neuron: Tensor) -> Tensor:
        """Where these neurons are most extreme in these texts."""
        along = batch.values[text, :, neuron]
        place = along.argmax(1) if self._sign > 0 else along.argmin(1)
        return batch.positions[text, place]

    def result(self) -> Triggers:
        """Returns the triggers so far, on the CPU."""
        values = torch.where(self.texts < 0, torch.nan, self._sign * self._scores)
        return Triggers(values.cpu(), self.texts.cpu(), self._positions.int().cpu())
