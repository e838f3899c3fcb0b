"""What every method is given: the inputs, and the scores of targets as a function of them, or of a layer."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import ArgumentError, OutputError, ShapeError, UnitError, UnreachedLayerError
from ..core.hooks import Edit, hooked
from ..core.modules import find_module
from ..core.outputs import main_tensor
from ..core.units import Unit, channels_first, check_channels, parse, position_index
from .baselines import AtLayer, Baseline, draws
from .result import Values

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
Target = int | str | Tensor | Callable[[Tensor], Tensor]
Targets = Target | Sequence[Target] | None

_BACKWARDS_AT_ONCE = 16  # so many targets share a backward pass, which takes that many times the memory


@dataclass(frozen=True, eq=False)
class Problem:
    """The scores of T targets as a function of tensors (B, ...).

    Attributes:
        tensors: What is attributed to, each (N, ...): the inputs, or the activation of a layer.
        model: The network.
        inputs: What the user gave.
        targets: The targets.
        several: Whether the user gave a list of targets.
        layer: The layer that is attributed to, None for the inputs.
        preprocess: Applied to the inputs before the network.
    """

    tensors: tuple[Tensor, ...]
    model: nn.Module
    inputs: Inputs
    targets: tuple[Target | Unit | None, ...]
    several: bool
    layer: str | None = None
    preprocess: Callable[..., Any] | None = None

    def __len__(self) -> int:
        return len(self.tensors[0])

    def scores(self, tensors: Sequence[Tensor], rows: Tensor | None = None) -> Tensor:
        """Returns the scores (B, T) of tensors (B, ...), with their graph.

        Args:
            tensors: In the place of `self.tensors`.
            rows: (B,) which of the N inputs each belongs to, for targets that differ and for what the layer
                does not see; by default B is N.

        Raises:
            UnitError: A target that the output does not have.
        """
        # copies, because the model may write into what it is given
        own = [tensor.clone() if tensor.requires_grad else tensor for tensor in tensors]
        if self.layer is None:
            return self._scores(_like(self.inputs, own), {}, rows)
        return self._scores(self._rows(rows), {self.layer: lambda _: own[0]}, rows)

    def gradients(
        self, tensors: Sequence[Tensor], rows: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the scores (B, T), detached, and their gradients, each (T, B, ...), by one forward pass."""
        leaves = self.leaves(tensors)
        with torch.enable_grad():
            scores = self.scores(leaves, rows)
        return scores.detach(), self.differentiate(scores, leaves)

    def leaves(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Returns tensors to differentiate by.

        Raises:
            ArgumentError: Whole numbers, which have no gradient.
        """
        for tensor in tensors:
            if not tensor.is_floating_point():
                raise ArgumentError(
                    f"inputs of {tensor.dtype} have no gradient: attribute to the layer that embeds them, as "
                    f"Method(model, layer=...), or take parts away (Occlusion, KernelShap, Lime)"
                )
        return [tensor.detach().requires_grad_() for tensor in tensors]

    def differentiate(self, scores: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns the gradients, each (T, B, ...), of scores (B, T); zeros where no way leads to a leaf."""
        count = scores.shape[1]
        if not scores.requires_grad:
            return tuple(leaf.new_zeros(count, *leaf.shape) for leaf in leaves)
        totals = scores.sum(0)
        pieces = [
            _backward(piece, leaves, keep=start + _BACKWARDS_AT_ONCE < count)
            for start, piece in zip(
                range(0, count, _BACKWARDS_AT_ONCE), totals.split(_BACKWARDS_AT_ONCE), strict=True
            )
        ]
        return tuple(torch.cat(own) for own in zip(*pieces, strict=True))

    def gradients_by(self, inputs: Sequence[Tensor], rows: Tensor, layer: str) -> Tensor:
        """Returns the gradients (T, B, ...) of the scores by a layer's activation (B, ...).

        Args:
            inputs: In the place of the inputs, each (B, ...).
            rows: (B,) which of the N inputs each belongs to.
            layer: The layer, which lies between inputs and scores.
        """
        leaves: list[Tensor] = []

        def cut(activation: Tensor) -> Tensor:
            leaves[:] = [activation.detach().requires_grad_()]
            return leaves[0].clone()

        with torch.enable_grad():
            scores = self._scores(_like(self.inputs, inputs), {layer: cut}, rows)
        if not leaves:
            raise UnreachedLayerError(f"the forward pass never reached the layer {layer!r}")
        return self.differentiate(scores, leaves)[0]

    def of_inputs(self) -> "Problem":
        """Returns the same problem, attributed to the inputs instead of a layer."""
        return replace(self, tensors=tuple(part.detach() for part in parts(self.inputs)), layer=None)

    def take(self, rows: Tensor, tensors: Sequence[Tensor]) -> "Problem":
        """Returns the problem of some of the inputs, with other tensors in their place.

        Args:
            rows: (B,) which of the N inputs, with repetitions.
            tensors: In the place of `self.tensors`, each (B, ...).
        """
        inputs = _like(self.inputs, tensors) if self.layer is None else self._rows(rows)
        targets = tuple(
            target[rows.to(target.device)] if isinstance(target, Tensor) and target.dim() else target
            for target in self.targets
        )
        return replace(self, tensors=tuple(tensors), inputs=inputs, targets=targets)

    def baselines(
        self, baselines: Sequence[Baseline], count: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """Returns draws of baselines, each (count, N, ...), or the layer's activations at them."""
        if any(isinstance(baseline, AtLayer) for baseline in baselines):
            if self.layer is None:
                raise ArgumentError("a baseline AtLayer is for methods with layer=...")
            return (baselines[0].draw(self.tensors[0], count, generator),)
        own = [
            draws(baseline, part, count, generator)
            for baseline, part in zip(baselines, parts(self.inputs), strict=True)
        ]
        if self.layer is None:
            return tuple(own)
        return (torch.stack([self.at_layer([part[index] for part in own])[0] for index in range(count)]),)

    def at_layer(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns what is attributed to for other inputs: these, or the layer's activation, (N, ...)."""
        if self.layer is None:
            return tuple(inputs)
        return (_activation(self.model, _like(self.inputs, inputs), self.layer, self.preprocess),)

    def restore(self, tensors: Sequence[Tensor]) -> Values:
        """Returns results, each (T, N, ...), on the CPU and in the structure of the inputs."""
        own = tuple(tensor.detach().cpu() if self.several else tensor.detach()[0].cpu() for tensor in tensors)
        if self.layer is not None:
            return own[0]
        restored: Values = _like(self.inputs, own)
        return restored

    def per_input(self, scores: Tensor) -> Tensor:
        """Returns scores (N, T) as results hold them: (T, N) for several targets, else (N,), on the CPU."""
        own = scores.detach().cpu()
        return own.T.contiguous() if self.several else own[:, 0]

    def _rows(self, rows: Tensor | None) -> Any:
        """The inputs (B, ...) that rows (B,) belong to."""
        own = parts(self.inputs)
        return _like(self.inputs, own if rows is None else [part[rows.to(part.device)] for part in own])

    def _scores(self, inputs: Inputs, edit: Mapping[str, Edit], rows: Tensor | None) -> Tensor:
        """The scores (B, T) of inputs, with the activations of some layers edited."""
        layers = [target.layer for target in self.targets if isinstance(target, Unit)]
        output = None
        # where inner units are all that is asked for, the rest of the network does not run
        with hooked(self.model, layers, edit, stop=len(layers) == len(self.targets)) as activations:
            output = _output(self.model, inputs, self.preprocess)
        scores = []
        for target in self.targets:
            if isinstance(target, Unit):
                scores.append(_unit_score(activations[target.layer], target))
            else:
                assert output is not None
                scores.append(_score(output, target, rows))
        return torch.stack(scores, dim=1)


def pose(
    model: nn.Module,
    inputs: Inputs,
    target: Targets,
    layer: str | None = None,
    preprocess: Callable[..., Any] | None = None,
) -> Problem:
    """Returns the problem that the arguments of a method pose.

    Raises:
        ShapeError: Inputs without a common batch axis.
        ArgumentError: An empty list of targets, or inputs that are no tensors.
        UnitError: A target that is no unit.
        LayerError: A layer that the model does not have.
    """
    own = parts(inputs)
    if not own or not all(isinstance(part, Tensor) for part in own):
        raise ArgumentError(
            f"inputs are a tensor, a tuple or a dictionary of tensors, got {type(inputs).__name__}"
        )
    sizes = {part.shape[0] if part.dim() else None for part in own}
    if len(sizes) != 1 or None in sizes or 0 in sizes:
        shapes = ", ".join(str(tuple(part.shape)) for part in own)
        raise ShapeError(f"inputs are batches of the same, positive length, got {shapes}")
    several = isinstance(target, list | tuple)
    given: Sequence[Any] = target if isinstance(target, list | tuple) else [target]
    if not given:
        raise ArgumentError("a list of targets must not be empty")
    targets = tuple(_unit(model, own) if isinstance(own, str) else own for own in given)
    tensors = tuple(part.detach() for part in own)
    if layer is not None:
        tensors = (_activation(model, inputs, layer, preprocess),)
    return Problem(tensors, model, inputs, targets, several, layer, preprocess)


def parts(inputs: Inputs) -> tuple[Tensor, ...]:
    """Returns the tensors of inputs in any structure."""
    if isinstance(inputs, Tensor):
        return (inputs,)
    return tuple(inputs.values()) if isinstance(inputs, dict) else tuple(inputs)


def _like(inputs: Inputs, tensors: Sequence[Tensor]) -> Any:
    if isinstance(inputs, Tensor):
        return tensors[0]
    return dict(zip(inputs, tensors, strict=True)) if isinstance(inputs, dict) else tuple(tensors)


def _output(model: nn.Module, inputs: Inputs, preprocess: Callable[..., Any] | None) -> Tensor:
    if isinstance(inputs, dict):
        output = model(**(inputs if preprocess is None else preprocess(**inputs)))
    else:
        given = parts(inputs)
        if preprocess is not None:
            prepared = preprocess(*given)
            given = prepared if isinstance(prepared, tuple) else (prepared,)
        output = model(*given)
    return main_tensor(output)


@torch.no_grad()
def _activation(
    model: nn.Module, inputs: Inputs, layer: str, preprocess: Callable[..., Any] | None
) -> Tensor:
    with hooked(model, record=[layer], stop=True, detach=True) as activations:
        _output(model, inputs, preprocess)
    return activations[layer]


def _backward(scores: Tensor, leaves: Sequence[Tensor], keep: bool) -> tuple[Tensor, ...]:
    """The gradients, each (T, B, ...), of T numbers: by one batched backward pass, or one after the other."""
    count = len(scores)
    grads: Sequence[Tensor | None]
    if count > 1:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
                grads = torch.autograd.grad(
                    scores,
                    leaves,
                    torch.eye(count, dtype=scores.dtype, device=scores.device),
                    retain_graph=True,
                    is_grads_batched=True,
                    allow_unused=True,
                )
        except RuntimeError:  # an operation that has no batched backward pass
            pass
        else:
            return tuple(
                leaf.new_zeros(count, *leaf.shape) if grad is None else grad
                for leaf, grad in zip(leaves, grads, strict=True)
            )
    single = [
        torch.autograd.grad(score, leaves, retain_graph=keep or index + 1 < count, allow_unused=True)
        for index, score in enumerate(scores)
    ]
    return tuple(
        torch.stack([torch.zeros_like(leaf) if grad is None else grad for grad in own])
        for leaf, own in zip(leaves, zip(*single, strict=True), strict=True)
    )


def _unit(model: nn.Module, text: str) -> Unit:
    unit = parse(text)
    find_module(model, unit.layer)
    if unit.channel is None:
        raise UnitError(f"a target is one unit, such as '{text}:0', got the whole layer {text!r}")
    return unit


def _unit_score(activation: Tensor, unit: Unit) -> Tensor:
    """A unit's activation for each row, (B,); a channel without a position is its mean over positions."""
    assert unit.channel is not None
    channels = channels_first(activation)
    check_channels((unit.channel,), channels, unit.layer)
    own = channels[:, unit.channel]
    return own.mean(1) if unit.position is None else own[:, position_index(activation, unit)]


def _score(output: Tensor, target: Target | None, rows: Tensor | None) -> Tensor:
    """The score of one target for each row, (B,)."""
    if callable(target) and not isinstance(target, Tensor):
        score = target(output)
        if not isinstance(score, Tensor) or score.shape != output.shape[:1]:
            got = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise OutputError(
                f"a target function must return one score a row, {tuple(output.shape[:1])}, got {got}"
            )
        return score
    scores = output[:, None] if output.dim() == 1 else output
    if scores.dim() != 2:
        raise UnitError(
            f"the output is {tuple(output.shape)}: give a function of it as target, such as "
            f"lambda output: output[:, -1, 3]"
        )
    count = scores.shape[1]
    if target is None:
        if count > 1:
            raise UnitError(f"the network has {count} outputs: give a target from 0 to {count - 1}")
        return scores[:, 0]
    index = torch.as_tensor(target, device=scores.device)
    if index.is_floating_point() or index.dim() > 1:
        raise UnitError(f"a target is the index of an output, or one index an input (N,), got {target!r}")
    if index.min() < -count or index.max() >= count:
        wrong = int(index.max() if index.max() >= count else index.min())
        raise UnitError(f"no output {wrong}: the network has {count}, 0 to {count - 1}")
    if index.dim() == 0:
        return scores[:, int(index)]
    if rows is not None:
        index = index[rows.to(index.device)]
    if len(index) != len(scores):
        raise ShapeError(f"{len(index)} targets for {len(scores)} inputs: give one, or one an input")
    return scores.gather(1, index[:, None])[:, 0]
