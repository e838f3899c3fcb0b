"""Which edits a model carries at the moment, and its weights without them.

For each edited weight the original is kept once. The edited weight is always the original plus the sum of all
applied changes, rounded once, so edits can be taken back in any order, and the last one gives the original
back bit for bit.
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
from ...model.weights import editable, kept, put
from .low_rank import LowRank


@dataclass(eq=False)
class _Carried:
    """The original of an edited weight, and the changes that are applied to it, by their owner."""

    original: Tensor
    changes: dict[object, LowRank] = field(default_factory=dict)
    version: int = 0


_CARRIED: WeakKeyDictionary[nn.Module, _Carried] = WeakKeyDictionary()


def apply(changes: Mapping[nn.Module, LowRank], owner: object) -> None:
    """Adds changes to the weights of modules: to all of them, or with an error to none.

    Args:
        changes: For each `nn.Linear` or `Conv1D` its change (out, in).
        owner: Whose changes they are; one owner changes a module once.

    Raises:
        EditError: A weight cannot be edited: not in memory, quantized beyond rebuilding, of another shape, or
            changed by others.
    """
    for module, change in changes.items():
        _check(module, change)
    try:
        for module, change in changes.items():
            if module not in _CARRIED:
                _CARRIED[module] = _Carried(kept(editable(module)))
            _CARRIED[module].changes[owner] = change
            _write(module)
    except BaseException:  # memory may run out, or Ctrl-C come, between two layers
        for module in changes:
            if carries(module, owner):
                _take_back(module, owner)
        raise


def remove(modules: Iterable[nn.Module], owner: object, force: bool = False) -> None:
    """Takes the owner's changes back, whatever else has been applied since.

    Args:
        modules: Those that it changed.
        owner: Whose changes they are.
        force: Overwrite what something else wrote into a weight meanwhile.

    Raises:
        EditError: Something else wrote into a weight meanwhile, so the original is no longer what it was.
    """
    carrying = [module for module in modules if carries(module, owner)]
    if not force:
        for module in carrying:
            _check_untouched(module)
    for module in carrying:
        _take_back(module, owner)


def owners(model: nn.Module) -> dict[object, list[nn.Module]]:
    """Returns whose changes a model carries, and in which modules."""
    found: dict[object, list[nn.Module]] = {}
    for module in model.modules():
        for owner in _CARRIED[module].changes if module in _CARRIED else ():
            found.setdefault(owner, []).append(module)
    return found


def carries(module: nn.Module, owner: object) -> bool:
    """Returns whether the owner's change is applied to the module."""
    return module in _CARRIED and owner in _CARRIED[module].changes


def earlier_keys(module: nn.Module) -> Tensor | None:
    """Returns the keys (m, in) that applied edits want to be spared by later ones, None without any."""
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
                f"cannot be taken back bit for bit: revert edits before training, loading or casting a model"
            )


def _take_back(module: nn.Module, owner: object) -> None:
    del _CARRIED[module].changes[owner]
    _write(module)
    if not _CARRIED[module].changes:
        del _CARRIED[module]


@torch.no_grad()
def _write(module: nn.Module) -> None:
    """Puts the original plus all changes into the weight, summed in float64 and rounded once."""
    carried = _CARRIED[module]
    if not carried.changes:
        put(module, carried.original)
        return
    original = whole(carried.original)
    place = torch.device("cpu") if original.device.type == "mps" else original.device
    left = torch.cat([change.left for change in carried.changes.values()], dim=1).to(place, torch.float64)
    right = torch.cat([change.right for change in carried.changes.values()]).to(place, torch.float64)
    change = left @ right
    put(module, original.to(place, torch.float64) + (change.T if is_conv1d(module) else change))
    carried.version = editable(module)._version
