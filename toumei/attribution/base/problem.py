"""The inputs of a method, and the scores of targets as a function of them or of a layer's activation."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ...core.errors import ArgumentError, ShapeError, UnreachedLayerError
from ...core.hooks import Activations, hooked
from ...core.names import Unit, parse_layer
from ...core.surveys import Survey, survey
from ...core.targets import Edit
from .backward import differentiate
from .batching import BATCH_SIZE, batches, take_rows
from .inputs import Inputs, Preprocess, Values, like, output_of, parts_of
from .targets import Scored, Targets, score, scored, unit_score

Thing = TypeVar("Thing")


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
        fixed: Which inputs do not change: for methods that need gradients, whole numbers and booleans if
            other inputs have gradients, such as a mask beside embeddings.
        found: What a first pass showed of the layer and those of targets; their last run is what counts.
    """

    tensors: tuple[Tensor, ...]
    model: nn.Module
    inputs: Inputs
    targets: tuple[Scored, ...]
    several: bool
    layer: str | None
    preprocess: Preprocess | None
    fixed: tuple[bool, ...]
    found: Survey | None = None

    def __len__(self) -> int:
        return len(self.tensors[0])

    def scores(self, tensors: Sequence[Tensor], rows: Tensor | None = None) -> Tensor:
        """Returns the scores (B, T) of tensors (B, ...), with their graph.

        Args:
            tensors: Instead of `self.tensors`.
            rows: (B,) which of the N inputs each belongs to, for targets that differ by input and for inputs
                that do not change; by default B is N.

        Raises:
            UnitError: A target that the output does not have.
        """
        # copies, because the model may write into what it is given
        copies = [tensor.clone() if tensor.requires_grad else tensor for tensor in tensors]
        if self.layer is None:
            return self._scores(self._whole(copies, rows), {}, rows)
        return self._scores(self._rows(rows), {self.layer: lambda _: copies[0]}, rows)

    def outputs(self, tensors: Sequence[Tensor], batch_size: int) -> Tensor:
        """Returns the scores (N, T) of tensors (N, ...), without a graph, a batch at a time."""
        with torch.no_grad():
            return torch.cat(
                [self.scores(take_rows(tensors, rows), rows) for rows in batches(len(self), batch_size)]
            )

    def crossed(self, tensors: Sequence[Tensor]) -> Tensor:
        """Returns the scores (B, N, T) of inputs (B, ...) for the targets of each of the N inputs.

        It takes one pass of the B inputs.
        """
        targets: list[Scored] = []
        columns = []
        for target in self.targets:
            indices, which = [target], torch.zeros(len(self), dtype=torch.long)
            if isinstance(target, Tensor):
                different, which = target.cpu().unique(return_inverse=True)
                indices = different.tolist()
            columns.append(len(targets) + which)
            targets += indices
        return replace(self, targets=tuple(targets)).scores(tensors)[:, torch.stack(columns, 1)]

    def gradients(
        self, tensors: Sequence[Tensor], rows: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the scores (B, T), detached, and their gradients, each (T, B, ...), by one forward pass."""
        leaves = self.leaves(tensors)
        with torch.enable_grad():
            scores = self.scores(leaves, rows)
        return scores.detach(), differentiate(scores, leaves)

    def leaves(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Returns tensors to differentiate by.

        Raises:
            ArgumentError: Whole numbers, which have no gradient.
        """
        for tensor in tensors:
            if not tensor.is_floating_point():
                raise ArgumentError(
                    f"inputs of {tensor.dtype} have no gradient: attribute to the layer that embeds them, as "
                    f"Method(model, layer=...), or hide parts (Occlusion, KernelShap, Lime)"
                )
        return [tensor.detach().requires_grad_() for tensor in tensors]

    def gradients_by(self, inputs: Sequence[Tensor], rows: Tensor, layer: str) -> Tensor:
        """Returns the gradients (T, B, ...) of the scores by a layer's activation (B, ...).

        Args:
            inputs: Instead of the inputs, each (B, ...).
            rows: (B,) which of the N inputs each belongs to.
            layer: The layer, which lies between inputs and scores.
        """
        leaves: list[Tensor] = []

        def cut(activation: Tensor) -> Tensor:
            leaves[:] = [activation.detach().requires_grad_()]
            return leaves[0].clone()

        with torch.enable_grad():
            scores = self._scores(self._whole(inputs, rows), {layer: cut}, rows)
        return differentiate(scores, leaves)[0]

    def of_inputs(self) -> "Problem":
        """Returns the same problem, attributed to the inputs instead of a layer."""
        return replace(self, tensors=self.moving(parts_of(self.inputs)), layer=None)

    def take(self, rows: Tensor, tensors: Sequence[Tensor]) -> "Problem":
        """Returns the problem of some of the inputs, with other tensors instead of theirs.

        Args:
            rows: (B,) which of the N inputs, with repetitions.
            tensors: Instead of `self.tensors`, each (B, ...).
        """
        inputs = self._whole(tensors, rows) if self.layer is None else self._rows(rows)
        targets = tuple(
            target[rows.to(target.device)] if isinstance(target, Tensor) else target
            for target in self.targets
        )
        return replace(self, tensors=tuple(tensors), inputs=inputs, targets=targets)

    def in_batches(
        self, function: Callable[["Problem"], tuple[Tensor, tuple[Tensor, ...]]], batch_size: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the scores (N, T) and tensors (T, N, ...) of a function that is called batch by batch."""
        pieces = [
            function(self.take(rows, take_rows(self.tensors, rows)))
            for rows in batches(len(self), batch_size)
        ]
        scores, found = zip(*pieces, strict=True)
        return torch.cat(scores), tuple(torch.cat(batch, 1) for batch in zip(*found, strict=True))

    def moving(self, things: Sequence[Thing]) -> tuple[Thing, ...]:
        """Returns the things, one for each input, without those of fixed inputs."""
        return tuple(thing for thing, fixed in zip(things, self.fixed, strict=True) if not fixed)

    def at_layer(
        self, inputs: Sequence[Tensor], rows: Tensor, batch_size: int = BATCH_SIZE
    ) -> tuple[Tensor, ...]:
        """Returns what is attributed to for other inputs (B, ...): these, or the layer's activation.

        Args:
            inputs: Instead of the inputs.
            rows: (B,) which of the N inputs each belongs to.
            batch_size: How many pass through the network at a time.
        """
        if self.layer is None:
            return tuple(inputs)
        pieces = [
            self._activation(self._whole(take_rows(inputs, index), rows[index]))
            for index in batches(len(rows), batch_size)
        ]
        return (torch.cat(pieces),)

    def restore(self, tensors: Sequence[Tensor]) -> Values:
        """Returns results, each (T, N, ...), on the CPU and in the structure of the inputs.

        Fixed inputs have results of zero.
        """
        found = [tensor.detach().cpu() if self.several else tensor.detach()[0].cpu() for tensor in tensors]
        if self.layer is not None:
            return found[0]
        given, first = iter(found), found[0]
        targets = first.shape[: int(self.several)]
        restored: Values = like(
            self.inputs,
            [
                first.new_zeros(*targets, *part.shape) if fixed else next(given)
                for part, fixed in zip(parts_of(self.inputs), self.fixed, strict=True)
            ],
        )
        return restored

    def per_input(self, scores: Tensor) -> Tensor:
        """Returns scores (N, T) as results hold them: (T, N) for several targets, else (N,), on the CPU."""
        on_cpu = scores.detach().cpu()
        return on_cpu.T.contiguous() if self.several else on_cpu[:, 0]

    def _rows(self, rows: Tensor | None) -> Any:
        """Copies of the inputs (B, ...) that rows (B,) belong to."""
        rows = torch.arange(len(self)) if rows is None else rows
        return like(self.inputs, take_rows(parts_of(self.inputs), rows))

    def _whole(self, tensors: Sequence[Tensor], rows: Tensor | None) -> Any:
        """Inputs (B, ...) in their structure: the tensors, and fixed inputs of rows (B,)."""
        if not any(self.fixed):
            return like(self.inputs, tensors)
        given, parts = iter(tensors), parts_of(self._rows(rows))
        return like(
            self.inputs,
            [part if fixed else next(given) for part, fixed in zip(parts, self.fixed, strict=True)],
        )

    def _scores(self, inputs: Inputs, edits: Mapping[str, Edit], rows: Tensor | None) -> Tensor:
        """The scores (B, T) of inputs, with the last runs of some layers edited."""
        units = [target.layer for target in self.targets if isinstance(target, Unit)]
        last = {self._last_run(name): edit for name, edit in edits.items()}
        recorded = {name: self._last_run(name) for name in units}
        # where inner units are all that is asked for, the rest of the network does not run
        stop = len(units) == len(self.targets)
        output, activations = None, None
        try:
            with hooked(self.model, recorded, last, stop=stop) as activations:
                output = output_of(self.model, inputs, self.preprocess)
        except UnreachedLayerError:  # fewer runs than in the first pass, which has a message of its own
            self._check_runs(activations, edits, units)
            raise
        self._check_runs(activations, edits, units)
        scores = []
        for target in self.targets:
            if isinstance(target, Unit):
                assert self.found is not None
                layout = self.found.layouts[target.layer]
                scores.append(unit_score(activations[target.layer], target, layout))
            else:
                assert output is not None
                scores.append(score(output, target, rows))
        return torch.stack(scores, dim=1)

    @torch.no_grad()
    def _activation(self, inputs: Inputs) -> Tensor:
        """The activation of the last run of the layer."""
        assert self.layer is not None
        recorded = {self.layer: self._last_run(self.layer)}
        with hooked(self.model, recorded, stop=True, detach=True) as activations:
            output_of(self.model, inputs, self.preprocess)
        self._check_runs(activations, (), [self.layer])
        return activations[self.layer]

    def _last_run(self, layer: str) -> str:
        assert self.found is not None
        return self.found.names[layer]

    def _check_runs(
        self, activations: Activations | None, edited: Iterable[str], recorded: Iterable[str]
    ) -> None:
        """Raises an error where layers ran more or less often than in the first pass."""
        if activations is None or self.found is None:
            return
        seen = {name: activations.runs(self._last_run(name)) for name in edited}
        seen |= {name: activations.runs(name) for name in recorded}
        for name, runs in seen.items():
            if runs != self.found.runs[name] and parse_layer(name).run is None:
                raise ArgumentError(
                    f"the layer {name!r} ran {self.found.runs[name]} times in the first pass and {runs} "
                    f"times in another: its last run is only meant where their number does not depend on "
                    f"the inputs"
                )


def make_problem(
    model: nn.Module,
    inputs: Inputs,
    target: Targets,
    layer: str | None = None,
    preprocess: Preprocess | None = None,
    differentiates: bool = False,
    batch_size: int = BATCH_SIZE,
) -> Problem:
    """Returns the problem for the arguments of a method.

    Args:
        model: The network.
        inputs: What the user gave.
        target: What the user gave.
        layer: The layer that is attributed to, None for the inputs.
        preprocess: Applied to the inputs before the network.
        differentiates: Whether gradients are needed.
        batch_size: How many inputs pass through the network at a time.

    Raises:
        ShapeError: Inputs without a common batch axis, or another number of targets than inputs.
        ArgumentError: An empty list of targets, inputs that are no tensors, or no inputs with gradients where
            they are needed.
        UnitError: A target that is no unit and no index.
        LayerError: A layer that the model does not have, or that does not run.
    """
    parts = parts_of(inputs)
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        raise ArgumentError(
            f"inputs are a tensor, a tuple or a dictionary of tensors, got {type(inputs).__name__}"
        )
    sizes = {part.shape[0] if part.dim() else None for part in parts}
    if len(sizes) != 1 or None in sizes or 0 in sizes:
        shapes = ", ".join(str(tuple(part.shape)) for part in parts)
        raise ShapeError(f"inputs are batches of the same, positive length, got {shapes}")
    several = isinstance(target, list | tuple)
    given: Sequence[Any] = target if isinstance(target, list | tuple) else [target]
    if not given:
        raise ArgumentError("a list of targets must not be empty")
    targets = tuple(scored(model, one, len(parts[0])) for one in given)
    # copies: the model may write into its inputs, and tensors made in inference mode have no gradients
    parts = tuple(part.detach().clone() for part in parts)
    fixed = _fixed(parts) if differentiates else (False,) * len(parts)
    problem = Problem(parts, model, like(inputs, parts), targets, several, None, preprocess, fixed)
    problem = _attached(problem.of_inputs(), layer, batch_size)
    if differentiates:
        problem.leaves(problem.tensors)
    return problem


def _fixed(parts: Sequence[Tensor]) -> tuple[bool, ...]:
    """Which inputs have no gradient, if others have one."""
    moves = [part.is_floating_point() or part.is_complex() for part in parts]
    return tuple(not move and any(moves) for move in moves)


def _attached(problem: Problem, layer: str | None, batch_size: int) -> Problem:
    """The problem, attributed to a layer if there is one, with how often layers run that matter."""
    units = [target.layer for target in problem.targets if isinstance(target, Unit)]
    names = dict.fromkeys(units if layer is None else [layer, *units])
    if not names:
        return problem
    first, *others = batches(len(problem), batch_size)
    rows = problem._rows(first)
    found = survey(problem.model, names, lambda: output_of(problem.model, rows, problem.preprocess))
    problem = replace(problem, layer=layer, found=found)
    if layer is None:
        return problem
    activations = [found.activations[layer]]
    activations += [problem._activation(problem._rows(others_rows)) for others_rows in others]
    activation = torch.cat(activations)
    if len(activation) != len(problem):
        raise ShapeError(
            f"the activation of layer {layer!r} is {tuple(activation.shape)}, expected a row for each of the "
            f"{len(problem)} inputs"
        )
    return replace(problem, tensors=(activation,))
