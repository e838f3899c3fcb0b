"""Attributions of many inputs: in batches, in several processes if need be."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..core.checks import checked
from ..core.errors import ShapeError
from ..core.kinds import as_names
from ..core.parallel import sweep
from ..core.summaries import counted
from .base.baseline_columns import in_order
from .base.baselines import AtLayer, Baseline, BaselineLike, Fixed
from .base.inputs import Inputs, like, parts_of, row_count
from .base.method import Method
from .base.names import Names, named
from .base.result import Attribution
from .base.targets import Targets
from .row_settings import (
    has_tensors,
    is_of_layer,
    rows_of_inputs,
    rows_of_layer,
    with_all_features,
    with_features,
)


@checked
def attribute_many(
    method: Method,
    inputs: Inputs | Any,
    target: Targets = None,
    baselines: BaselineLike = None,
    *,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    row_names: Sequence[str] | None = None,
    batch_size: int = 32,
    jobs: int = 1,
    folder: str | Path | None = None,
    verbose: bool = True,
) -> Attribution:
    """Returns the attribution of many inputs, with a call of the method for each batch of them.

    A batch depends on its inputs, the method and its arguments only, so that any number of jobs gives the
    same contributions. A method that samples begins each batch with its seed. Features that differ by input
    are those of one call, and 0 where an input does not have one.

    Args:
        method: The configured method.
        inputs: As for the method: a tensor (N, ...), a tuple or a dictionary of tensors, or a table.
        target: As for the method: one for all inputs, a tensor of one index an input, or a list of these.
        baselines: As for the method; a tensor with a row for each input, or for each activation of the layer,
            has a baseline for each; a background, as shap takes it, is ``FromData(background)``.
        feature_names: As for the method.
        class_names: As for the method.
        row_names: As for the method.
        batch_size: How many inputs a call of the method has.
        jobs: How many batches run at once, in processes or on a cluster; see `toumei.core.sweep`.
        folder: Where each finished batch is kept, so that a killed run goes on where it was.
        verbose: Show a progress bar of the batches.

    Raises:
        ShapeError: Inputs without a common batch axis, or another number of targets, names, or
            rows of baselines or features than inputs.
        ArgumentError: Inputs that are no tensors; or as for the method.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from toumei.attribution import Saliency
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
        >>> result = attribute_many(Saliency(model), torch.rand(100, 3, 4, 4), 1, jobs=1, verbose=False)
        >>> result.values.shape
        torch.Size([100, 3, 4, 4])
    """
    given, names = named(inputs, method.model, feature_names, row_names)
    fitted = getattr(method.model, "feature_names", None)
    baselines = in_order(baselines, inputs, fitted, names.features)
    classes = None if class_names is None else tuple(as_names(class_names))
    batches = _batches(method.model, method, given, target, baselines, names=names, batch_size=batch_size)
    differ = any(batch.features is not None for batch in batches)
    task = _BatchTask(
        with_features(method, None) if differ else method,
        names.features,
        classes,
        tuple(_objects_in((target, baselines))),
    )
    found = sweep(task, batches, jobs=jobs, folder=folder, verbose=verbose)
    if differ:
        pairs = zip(found, batches, strict=True)
        features = getattr(method, "features", None)
        found = [with_all_features(result, batch.features, features) for result, batch in pairs]
    return replace(Attribution.cat(found), row_names=names.rows)


@dataclass(frozen=True)
class _Batch:
    """The arguments of a call of the method."""

    inputs: Inputs
    target: Targets
    baselines: BaselineLike
    features: Any = None  # where they differ by input


@dataclass(frozen=True)
class _BatchTask:
    """The function of a sweep over batches.

    Attributes:
        method: The method.
        feature_names: Of the columns of a table.
        class_names: Of the outputs.
        objects: The functions and baselines among the arguments, so that their code tells results apart.
    """

    method: Method
    feature_names: tuple[str, ...] | None
    class_names: tuple[str, ...] | None
    objects: tuple[Any, ...]

    def __call__(self, batch: _Batch) -> Attribution:
        """Returns the attribution of a batch."""
        method = self.method if batch.features is None else with_features(self.method, batch.features)
        return method(
            batch.inputs,
            batch.target,
            batch.baselines,
            feature_names=self.feature_names,
            class_names=self.class_names,
        )


@checked
def _batches(
    model: nn.Module,
    method: Method,
    inputs: Inputs,
    target: Targets,
    baselines: Any,
    *,
    names: Names,
    batch_size: int,
) -> list[_Batch]:
    """The arguments of each call; arrays were made tensors in the precision of the model."""
    count, features = row_count(inputs), getattr(method, "features", None)
    names.check(inputs)
    of_tensors = of_baselines = rows_of_inputs(inputs)
    inner = is_of_layer(baselines)
    if method.layer is not None and ((inner and has_tensors(baselines)) or has_tensors(features)):
        of_tensors = rows_of_layer(method, inputs)
    if inner:
        of_baselines = of_tensors
    differ = has_tensors(features) and of_tensors.differ(features)
    return [
        _Batch(
            like(inputs, [part[rows].clone() for part in parts_of(inputs)]),  # without the storage of all
            _rows_of_target(target, count, rows),
            of_baselines.of(baselines, rows),
            of_tensors.of(features, rows) if differ else None,
        )
        for rows in (slice(start, start + batch_size) for start in range(0, count, batch_size))
    ]


def _objects_in(given: Any) -> Iterator[Any]:
    """The functions and baselines in arguments."""
    if isinstance(given, list | tuple | dict):
        for one in given.values() if isinstance(given, dict) else given:
            yield from _objects_in(one)
    elif isinstance(given, AtLayer):
        yield from _objects_in(given.baseline)
    elif isinstance(given, Baseline | FunctionType) and not isinstance(given, Fixed):
        yield given


def _rows_of_target(target: Any, count: int, rows: slice) -> Any:
    """The targets of some of the inputs."""
    if isinstance(target, list | tuple):
        return [_rows_of_target(one, count, rows) for one in target]
    if not isinstance(target, Tensor) and hasattr(target, "dtype"):
        target = np.asarray(target)  # of names of classes
    if not isinstance(target, Tensor | np.ndarray) or target.ndim != 1:
        return target
    if len(target) != count:
        raise ShapeError(
            f"{counted(len(target), 'target')} for {counted(count, 'input')}: give one, or one an input"
        )
    return target[rows].clone() if isinstance(target, Tensor) else target[rows]
