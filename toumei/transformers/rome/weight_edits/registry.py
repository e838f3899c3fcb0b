"""The registry of the edits that are applied to a model, and of the weights without them.

The original of each edited weight is stored once. The edited weight is always the original plus the sum of
all applied changes, rounded once. So edits can be reverted in any order, and after the last one the weight is
the original bit for bit.

Ctrl-C waits while weights are written. After a write that ended midway all the same, since memory ran out for
example, the weight holds either the changes from before or those that were wanted; the next call finds out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ....core.activations import version_of
from ....core.errors import EditError
from ....core.fingerprint import fingerprint_of
from ....core.interrupts import uninterrupted
from ....core.linear_layers import is_conv1d, without_adapter
from ....core.tensors import whole
from ...model.weights import backup, editable, set_weight
from .low_rank import LowRank

Changes = Mapping[object, LowRank]


@dataclass(eq=False)
class _Carried:
    """The original of an edited weight, and the changes that are applied to it, by owner.

    Attributes:
        original: The weight without changes.
        version: How often the weight had been written to after the last write that was finished.
        changes: What that write added to it.
        wanted: What a write that has begun is to add to it; the same object as `changes` when none has.
    """

    original: Tensor
    version: int
    changes: Changes = field(default_factory=dict)
    wanted: Changes = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.wanted = self.changes


_CARRIED: WeakKeyDictionary[nn.Module, _Carried] = WeakKeyDictionary()


def apply(changes: Mapping[nn.Module, LowRank], owner: object) -> None:
    """Adds changes to the weights of modules: to all of them, or to none and raises an error.

    Args:
        changes: For each `nn.Linear` or `Conv1D` its change (out, in). Of a layer with an adapter the layer
            inside of it is changed.
        owner: The owner of the changes; one owner changes a module once.

    Raises:
        EditError: A weight cannot be edited: not in memory, quantized beyond rebuilding, of another shape, or
            changed by others.
    """
    changes = {without_adapter(module): change for module, change in changes.items()}
    for module, change in changes.items():
        _check(module, change)
    try:
        with uninterrupted():
            for module, change in changes.items():
                _write(module, {**_changes(module), owner: change})
    except BaseException:  # memory may run out between two layers, or Ctrl-C come
        with uninterrupted():
            _take_back(changes, owner)
        raise


def remove(modules: Iterable[nn.Module], owner: object, force: bool = False) -> None:
    """Removes the changes of an owner; changes of other owners stay.

    Args:
        modules: The modules that the owner changed.
        owner: The owner of the changes.
        force: Also where something else wrote into a weight after the edit; that is lost then.

    Raises:
        EditError: Something else wrote into a weight after the edit, so the stored original is outdated.
    """
    modules = [without_adapter(module) for module in modules]
    with uninterrupted():
        if not force:
            for module in modules:
                if carries(module, owner):
                    _check_untouched(module)
        _take_back(modules, owner)


def restore(model: nn.Module) -> None:
    """Gives all weights of a model back as they were before the first edit.

    What something else wrote into them after it is lost.
    """
    with uninterrupted():
        for module in model.modules():
            if module in _CARRIED:
                _write(module, {})


def carries(module: nn.Module, owner: object) -> bool:
    """Returns whether a change of the owner is applied to the module."""
    return owner in _changes(module)


def earlier_keys(module: nn.Module) -> Tensor | None:
    """Returns the keys (m, in) that later edits of the module have to preserve, None if there are none."""
    keys = [change.keys for change in _changes(module).values() if change.keys is not None]
    return torch.cat(keys) if keys else None


def unedited_fingerprint(model: nn.Module) -> str:
    """Returns a hash of all weights as they are without the applied edits; see `fingerprint_of`."""
    originals = {
        f"{name}.weight": _CARRIED[module].original
        for name, module in model.named_modules()
        if module in _CARRIED and {**_CARRIED[module].changes, **_CARRIED[module].wanted}
    }
    return fingerprint_of(model, originals)


def _changes(module: nn.Module) -> Changes:
    module = without_adapter(module)
    return _CARRIED[module].changes if module in _CARRIED else {}


def _check(module: nn.Module, change: LowRank) -> None:
    weight = editable(module)
    shape = tuple(reversed(weight.shape)) if is_conv1d(module) else tuple(weight.shape)
    given = (change.left.shape[0], change.right.shape[1])
    if given != shape:
        raise EditError(f"a change of {given} values and keys does not fit a weight of {shape}")
    _check_untouched(module)


def _check_untouched(module: nn.Module) -> None:
    """Fails if something else wrote into the weight; forgets the original of a weight without changes."""
    if module not in _CARRIED:
        return
    carried, weight = _CARRIED[module], editable(module)
    known = (version_of(weight), weight.dtype) == (carried.version, carried.original.dtype)
    if carried.wanted is not carried.changes and _holds(module, carried.wanted):
        _note(module, carried.wanted)  # the write was finished, and nothing but its note is missing
    elif known or not carried.changes or _holds(module, carried.changes):
        _note(module, carried.changes)
    else:
        raise EditError(
            f"the weight of {module} was changed by something else while an edit was applied, so it "
            f"cannot be reverted bit for bit: revert edits before training, loading or casting a model"
        )


def _holds(module: nn.Module, changes: Changes) -> bool:
    """Whether the weight is the original plus these changes, bit for bit."""
    weight, original = whole(editable(module)), _CARRIED[module].original
    if weight.dtype != original.dtype:
        return False
    expected = _edited(module, changes) if changes else whole(original)
    return torch.equal(weight, expected.to(weight))


def _take_back(modules: Iterable[nn.Module], owner: object) -> None:
    for module in modules:
        if module in _CARRIED and owner in {**_CARRIED[module].changes, **_CARRIED[module].wanted}:
            changes = _CARRIED[module].changes
            _write(module, {other: change for other, change in changes.items() if other is not owner})


def _write(module: nn.Module, changes: Changes) -> None:
    """Sets the weight to the original plus these changes."""
    if module not in _CARRIED:
        weight = editable(module)
        _CARRIED[module] = _Carried(backup(weight), version_of(weight))
    carried = _CARRIED[module]
    value = _edited(module, changes) if changes else carried.original
    carried.wanted = changes
    set_weight(module, value)
    _note(module, changes)


def _note(module: nn.Module, changes: Changes) -> None:
    """Notes what the weight holds now; the original is forgotten where it holds no changes."""
    carried = _CARRIED[module]
    carried.version = version_of(editable(module))
    carried.changes = carried.wanted = changes
    if not changes:
        del _CARRIED[module]


@torch.no_grad()
def _edited(module: nn.Module, changes: Changes) -> Tensor:
    """The original plus all changes, summed in float64, to be rounded once."""
    original = whole(_CARRIED[module].original)
    place = torch.device("cpu") if original.device.type == "mps" else original.device
    left = torch.cat([change.left for change in changes.values()], dim=1).to(place, torch.float64)
    right = torch.cat([change.right for change in changes.values()]).to(place, torch.float64)
    change = left @ right
    return original.to(place, torch.float64) + (change.T if is_conv1d(module) else change)
