"""The parts of a residual stream, by the names of the engine."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StreamPart:
    """A tensor that is added to the residual stream.

    Attributes:
        name: The engine's name of the tensor.
        kind: ``"embedding"``, ``"positions"``, ``"attention"``, ``"MLP"`` or the name of another module.
        layer: The block that adds it, None before the first one.
        factor: By what it is multiplied on its way to the final norm.
        bias: Name of the bias that is part of it, or None.
        norm: Name of the norm after the projection, or None.
        projection: Name of the linear map of all heads or neurons whose result it is, or None.
        values: Name of the values (..., tokens, size) that the pattern of attention weighs, or None.
    """

    name: str
    kind: str
    layer: int | None
    factor: float
    bias: str | None
    norm: str | None
    projection: str | None
    values: str | None

    @property
    def label(self) -> str:
        """Its kind and layer, as in ``"attention 3"``."""
        return self.kind if self.layer is None else f"{self.kind} {self.layer}"


@dataclass(frozen=True)
class ResidualStream:
    """The residual stream of a model.

    Attributes:
        parts: What is added to it, in the order of the pass.
        embedding: Name of the stream before the first block.
        middles: Names of the stream between attention and MLP in each block, None where there is none.
        final: Name of the stream as the final norm takes it.
        maps: Names of the linear maps from the final norm to the logits; the last one is the head.
        factor: By what the logits are multiplied after them.
        capped: Whether a soft cap bounds the logits.
    """

    parts: tuple[StreamPart, ...]
    embedding: str
    middles: tuple[str | None, ...]
    final: str
    maps: tuple[str, ...]
    factor: float
    capped: bool
