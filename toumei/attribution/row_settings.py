"""What a method is given for each of many inputs: rows of baselines and of features."""

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..core.errors import ShapeError
from ..core.modules import evaluating, frozen
from ..core.summaries import counted
from .base.baselines import AtLayer, Fixed
from .base.inputs import Inputs, like, parts_of, row_count
from .base.method import Method
from .base.problem_arguments import make_problem
from .base.result import Attribution


@dataclass(frozen=True)
class Rows:
    """Takes those rows of a setting that belong to some of the inputs.

    Attributes:
        count: How many inputs there are.
        names: The names of the tensors that are attributed to, or their positions.
        axes: How many axes each of them has; a setting with as many has a row for each input, or only one.
    """

    count: int
    names: tuple[str | int, ...]
    axes: tuple[int, ...]

    def of(self, given: Any, rows: slice) -> Any:
        """Returns a setting, or a list or dictionary of them, for some of the inputs.

        Raises:
            ShapeError: Another number of rows than inputs.
        """
        if isinstance(given, Mapping):
            places = {name: place for place, name in enumerate(self.names)}
            return {
                name: self._of_tensor(one, places.get(name, place), rows)
                for place, (name, one) in enumerate(given.items())
            }
        if isinstance(given, list | tuple):
            return [self._of_tensor(one, place, rows) for place, one in enumerate(given)]
        return self._of_tensor(given, 0, rows)

    def differ(self, given: Any) -> bool:
        """Returns whether a setting, or one of several, has a row for each of the inputs."""
        pairs = zip(_leaves(self.of(given, slice(1))), _leaves(given), strict=True)
        return any(one is not whole for one, whole in pairs)

    def _of_tensor(self, given: Any, place: int, rows: slice) -> Any:
        if isinstance(given, AtLayer):
            inner = self._of_tensor(given.baseline, place, rows)
            return given if inner is given.baseline else AtLayer(inner)
        if isinstance(given, Fixed):
            tensor = self._of_tensor(given.tensor, place, rows)
            return given if tensor is given.tensor else Fixed(tensor)
        shape = tuple(getattr(given, "shape", ()))
        if place >= len(self.axes) or len(shape) != self.axes[place] or shape[0] == 1:
            return given
        if shape[0] != self.count:
            raise ShapeError(
                f"{counted(shape[0], 'row')} of {shape} for {counted(self.count, 'input')}: give one, or one "
                "an input"
            )
        cut = getattr(given, "iloc", given)[rows]
        return cut.clone() if isinstance(cut, Tensor) else cut  # without the storage of all


def rows_of_inputs(inputs: Inputs) -> Rows:
    """Returns what takes the rows of settings for inputs."""
    parts = parts_of(inputs)
    names = tuple(inputs) if isinstance(inputs, dict) else tuple(range(len(parts)))
    return Rows(row_count(inputs), names, tuple(part.dim() for part in parts))


def rows_of_layer(method: Method, inputs: Inputs) -> Rows:
    """Returns what takes the rows of settings for a layer; passes of two inputs tell what tensors it has."""
    first = like(inputs, [part[:2] for part in parts_of(inputs)])
    with torch.inference_mode(False), torch.no_grad(), frozen(method.model), evaluating(method.model):
        problem = make_problem(method.model, first, None, layer=method.layer, preprocess=method.preprocess)
    return Rows(row_count(inputs), problem.names, tuple(tensor.dim() for tensor in problem.tensors))


def is_of_layer(baselines: Any) -> bool:
    """Returns whether baselines are those of a layer."""
    return any(isinstance(one, AtLayer) for one in _leaves(baselines))


def has_tensors(given: Any) -> bool:
    """Returns whether a setting, or one of several, is a tensor, or a baseline that holds one."""
    inner = (one.baseline if isinstance(one, AtLayer) else one for one in _leaves(given))
    return any(isinstance(one, Fixed) or hasattr(one, "shape") for one in inner)


def with_features(method: Method, features: Any) -> Method:
    """Returns a copy of a method with other features."""
    changed = copy(method)
    changed.features = features  # type: ignore[attr-defined]
    return changed


def with_all_features(result: Attribution, features: Any, all_features: Any) -> Attribution:
    """Returns the attribution of some inputs with columns for the features of all inputs, zero where new.

    Args:
        result: The attribution of some inputs.
        features: The features of these inputs.
        all_features: The features of all inputs.
    """
    labels, known = _labels(all_features), _labels(features)
    places = torch.searchsorted(labels, known)

    def spread(found: Tensor | None, *axes: int) -> Tensor | None:
        if found is None:
            return None
        for axis in axes:
            shape = list(found.shape)
            shape[axis] = len(labels)
            found = found.new_zeros(shape).index_copy(axis, places, found)
        return found

    return replace(
        result, features=spread(result.features, -1), interactions=spread(result.interactions, -1, -2)
    )


def _labels(features: Any) -> Tensor:
    tensors = [one.flatten().long().cpu() for one in _leaves(features) if one is not None]
    labels: Tensor = torch.cat(tensors).unique()
    return labels


def _leaves(given: Any) -> Iterable[Any]:
    if isinstance(given, Mapping):
        return given.values()
    return given if isinstance(given, list | tuple) else (given,)
