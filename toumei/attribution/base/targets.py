"""Targets: the number of the output, or the unit within the network, that is the score."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...core.errors import OutputError, ShapeError, UnitError
from ...core.layout import Layout, with_channels_first
from ...core.names import Unit, parse
from ...core.outputs import main_tensor
from ...core.summaries import counted, listed
from ...core.targets import resolve
from .names import class_index

Target = int | str | Unit | Tensor | Callable[[Tensor], Tensor]
Targets = Target | Sequence[Target] | None
OfOutput = int | Tensor | Callable[[Tensor], Tensor] | None
Scored = OfOutput | Unit


def scored(model: nn.Module, target: Any, count: int, classes: Sequence[str] = ()) -> Scored:
    """Returns a target as an index, an index for each input (N,), a function or a unit.

    Args:
        model: The network.
        target: What the user gave.
        count: How many inputs there are, N.
        classes: The names of the outputs, which are targets too; an array of them is one for each input.

    Raises:
        UnitError: Neither a class nor a unit nor an index, a class of outputs without names, or a number
            that may be a label.
        ShapeError: Another number of indices than inputs.
        LayerError: A unit of a layer that the model does not have.
    """
    if isinstance(target, str) and (target in classes or ":" not in target):
        return _class_index(model, target, classes)
    named = _rows_by_name(model, target, classes)
    if named is not None:
        _check_count(named, count)
        return named
    if isinstance(target, str | Unit):
        return _unit(model, target)
    if target is None or (callable(target) and not isinstance(target, Tensor)):
        return target
    try:
        index = target if isinstance(target, Tensor) else torch.tensor(target)
        whole = not (index.is_floating_point() or index.is_complex() or index.dtype == torch.bool)
    except (TypeError, ValueError, RuntimeError):
        whole = False
    if not whole or index.dim() > 1:
        got = f"{tuple(target.shape)} of {target.dtype}" if isinstance(target, Tensor) else repr(target)
        raise UnitError(f"a target is the index of an output, or one index an input ({count},), got {got}")
    if getattr(model, "numbered", False):
        raise UnitError(
            f"the labels of the classes are numbers, {listed(getattr(model, 'categories', ()))}, and other "
            f"ones than those of the outputs: give the name of a class, such as {classes[0]!r}, or an array "
            f"of names, such as labels.astype(str)"
        )
    if index.dim() == 0:
        return int(index)
    _check_count(index, count)
    return index.long().clone()


def _check_count(index: Tensor, count: int) -> None:
    if len(index) != count:
        raise ShapeError(
            f"{counted(len(index), 'target')} for {counted(count, 'input')}: give one, or one an input"
        )


def _class_index(model: nn.Module, name: str, classes: Sequence[str]) -> int:
    """The number of a class."""
    if not classes and name in dict(model.named_modules()):
        raise UnitError(f"a target is one unit, such as '{name}:0', got the whole layer {name!r}")
    if not classes:
        raise UnitError(
            f"no class {name!r}: the outputs have no names, give class_names=, or the number of an output; "
            f"a unit is 'layer:channel'"
        )
    return class_index(name, classes)


def _rows_by_name(model: nn.Module, target: Any, classes: Sequence[str]) -> Tensor | None:
    """The numbers of the classes whose names stand in an array or a column; None for anything else."""
    if isinstance(target, str | Unit | Tensor) or not hasattr(target, "dtype"):
        return None
    names = np.asarray(target)
    if names.ndim != 1 or not all(isinstance(name, str) for name in names.tolist()):
        return None
    numbers = {name: _class_index(model, name, classes) for name in dict.fromkeys(names.tolist())}
    return torch.tensor([numbers[name] for name in names.tolist()], dtype=torch.long)


def target_names(targets: Sequence[Scored], classes: Sequence[str]) -> tuple[str, ...] | None:
    """Returns the names of classes and units, None if a target has no name."""
    names = []
    for target in targets:
        if isinstance(target, Unit):
            names.append(str(target))
        elif isinstance(target, int) and -len(classes) <= target < len(classes):
            names.append(classes[target])
    return tuple(names) if len(names) == len(targets) else None


def classes_of_rows(targets: Sequence[Scored], classes: Sequence[str]) -> tuple[str, ...] | None:
    """Returns the class of each input, where the only target is an index for each; None without names."""
    target = targets[0] if len(targets) == 1 else None
    if not isinstance(target, Tensor) or not classes:
        return None
    indices = target.tolist()
    known = all(-len(classes) <= index < len(classes) for index in indices)
    return tuple(classes[index] for index in indices) if known else None


def score(
    output: Any, target: OfOutput, rows: Tensor | None = None, class_names: Sequence[str] = ()
) -> Tensor:
    """Returns the score of one target, not a unit, for each row of an output (B, ...), (B,).

    Args:
        output: The network's; an index is that of its main tensor.
        target: As `scored` returns it.
        rows: (B,) which of the inputs each row belongs to, for a target that has an index for each.
        class_names: What the user calls the outputs; empty for what the user did not name.

    Raises:
        UnitError: An index that the output does not have.
        ShapeError: Another number of names than outputs.
        OutputError: A function that returns something else than scores.
    """
    if callable(target) and not isinstance(target, Tensor):
        return _function_score(output, target)
    main: Tensor = main_tensor(output)
    scores = main[:, None] if main.dim() == 1 else main
    if scores.dim() != 2:
        raise UnitError(
            f"the output is {tuple(main.shape)}: give a function of it as target, such as "
            f"lambda output: output[:, -1, 3]"
        )
    count = scores.shape[1]
    if target is None:
        if count > 1:
            raise UnitError(
                f"the network has {counted(count, 'output')}: give a target from 0 to {count - 1}"
            )
        return scores[:, 0]
    if class_names and len(class_names) != count:
        raise ShapeError(
            f"class_names has {counted(len(class_names), 'name')} for {counted(count, 'output')}"
        )
    least, most = (target, target) if isinstance(target, int) else (int(target.min()), int(target.max()))
    if least < -count or most >= count:
        wrong = most if most >= count else least
        raise UnitError(f"no output {wrong}: the network has {count}, 0 to {count - 1}")
    if isinstance(target, int):
        return scores[:, target]
    index = target.to(scores.device)
    of_rows = index if rows is None else index[rows.to(index.device)]
    return scores.gather(1, of_rows[:, None] % count)[:, 0]


def unit_score(activation: Tensor, unit: Unit, layout: Layout | None = None) -> Tensor:
    """Returns a unit's activation for each row, (B,), or the mean over positions of a channel without one.

    Args:
        activation: The activation of the unit's layer.
        unit: The unit.
        layout: What is known of the axes of the activation.

    Raises:
        UnitError: A channel or position outside of the layer.
    """
    assert unit.channel is not None
    channels = with_channels_first(activation, layout, unit.layer, unit.channel_axis, unit.grid)
    channels.check([unit.channel])
    positions = channels.values[:, unit.channel]
    return positions.mean(1) if unit.position is None else positions[:, channels.index(unit.position)]


def _unit(model: nn.Module, text: str | Unit) -> Unit:
    unit = parse(text)
    resolve(model, [unit.layer])
    if unit.channel is None:
        raise UnitError(f"a target is one unit, such as '{text}:0', got the whole layer {text!r}")
    return unit


def _function_score(output: Any, function: Callable[[Any], Tensor]) -> Tensor:
    """The scores (B,) by a function, which is given all heads of an output in a tuple, a list or a dict."""
    main = main_tensor(output)
    heads = output.values() if type(output) is dict else output if isinstance(output, tuple | list) else ()
    several = sum(isinstance(head, Tensor) for head in heads) > 1
    scores = function(output if several else main)
    if not isinstance(scores, Tensor) or scores.shape != main.shape[:1]:
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise OutputError(
            f"a target function must return one score a row, {tuple(main.shape[:1])}, got {got}"
        )
    return scores
