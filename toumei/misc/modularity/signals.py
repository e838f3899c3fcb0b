"""Which units each channel of an activation comes from, and how weights change that."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...core.errors import ArgumentError
from ...core.summaries import counted
from .norms import Norm, kernel_norms, merged


@dataclass(frozen=True, eq=False)
class Part:
    """The channels of a signal that come from one layer.

    Attributes:
        layer: Index of the layer.
        channels: (n,) channels of the signal.
        units: (n,) the unit of the layer that each comes from.
        scale: (n,) the factor that it was multiplied by, not negative.
    """

    layer: int
    channels: Tensor
    units: Tensor
    scale: Tensor


@dataclass(frozen=True, eq=False)
class Signal:
    """An activation between the layers of a network.

    Attributes:
        width: How many channels it has; None for an input, whose first layer says how many.
        parts: The layers that its channels come from; a channel may come from several layers.
        fresh: The layer whose unchanged output it is; a batch normalization is multiplied into that layer.
    """

    width: int | None
    parts: tuple[Part, ...]
    fresh: int | None = None

    def scaled(self, scale: Tensor) -> "Signal":
        """Returns the signal with each channel multiplied by a number."""
        scale = scale.abs().flatten()
        parts = (
            replace(part, scale=part.scale.to(scale) * scale[part.channels.to(scale.device)])
            for part in self.parts
        )
        return Signal(self.width, tuple(parts))


def stale(signal: Signal) -> Signal:
    """Returns a signal after an activation function or a pooling: the same channels."""
    return replace(signal, fresh=None)


def union(signals: Iterable[Signal]) -> Signal:
    """Returns the sum or product of signals: each channel comes from all of them.

    Raises:
        ArgumentError: Signals of different width.
    """
    signals = list(signals)
    widths = {signal.width for signal in signals}
    width = max((w for w in widths if w is not None), default=None)
    if widths - {width, 1}:
        raise ArgumentError(f"cannot add or multiply values of {sorted(map(str, widths))} channels")
    spread = [_spread(signal, width) for signal in signals]
    return Signal(width, tuple(part for signal in spread for part in signal.parts))


def concatenation(signals: Iterable[Signal]) -> Signal:
    """Returns signals concatenated along the channels.

    Raises:
        ArgumentError: One of them is an input whose number of channels is not known.
    """
    offset, parts = 0, []
    for signal in signals:
        if signal.width is None:
            raise ArgumentError("cannot concatenate the input before a layer says how many channels it has")
        parts += [replace(part, channels=part.channels + offset) for part in signal.parts]
        offset += signal.width
    return Signal(offset, tuple(parts))


def _spread(signal: Signal, width: int | None) -> Signal:
    if signal.width != 1 or width == 1 or width is None:
        return signal
    parts = (
        replace(
            part,
            channels=torch.arange(width).repeat_interleave(len(part.units)),
            units=part.units.repeat(width),
            scale=part.scale.repeat(width),
        )
        for part in signal.parts
    )
    return Signal(width, tuple(parts))


@dataclass(eq=False)
class Ledger:
    """The layers and blocks that have been found so far.

    Attributes:
        norm: Makes one number of a kernel.
        names: The layers.
        sizes: Their units; None for an input that no layer has taken yet.
        weights: (source, target) to the block between them.
    """

    norm: Norm
    names: list[str] = field(default_factory=list)
    sizes: list[int | None] = field(default_factory=list)
    weights: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def input(self, name: str) -> Signal:
        """Returns the signal of an input."""
        self._new(name, None)
        empty = torch.zeros(0, dtype=torch.long)
        return Signal(None, (Part(len(self.names) - 1, empty, empty, torch.zeros(0)),))

    def layer(self, name: str, signal: Signal, weight: Tensor, groups: int = 1) -> Signal:
        """Returns the signal after a layer, and adds its blocks.

        Args:
            name: The layer's name.
            signal: The input of the layer.
            weight: (out, in / groups, ...) as of a convolution or a linear layer.
            groups: Groups of a convolution. With one channel and one output in each group it is depthwise:
                its kernels are multiplied into the signal, and it is not a layer of the graph.

        Raises:
            ArgumentError: The layer has run before, or does not fit the signal.
        """
        if name in self.names:
            raise ArgumentError(
                f"layer {name!r} runs more than once: a graph of weights needs a feed-forward network "
                f"whose layers are not shared"
            )
        sizes = kernel_norms(weight, self.norm)
        signal = self._sized(name, signal, sizes.shape[1] * groups)
        if groups > 1 and groups == len(sizes) and sizes.shape[1] == 1:
            return signal.scaled(sizes)
        whole = torch.block_diag(*sizes.chunk(groups)) if groups > 1 else sizes
        self._new(name, len(sizes))
        target = len(self.names) - 1
        for part in signal.parts:
            size = self.sizes[part.layer]
            assert size is not None
            columns = whole[:, part.channels.to(whole.device)] * part.scale.to(whole)
            block = merged(columns, part.units.to(whole.device), size, self.norm)
            before = self.weights.get((part.layer, target))
            self.weights[part.layer, target] = block if before is None else before + block
        units = torch.arange(len(sizes))
        return Signal(len(sizes), (Part(target, units, units, torch.ones(len(sizes))),), fresh=target)

    def normalized(self, signal: Signal, scale: Tensor) -> Signal:
        """Returns the signal after a normalization, which is multiplied into the layer before it."""
        if signal.fresh is None:
            return signal.scaled(scale)
        for edge, weight in self.weights.items():
            if edge[1] == signal.fresh:
                self.weights[edge] = weight * scale.abs().to(weight)[:, None]
        return stale(signal)

    def _new(self, name: str, size: int | None) -> None:
        self.names.append(name)
        self.sizes.append(size)

    def _sized(self, name: str, signal: Signal, inputs: int) -> Signal:
        """The signal with as many channels as a layer takes: those of an input, or a flattened map."""
        if signal.width is None:
            (part,) = signal.parts
            if self.sizes[part.layer] not in (None, inputs):
                raise ArgumentError(
                    f"layer {name!r} takes {counted(inputs, 'input')}, another one {self.sizes[part.layer]}"
                )
            self.sizes[part.layer] = inputs
            units = torch.arange(inputs)
            return Signal(inputs, (Part(part.layer, units, units, torch.ones(inputs)),))
        positions, rest = divmod(inputs, signal.width)
        if rest or not positions:
            raise ArgumentError(
                f"layer {name!r} takes {counted(inputs, 'input')} and gets {counted(signal.width, 'channel')}"
            )
        if positions == 1:
            return signal
        within = torch.arange(positions)
        parts = (
            Part(
                layer=part.layer,
                channels=(part.channels[:, None] * positions + within).flatten(),
                units=part.units.repeat_interleave(positions),
                scale=part.scale.repeat_interleave(positions),
            )
            for part in signal.parts
        )
        return Signal(inputs, tuple(parts))
