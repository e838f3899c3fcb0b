"""The problem for the arguments of a method: the targets, the inputs that change, the layer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ...core.errors import ArgumentError
from ...core.modules import categories_of
from ...core.names import Unit
from ...core.surveys import survey
from .backward import leaves_of
from .baselines import BaselineLike
from .batching import BATCH_SIZE, batches
from .input_roles import fixed_inputs
from .inputs import Inputs, Layers, Preprocess, like, output_of, parts_of, row_count
from .places import check_rows, layers_of, places_in
from .problem import Problem
from .targets import Targets, scored


def make_problem(
    model: nn.Module,
    inputs: Inputs,
    target: Targets,
    *,
    layer: Layers = None,
    preprocess: Preprocess | None = None,
    differentiates: bool = False,
    batch_size: int = BATCH_SIZE,
    baselines: BaselineLike = None,
    class_names: Sequence[str] = (),
) -> Problem:
    """Returns the problem for the arguments of a method.

    Args:
        model: The network.
        inputs: What the user gave.
        target: What the user gave.
        layer: The layer that is attributed to, several in a list, None for the inputs.
        preprocess: Applied to the inputs before the network.
        differentiates: Whether gradients are needed.
        batch_size: How many inputs pass through the network at a time.
        baselines: What the user gave; a mask with a baseline of its own is not fixed.
        class_names: The names of the outputs; by default those that the model has.

    Raises:
        ShapeError: Inputs without a common batch axis, another number of targets than inputs, or of names
            than outputs.
        ArgumentError: An empty list of targets, inputs that are no tensors, or no inputs with gradients where
            they are needed.
        UnitError: A target that is no unit and no index.
        LayerError: A layer that the model does not have, or that does not run.
    """
    count, parts = row_count(inputs), parts_of(inputs)
    several = isinstance(target, list | tuple)
    given: Sequence[Any] = target if isinstance(target, list | tuple) else [target]
    if not given:
        raise ArgumentError("a list of targets must not be empty")
    classes = tuple(class_names) or categories_of(model)
    targets = tuple(scored(model, one, count, classes) for one in given)
    # copies: the model may write into its inputs, and tensors made in inference mode have no gradients
    parts = tuple(part.detach().clone() for part in parts)
    fixed, of_path = fixed_inputs(model, inputs, baselines, preprocess, differentiates, layer is not None)
    structure = like(inputs, parts)
    problem = Problem(
        parts,
        model,
        structure,
        targets,
        several,
        None,
        preprocess,
        fixed,
        of_path,
        classes=classes,
        all_named=bool(class_names),
    )
    problem = _attached(replace(problem, tensors=problem.moving(parts)), layer, batch_size)
    if differentiates:
        leaves_of(problem.tensors)
    return problem


def _attached(problem: Problem, layer: Layers, batch_size: int) -> Problem:
    """The problem, attributed to layers if there are any, with how often layers run that matter."""
    units = [target.layer for target in problem.targets if isinstance(target, Unit)]
    layers = layers_of(layer)
    names = dict.fromkeys([*layers, *units])
    if not names:
        return problem
    first, *others = batches(len(problem), batch_size)

    def run(count: int) -> Any:
        rows = problem.inputs_of(torch.arange(count) % len(first))
        return output_of(problem.model, rows, problem.preprocess)

    found = survey(problem.model, names, lambda: run(len(first)))
    problem = replace(problem, layer=layer, found=found)
    if layer is None:
        return problem
    places = places_in(problem.model, layers, found, run, len(first))
    problem = replace(problem, places=tuple(places))
    # the activations of layers that return one tensor are known from the first pass
    known = [one.in_front(found.activations[one.layer]) for one in places if one.name == one.layer]
    pieces = [known if len(known) == len(places) else problem.activations(problem.inputs_of(first))]
    pieces += [problem.activations(problem.inputs_of(rows)) for rows in others]
    for piece, rows in zip(pieces, (first, *others), strict=True):
        check_rows(places, piece, len(rows))
    return replace(problem, tensors=tuple(torch.cat(of_place) for of_place in zip(*pieces, strict=True)))
