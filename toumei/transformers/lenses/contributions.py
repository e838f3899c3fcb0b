"""What the parts of a residual stream add to a logit, computed from the vectors of one pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.errors import ArchitectureError
from ...core.hooks import hooked
from ...core.modules import frozen
from ...core.offloading import loaded_weight
from ..model.families import Anatomy
from ..model.frozen_norms import freeze_norm, rounding
from ..model.scoring import logits_from
from ..model.stream_parts import ResidualStream, StreamPart


@dataclass(frozen=True)
class PassVectors:
    """The vectors of one pass at the last token, by the engine's names.

    Attributes:
        outputs: What is added to the stream, the stream itself and the logits.
        inputs: What projections and norms take.
        values: The values that attention sums up, of all tokens, with gradients; if they were asked for.
    """

    outputs: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]
    values: Mapping[str, Tensor]


def vectors_of(parts: Anatomy, stream: ResidualStream, ids: Tensor, *, values: bool) -> PassVectors:
    """Returns the vectors of a pass.

    Args:
        parts: The model.
        stream: Its residual stream.
        ids: Tokens (1, T).
        values: Whether the values of attention are wanted.
    """
    made_by = {part.name: part.name.partition("/")[0] for part in stream.parts}
    wanted = [stream.final, parts.head, *parts.blocks, *made_by, *filter(None, made_by.values())]
    names = list(dict.fromkeys(wanted))
    modules = list(dict.fromkeys(one for part in stream.parts for one in (part.norm, part.projection) if one))
    summed: dict[str, Tensor] = {}

    def beginning_of_graph(name: str) -> Callable[[Tensor], Tensor]:
        def edit(tensor: Tensor) -> Tensor:
            summed[name] = tensor.detach().requires_grad_()
            return summed[name]

        return edit

    edits = {part.values: beginning_of_graph(part.values) for part in stream.parts if part.values and values}
    with (
        torch.set_grad_enabled(values),
        frozen(parts.model),
        hooked(parts.model, names, edit=edits) as outputs,
        hooked(parts.model, modules, inputs=True) as inputs,
    ):
        logits_from(parts.model, ids, ids.shape[1] - 1)
        taken = {name: _last(inputs[name]) for name in modules}
    # what an edit computes from the output of a module is no operation inside it, but it is the output then
    places = {name: name if outputs.reached(name) else made_by.get(name, name) for name in names}
    return PassVectors(
        {name: _last(outputs[place]).detach() for name, place in places.items() if outputs.reached(place)},
        taken,
        summed,
    )


class Contributions:
    """The contributions in one pass.

    Args:
        parts: The model.
        stream: Its residual stream.
        vectors: The vectors of the pass.
        tokens: The token whose logit is meant, or two, whose difference is.

    Attributes:
        logit: The logit of the model, or the difference, before a soft cap.
        norm: The final norm as a linear map, None without one.
        direction: The direction after it whose product is the logit, (width,).

    Raises:
        ArchitectureError: The parts do not sum to the stream.
    """

    def __init__(
        self, parts: Anatomy, stream: ResidualStream, vectors: PassVectors, tokens: Sequence[int]
    ) -> None:
        self._parts, self._stream, self._vectors = parts, stream, vectors
        self._model = type(parts.model).__name__
        final = vectors.outputs[stream.final]
        self._tolerance = rounding(final.dtype)
        self.norm = freeze_norm(parts.module(parts.norm), final) if parts.norm else None
        self.direction, self._head_bias = self._read_out(tokens)
        self._before_norm = self.direction if self.norm is None else self.norm.pull(self.direction)
        logits = vectors.outputs[parts.head].double().cpu()[list(tokens)] * stream.factor
        self.logit = float(logits[0] - logits[1]) if len(tokens) == 2 else float(logits[0])
        self._check_stream()

    def summands(self) -> dict[str, Tensor]:
        """Returns the summands of the stream by their labels; biases are apart."""
        rows: dict[str, Tensor] = {}
        for part in self._stream.parts:
            value = self._value(part)
            rows[part.label] = rows.get(part.label, torch.zeros_like(value)) + value
            if part.bias is not None:
                bias = loaded_weight(self._parts.model, part.bias).detach().double().cpu() * part.factor
                rows[part.label] = rows[part.label] - bias
                rows[f"{part.label} bias"] = bias
        return rows

    def constants(self) -> dict[str, Tensor]:
        """Returns what the biases of final norm and head add."""
        found = {}
        if self.norm is not None and bool(self.norm.bias.any()):
            found["final norm bias"] = self.norm.bias @ self.direction
        if self._head_bias:
            found["unembedding bias"] = torch.tensor(self._head_bias, dtype=torch.float64)
        return found

    def check_sum(self, contributions: Tensor) -> None:
        """Checks that contributions (parts,) sum to the logit of the model.

        Raises:
            ArchitectureError: They do not.
        """
        total, largest = float(contributions.sum()), float(contributions.abs().max())
        if abs(total - self.logit) > self._tolerance * max(largest, abs(self.logit)):
            raise ArchitectureError(
                f"the contributions sum to {total:.6g}, the logit of the model is {self.logit:.6g}: "
                f"something after the final norm of {self._model} is not linear"
            )

    def heads(self) -> Tensor:
        """Returns what each head adds, (layers, heads)."""
        found = self._through_projections("attention")
        heads = self._parts.model.config.get_text_config().num_attention_heads  # type: ignore[union-attr, operator]
        return self._table({layer: row.view(heads, -1).sum(1) for layer, row in found.items()})

    def neurons(self) -> Tensor:
        """Returns what each neuron of the MLPs adds, (layers, neurons)."""
        return self._table(self._through_projections("MLP"))

    def sources(self) -> Tensor:
        """Returns what attention adds from each token, (layers, tokens).

        What attention adds is linear in the values, if its pattern stays as it is: the gradient times the
        values is what each of them adds.
        """
        rows = {}
        for part in self._split_parts("attention"):
            if part.values is None:
                raise ArchitectureError(
                    f"{part.label} of {self._model} is no sum of values that a pattern of attention weighs"
                )
            given, values = self._vectors.inputs[part.projection], self._vectors.values[part.values]
            direction = self._before(part).to(given)
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(given @ direction, values, retain_graph=True)
            added = (gradient.double() * values.detach().double()).sum(-1)
            rows[part.layer] = added.reshape(-1, added.shape[-1]).sum(0).cpu()
        return self._table(rows)

    def _read_out(self, tokens: Sequence[int]) -> tuple[Tensor, float]:
        """The direction after the final norm whose product is the logit, or the difference; its constant."""
        with torch.enable_grad():
            given = torch.zeros_like(self._vectors.outputs[self._stream.final], requires_grad=True)
            vector = given[None, None]
            for name in self._stream.maps:
                vector = self._parts.module(name)(vector)
            logits = vector[0, 0][list(tokens)].double() * self._stream.factor
            logit = logits[0] - logits[1] if len(tokens) == 2 else logits[0]
            (direction,) = torch.autograd.grad(logit, given)
        return direction.double().cpu(), float(logit.detach())

    def _value(self, part: StreamPart) -> Tensor:
        return part.factor * self._vectors.outputs[part.name].double().cpu()

    def _sum_of(self, parts: Sequence[StreamPart]) -> Tensor:
        return torch.stack([self._value(part) for part in parts]).sum(0)

    def _split_parts(self, kind: str) -> list[Any]:
        """The parts of a kind, each with a projection and a layer."""
        found = [part for part in self._stream.parts if part.kind == kind and part.layer is not None]
        if not found:
            raise ArchitectureError(f"{self._model} has no {kind} to split")
        for part in found:
            if part.projection is None:
                raise ArchitectureError(
                    f"{part.label} of {self._model} has no single projection, so that it cannot be split: "
                    f"{self._parts.missing[part.layer or 0] or part.name}"
                )
        return found

    def _through_projections(self, kind: str) -> dict[int, Tensor]:
        """What each input of the projections of a kind adds, by layer."""
        rows = {}
        for part in self._split_parts(kind):
            given = self._vectors.inputs[part.projection].detach().double().cpu()
            rows[part.layer] = given * self._before(part)
        return rows

    def _before(self, part: Any) -> Tensor:
        """The direction before a projection whose product is what the part adds, without biases."""
        direction = part.factor * self._before_norm
        if part.norm is not None:
            norm = freeze_norm(self._parts.module(part.norm), self._vectors.inputs[part.norm].detach())
            direction = norm.pull(direction)
        with torch.enable_grad():
            start = self._vectors.inputs[part.projection].detach().clone().requires_grad_()
            after = self._parts.module(part.projection)(start[None, None])[0, 0]
            (before,) = torch.autograd.grad(after.double() @ direction.to(after.device), start)
        return before.double().cpu()

    def _table(self, rows: Mapping[int, Tensor]) -> Tensor:
        table = torch.full((self._parts.layers, max(map(len, rows.values()))), torch.nan, dtype=torch.float64)
        for layer, row in rows.items():
            table[layer, : len(row)] = row
        return table

    def _check_stream(self) -> None:
        """Checks that the parts sum to the stream in this pass, too."""
        final = self._vectors.outputs[self._stream.final].double().cpu()
        allowed = self._tolerance * float(final.abs().max())
        if torch.allclose(self._sum_of(self._stream.parts), final, rtol=0, atol=allowed):
            return
        for layer, name in enumerate(self._parts.blocks):
            below = [part for part in self._stream.parts if part.layer is None or part.layer <= layer]
            after = self._vectors.outputs[name].double().cpu()
            missing = after - self._sum_of(below)
            if float(missing.abs().max()) > allowed:
                break
        raise ArchitectureError(
            f"the parts do not sum to the residual stream of {self._model}: after {name!r} "
            f"{float(missing.norm() / after.norm()):.1%} of it are missing. This pass adds something that a "
            f"pass of two tokens does not add"
        )


def _last(tensor: Tensor) -> Tensor:
    """The vector of the last token; some modules run on (tokens, width)."""
    return tensor.reshape(-1, tensor.shape[-1])[-1]
