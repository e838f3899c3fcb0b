"""The registry of the edits that are applied to a model, and of the weights without them.

The original of each edited weight is stored once. The edited weight is always the original plus the sum of
all applied changes, rounded once. So edits can be reverted in any order, and after the last one the weight is
the original bit for bit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ....core.errors import EditError
from ....core.fingerprint import fingerprint_of
from ....core.tensors import whole
from ...model.discovery import is_conv1d
from ...model.weights import backup, editable, set_weight
from .low_rank import LowRank


@dataclass(eq=False)
class _Carried:
    """The original of an edited weight, and the changes that are applied to it, by owner."""

    original: Tensor
    changes: dict[object, LowRank] = field(default_factory=dict)
    version: int = 0


_CARRIED: WeakKeyDictionary[nn.Module, _Carried] = WeakKeyDictionary()


def apply(changes: Mapping[nn.Module, LowRank], owner: object) -> None:
    """Adds changes to the weights of modules: to all of them, or to none and raises an error.

    Args:
        changes: For each `nn.Linear` or `Conv1D` its change (out, in).
        owner: The owner of the changes; one owner changes a module once.

    Raises:
        EditError: A weight cannot be edited: not in memory, quantized beyond rebuilding, of another shape, or
            changed by others.
    """
    for module, change in changes.items():
        _check(module, change)
    try:
        for module, change in changes.items():
            if module not in _CARRIED:
                _CARRIED[module] = _Carried(backup(editable(module)))
            _CARRIED[module].changes[owner] = change
            _write(module)
    except BaseException:  # memory may run out, or Ctrl-C come, between two layers
        for module in changes:
            if carries(module, owner):
                _take_back(module, owner)
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
    carrying = [module for module in modules if carries(module, owner)]
    if not force:
        for module in carrying:
            _check_untouched(module)
    for module in carrying:
        _take_back(module, owner)


def owners(model: nn.Module) -> dict[object, list[nn.Module]]:
    """Returns the owners of the changes in a model, and the modules that each of them changed."""
    found: dict[object, list[nn.Module]] = {}
    for module in model.modules():
        for owner in _CARRIED[module].changes if module in _CARRIED else ():
            found.setdefault(owner, []).append(module)
    return found


def carries(module: nn.Module, owner: object) -> bool:
    """Returns whether a change of the owner is applied to the module."""
    return module in _CARRIED and owner in _CARRIED[module].changes


def earlier_keys(module: nn.Module) -> Tensor | None:
    """Returns the keys (m, in) that later edits of the module have to preserve, None if there are none."""
    changes = _CARRIED[module].changes.values() if module in _CARRIED else ()
    keys = [change.keys for change in changes if change.keys is not None]
    return torch.cat(keys) if keys else None


def unedited_fingerprint(model: nn.Module) -> str:
    """Returns a hash of all weights as they are without the applied edits; see `fingerprint_of`."""
    originals = {
        f"{name}.weight": _CARRIED[module].original
        for name, module in model.named_modules()
        if module in _CARRIED
    }
    return fingerprint_of(model, originals)


def _check(module: nn.Module, change: LowRank) -> None:
    weight = editable(module)
    shape = tuple(reversed(weight.shape)) if is_conv1d(module) else tuple(weight.shape)
    given = (change.left.shape[0], change.right.shape[1])
    if given != shape:
        raise EditError(f"a change of {given} values and keys does not fit a weight of {shape}")
    _check_untouched(module)


def _check_untouched(module: nn.Module) -> None:
    if module in _CARRIED:
        weight, carried = editable(module), _CARRIED[module]
        if (weight._version, weight.dtype) != (carried.version, carried.original.dtype):
            raise EditError(
                f"the weight of {module} was changed by something else while an edit was applied, so it "
                f"cannot be reverted bit for bit: revert edits before training, loading or casting a model"
            )


def _take_back(module: nn.Module, owner: object) -> None:
    del _CARRIED[module].changes[owner]
    _write(module)
    if not _CARRIED[module].changes:
        del _CARRIED[module]


@torch.no_grad()
def _write(module: nn.Module) -> None:
    """Sets the weight to the original plus all changes, summed in float64 and rounded once."""
    carried = _CARRIED[module]
    if not carried.changes:
        set_weight(module, carried.original)
        return
    original = whole(carried.original)
    place = torch.device("cpu") if original.device.type == "mps" else original.device
    left = torch.cat([change.left for change in carried.changes.values()], dim=1).to(place, torch.float64)
    right = torch.cat([change.right for change in carried.changes.values()]).to(place, torch.float64)
    change = left @ right
    set_weight(module, original.to(place, torch.float64) + (change.T if is_conv1d(module) else change))
    carried.version = editable(module)._version
