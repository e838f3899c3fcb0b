"""The inputs of a method, and the scores of targets as a function of them or of a layer's activation."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ...core.errors import UnreachedLayerError
from ...core.hooks import hooked
from ...core.modules import eager
from ...core.names import Unit
from ...core.surveys import Survey
from ...core.targets import Edit
from .backward import differentiate, leaves_of
from .batching import BATCH_SIZE, batches, take_rows
from .inputs import Inputs, Layers, Preprocess, Values, like, output_of, parts_of
from .places import Place
from .run_counts import check_run, check_runs
from .targets import Scored, score, unit_score

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
        layer: The layer or layers that are attributed to, None for the inputs.
        preprocess: Applied to the inputs before the network.
        fixed: Which inputs do not change, such as a mask beside embeddings; see `fixed_inputs`.
        of_path: Which inputs do not change where inputs are attributed to: also whole numbers and booleans,
            for methods that need gradients.
        found: What a first pass showed of the layer and those of targets; their last run is what counts.
        places: The tensors of the layers, one for each of `tensors`; none for the inputs.
        classes: The names of the outputs, empty where they have none.
        all_named: Whether the user gave these names, which are as many as the outputs then.
        reached: Numbers of the tensors that gradients of the scores have reached so far.
    """

    tensors: tuple[Tensor, ...]
    model: nn.Module
    inputs: Inputs
    targets: tuple[Scored, ...]
    several: bool
    layer: Layers
    preprocess: Preprocess | None
    fixed: tuple[bool, ...]
    of_path: tuple[bool, ...]
    found: Survey | None = None
    places: tuple[Place, ...] = ()
    classes: tuple[str, ...] = ()
    all_named: bool = False
    reached: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.tensors[0])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the inputs, or of the tensors of the layer; empty for inputs without names."""
        if self.layer is not None:
            return tuple(place.name for place in self.places)
        return tuple(self.inputs) if isinstance(self.inputs, dict) else ()

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
        edits = {place.source: place.edit(copy) for place, copy in zip(self.places, copies, strict=True)}
        return self._scores(self.inputs_of(rows), edits, rows)

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
        leaves = leaves_of(tensors)
        with torch.enable_grad():
            scores = self.scores(leaves, rows)
        return scores.detach(), self.differentiated(scores, leaves)

    def differentiated(self, scores: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns the gradients, each (T, B, ...), of scores (B, T) by what is attributed to."""
        return differentiate(scores, leaves, self.reached)

    def gradients_by(self, inputs: Sequence[Tensor], rows: Tensor) -> tuple[Tensor, ...]:
        """Returns the gradients, each (T, B, ...), of the scores by the layer's activation at other inputs.

        Args:
            inputs: Instead of the inputs, each (B, ...).
            rows: (B,) which of the N inputs each belongs to.
        """
        leaves: dict[int, Tensor] = {}

        def cut(number: int, activation: Tensor) -> Tensor:
            leaves[number] = activation.detach().movedim(self.places[number].axis, 0).requires_grad_()
            return leaves[number].clone().movedim(0, self.places[number].axis)

        edits = {place.source: partial(cut, number) for number, place in enumerate(self.places)}
        with torch.enable_grad():
            scores = self._scores(self.of_inputs()._whole(inputs, rows), edits, rows)
        return self.differentiated(scores, [leaves[number] for number in range(len(self.places))])

    def of_inputs(self) -> "Problem":
        """Returns the same problem, attributed to the inputs instead of a layer."""
        problem = replace(self, layer=None, places=(), fixed=self.of_path, reached=set())
        return replace(problem, tensors=problem.moving(parts_of(self.inputs)))

    def freed(self, moves: Sequence[bool]) -> "Problem":
        """Returns the same problem in which some inputs change that are fixed, one truth value for each."""
        fixed = tuple(one and not move for one, move in zip(self.fixed, moves, strict=True))
        return self if fixed == self.fixed else replace(self, of_path=fixed).of_inputs()

    def take(self, rows: Tensor, tensors: Sequence[Tensor]) -> "Problem":
        """Returns the problem of some of the inputs, with other tensors instead of theirs.

        Args:
            rows: (B,) which of the N inputs, with repetitions.
            tensors: Instead of `self.tensors`, each (B, ...).
        """
        inputs = self._whole(tensors, rows) if self.layer is None else self.inputs_of(rows)
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
        return self._activations_of(self, inputs, rows, batch_size)

    def on_path(self, inputs: Sequence[Tensor], rows: Tensor, batch_size: int) -> tuple[Tensor, ...]:
        """Returns the layer's activation for points (B, ...) on a path of inputs; see `at_layer`."""
        return self._activations_of(self.of_inputs(), inputs, rows, batch_size)

    def restore(self, tensors: Sequence[Tensor]) -> Values:
        """Returns results, each (T, N, ...), on the CPU and in the structure of the inputs.

        Fixed inputs have results of zero. Of several layers, or of a layer that returns several tensors, it
        is a dictionary by the names of the tensors.
        """
        found = [tensor.detach().cpu() if self.several else tensor.detach()[0].cpu() for tensor in tensors]
        if self.layer is not None:
            if isinstance(self.layer, str) and len(found) == 1:
                return found[0]
            return {place.name: one for place, one in zip(self.places, found, strict=True)}
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

    def inputs_of(self, rows: Tensor | None) -> Any:
        """Returns copies of the inputs (B, ...) that rows (B,) belong to, all of them by default."""
        rows = torch.arange(len(self)) if rows is None else rows
        return like(self.inputs, take_rows(parts_of(self.inputs), rows))

    def _whole(self, tensors: Sequence[Tensor], rows: Tensor | None) -> Any:
        """Inputs (B, ...) in their structure: the tensors, and fixed inputs of rows (B,)."""
        if not any(self.fixed):
            return like(self.inputs, tensors)
        given, parts = iter(tensors), parts_of(self.inputs_of(rows))
        return like(
            self.inputs,
            [part if fixed else next(given) for part, fixed in zip(parts, self.fixed, strict=True)],
        )

    def _scores(self, inputs: Inputs, edits: Mapping[str, Edit], rows: Tensor | None) -> Tensor:
        """The scores (B, T) of inputs, with some places edited, given by their sources."""
        units = [target.layer for target in self.targets if isinstance(target, Unit)]
        recorded = {} if self.found is None else {name: self.found.names[name] for name in units}
        # where inner units are all that is asked for, the rest of the network does not run
        stop = len(units) == len(self.targets)
        output, activations = None, None
        # where there is nothing to hook, putting it up would take as long as the pass of a small network
        block: Any = eager(self.model, ())
        if recorded or edits:
            block = hooked(self.model, recorded, edits, stop=stop)
        try:
            with block as activations:
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
                names = self.classes if self.all_named else ()
                scores.append(score(output, target, rows, names))
        return torch.stack(scores, dim=1)

    @torch.no_grad()
    def activations(self, inputs: Inputs) -> list[Tensor]:
        """Returns the activations (B, ...) of the places for inputs (B, ...)."""
        recorded = {place.name: place.source for place in self.places}
        with hooked(self.model, recorded, stop=True, detach=True) as activations:
            output_of(self.model, inputs, self.preprocess)
        for place in self.places:
            assert self.found is not None
            check_run(self.found, place.layer, activations.runs(place.name))
        found = [activations[place.name] for place in self.places]
        return [place.in_front(tensor) for place, tensor in zip(self.places, found, strict=True)]

    def _activations_of(
        self, problem: "Problem", inputs: Sequence[Tensor], rows: Tensor, batch_size: int
    ) -> tuple[Tensor, ...]:
        """The activations of the places for what changes in a problem, each (B, ...)."""
        pieces = [
            self.activations(problem._whole(take_rows(inputs, index), rows[index]))
            for index in batches(len(rows), batch_size)
        ]
        return tuple(torch.cat(of_place) for of_place in zip(*pieces, strict=True))

    def _check_runs(self, activations: Any, edited: Iterable[str], recorded: Iterable[str]) -> None:
        if activations is not None and self.found is not None:
            check_runs(self.found, activations, self.places, edited, recorded)
