"""Direct logit attribution: how much each part of a model adds to a logit directly (Elhage et al., 2021).

The residual stream before the final norm is a sum of parts. Where the scale of the norm is kept constant, a
logit is a linear function of it, so that it is a sum over the same parts:

    logit_a - logit_b = sum over parts p of (s * gain * (p - mean(p))) . (W_a - W_b) + norm bias + head bias
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...core.checks import checked
from ...core.errors import ArchitectureError, ArgumentError, ShapeError
from ...core.hooks import hooked
from ...core.modules import evaluating
from ..model.families import Anatomy, anatomy
from ..model.frozen_norms import FrozenNorm, freeze_norm
from ..model.scoring import logits_from
from ..model.stream_parts import ResidualStream, StreamPart
from ..model.stream_search import residual_stream
from ..model.tokens import as_prompt, continuation, tokenize
from .attribution_result import LogitAttribution


@checked
def direct_logit_attribution(
    model: nn.Module,
    tokenizer: Any,
    prompt: Any,
    answer: str,
    against: str | None = None,
    *,
    heads: bool = False,
    neurons: bool = False,
) -> LogitAttribution:
    """Returns what each part of a model adds to the logit of an answer at the end of a prompt.

    The scale of the final norm, and of norms after attention and MLP, is kept as it is in this pass. The
    contributions then sum to the logit of the model exactly, which is checked. A soft cap of the logits, as
    in Gemma 2, is left out: the sum is the logit before it. Edits of the weights count, and those of `hooked`
    blocks around the call, which see a pass of two tokens, too.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        prompt: A text that the answer would continue, or the ids of its tokens.
        answer: The answer; its first token is used.
        against: Another answer, whose logit is subtracted.
        heads: Whether to split attention by heads.
        neurons: Whether to split MLPs by neurons.

    Raises:
        ArchitectureError: The stream is no sum of parts, or the logits are no linear function of it; heads or
            neurons of a model that has none.
        ArgumentError: The prompt or an answer is empty, both answers begin with the same token, or the model
            reads no text of this length.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> fact = world.facts[0]
        >>> found = direct_logit_attribution(model, tokenizer, fact.text, fact.target, heads=True)
        >>> abs(float(found.contributions.sum()) - found.logit) < 1e-4, tuple(found.heads.shape)
        (True, (6, 4))
    """
    parts = anatomy(model)
    text = as_prompt(tokenizer, prompt)
    tokens = tokenize(tokenizer, text).ids
    parts.check_length(len(tokens), str(text))
    wanted = [continuation(tokenizer, text, one)[0] for one in (answer, against) if one is not None]
    if len(set(wanted)) < len(wanted):
        raise ArgumentError(f"the answers {answer!r} and {against!r} begin with the same token")
    with torch.no_grad(), evaluating(parts.model):
        stream = residual_stream(parts)
        vectors = _pass(parts, stream, torch.tensor([tokens], device=parts.device))
        found = _Attribution(parts, stream, vectors, wanted)
        named = found.components()
        return LogitAttribution(
            prompt=str(text),
            answer=answer,
            against=against,
            labels=tuple(named),
            contributions=torch.stack(list(named.values())),
            logit=found.logit,
            capped=stream.capped,
            heads=found.split("attention") if heads else None,
            neurons=found.split("MLP") if neurons else None,
        )


@checked
def linear_contributions(summands: Tensor, direction: Tensor, norm: FrozenNorm | None = None) -> Tensor:
    """Returns what each summand of a vector adds to the product of its norm with a direction, (parts,).

    Args:
        summands: (parts, width).
        direction: (width,), a row of the unembedding or the difference of two.
        norm: The norm before it, with the scale of the whole vector; None for none.

    Raises:
        ShapeError: The sizes do not fit.

    Example:
        >>> summands, direction = torch.randn(3, 8).double(), torch.randn(8).double()
        >>> norm = freeze_norm(module := nn.LayerNorm(8).double(), summands.sum(0))
        >>> found = linear_contributions(summands, direction, norm)
        >>> torch.allclose(found.sum() + direction @ norm.bias, direction @ module(summands.sum(0)))
        True
    """
    if summands.dim() != 2 or direction.shape != summands.shape[1:]:
        raise ShapeError(
            f"expected summands (parts, width) and a direction (width,), got {tuple(summands.shape)} and "
            f"{tuple(direction.shape)}"
        )
    direction = direction.double()
    return summands.double() @ (direction if norm is None else norm.pull(direction))


@dataclass(frozen=True)
class _Vectors:
    """The vectors of one pass at the last token, float32 or less, by their names."""

    outputs: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]


def _pass(parts: Anatomy, stream: ResidualStream, ids: Tensor) -> _Vectors:
    made_by = {part.name: part.name.partition("/")[0] for part in stream.parts}
    wanted = [stream.final, parts.head, *parts.blocks, *made_by, *filter(None, made_by.values())]
    names = list(dict.fromkeys(wanted))
    modules = [one for part in stream.parts for one in (part.norm, part.projection) if one]
    with hooked(parts.model, names) as outputs, hooked(parts.model, modules, inputs=True) as inputs:
        logits_from(parts.model, ids, ids.shape[1] - 1)

    def last(tensor: Tensor) -> Tensor:
        return tensor.reshape(-1, tensor.shape[-1])[-1]

    # what an edit computes from the output of a module is no operation inside it, but it is the output then
    places = {name: name if outputs.reached(name) else made_by.get(name, name) for name in names}
    return _Vectors(
        {name: last(outputs[place]) for name, place in places.items() if outputs.reached(place)},
        {name: last(inputs[name]) for name in dict.fromkeys(modules)},
    )


class _Attribution:
    """The contributions in one pass."""

    def __init__(
        self, parts: Anatomy, stream: ResidualStream, vectors: _Vectors, tokens: Sequence[int]
    ) -> None:
        self.parts, self.stream, self.vectors = parts, stream, vectors
        final = vectors.outputs[stream.final]
        self.tolerance = torch.finfo(final.dtype).eps ** 0.5
        self.norm = freeze_norm(parts.module(parts.norm), final) if parts.norm else None
        self.direction, self.head_bias = self.read_out(tokens)
        self.before_norm = self.direction if self.norm is None else self.norm.pull(self.direction)
        logits = vectors.outputs[parts.head].double().cpu()[list(tokens)] * stream.factor
        self.logit = float(logits[0] - logits[1]) if len(tokens) == 2 else float(logits[0])
        self.check_stream()

    @property
    def heads(self) -> int:
        config: Any = self.parts.model.config
        return int(config.get_text_config().num_attention_heads)

    def read_out(self, tokens: Sequence[int]) -> tuple[Tensor, float]:
        """The direction after the final norm whose product is the logit, or the difference; its constant."""
        final = self.vectors.outputs[self.stream.final]
        with torch.enable_grad():
            given = torch.zeros_like(final, requires_grad=True)
            vector = given[None, None]
            for name in self.stream.maps:
                vector = self.parts.module(name)(vector)
            logits = vector[0, 0][list(tokens)].double() * self.stream.factor
            logit = logits[0] - logits[1] if len(tokens) == 2 else logits[0]
            (direction,) = torch.autograd.grad(logit, given)
        return direction.double().cpu(), float(logit.detach())

    def value(self, part: StreamPart) -> Tensor:
        return part.factor * self.vectors.outputs[part.name].double().cpu()

    def sum_of(self, parts: Sequence[StreamPart]) -> Tensor:
        return torch.stack([self.value(part) for part in parts]).sum(0)

    def bias(self, part: StreamPart) -> Tensor | None:
        if part.bias is None:
            return None
        return part.factor * self.parts.model.get_parameter(part.bias).detach().double().cpu()

    def components(self) -> dict[str, Tensor]:
        """What each part adds, by its label; biases apart."""
        rows: dict[str, Tensor] = {}
        for part in self.stream.parts:
            value, bias = self.value(part), self.bias(part)
            rows[part.label] = rows.get(part.label, torch.zeros_like(value)) + value
            if bias is not None:
                rows[part.label] = rows[part.label] - bias
                rows[f"{part.label} bias"] = bias
        values = linear_contributions(torch.stack(list(rows.values())), self.direction, self.norm)
        found = dict(zip(rows, values, strict=True))
        if self.norm is not None and bool(self.norm.bias.any()):
            found["final norm bias"] = self.norm.bias @ self.direction
        if self.head_bias:
            found["unembedding bias"] = torch.tensor(self.head_bias, dtype=torch.float64)
        total, largest = float(sum(found.values())), max(abs(float(one)) for one in found.values())
        if abs(total - self.logit) > self.tolerance * max(largest, abs(self.logit)):
            raise ArchitectureError(
                f"the contributions sum to {total:.6g}, the logit of the model is {self.logit:.6g}: "
                f"something after the final norm of {type(self.parts.model).__name__} is not linear"
            )
        return found

    def split(self, kind: Literal["attention", "MLP"]) -> Tensor:
        """What each head adds, (layers, heads), or each neuron, (layers, neurons)."""
        rows: dict[int, Tensor] = {}
        for part in self.stream.parts:
            if part.kind != kind or part.layer is None:
                continue
            if part.projection is None:
                raise ArchitectureError(
                    f"{part.label} of {type(self.parts.model).__name__} has no single projection, so that it "
                    f"cannot be split: {self.parts.missing[part.layer] or part.name}"
                )
            direction = part.factor * self.before_norm
            if part.norm is not None:
                norm = freeze_norm(self.parts.module(part.norm), self.vectors.inputs[part.norm])
                direction = norm.pull(direction)
            given = self.vectors.inputs[part.projection]
            values = given.double().cpu() * self.through(part.projection, given, direction)
            rows[part.layer] = values.view(self.heads, -1).sum(1) if kind == "attention" else values
        if not rows:
            raise ArchitectureError(f"{type(self.parts.model).__name__} has no {kind} to split")
        width = max(map(len, rows.values()))
        table = torch.full((self.parts.layers, width), torch.nan, dtype=torch.float64)
        for layer, row in rows.items():
            table[layer, : len(row)] = row
        return table

    def through(self, projection: str, given: Tensor, direction: Tensor) -> Tensor:
        """The direction before a linear map whose product is that of a direction after it."""
        with torch.enable_grad():
            start = given.detach().clone().requires_grad_()
            after = self.parts.module(projection)(start[None, None])[0, 0]
            (before,) = torch.autograd.grad(after.double() @ direction.to(after.device), start)
        return before.double().cpu()

    def check_stream(self) -> None:
        """Checks that the parts sum to the stream in this pass, too."""
        total = self.sum_of(self.stream.parts)
        final = self.vectors.outputs[self.stream.final].double().cpu()
        allowed = self.tolerance * float(final.abs().max())
        if torch.allclose(total, final, rtol=0, atol=allowed):
            return
        for layer, name in enumerate(self.parts.blocks):
            below = [part for part in self.stream.parts if part.layer is None or part.layer <= layer]
            after = self.vectors.outputs[name].double().cpu()
            if not torch.allclose(self.sum_of(below), after, rtol=0, atol=allowed):
                break
        raise ArchitectureError(
            f"the parts do not sum to the residual stream of {type(self.parts.model).__name__}: after "
            f"{name!r} {float((after - self.sum_of(below)).norm() / after.norm()):.1%} of it are "
            f"missing. This pass adds something that a pass of two tokens does not add"
        )
