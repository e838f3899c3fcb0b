"""Which edits a model carries at the moment, and its weights without them.

For each edited weight the original is kept once. The edited weight is always the original plus the sum of all
applied changes, rounded once, so edits can be taken back in any order, and the last one gives the original
back bit for bit.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ...core.errors import EditError
from ..discovery import is_conv1d
from .rank_one import LowRank

_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_CHUNK = 4096


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
        EditError: A weight cannot be edited: quantized, sharded, of another shape, or changed by others.
    """
    for module, change in changes.items():
        _check(module, change)
    for module, change in changes.items():
        weight = _weight(module)
        carried = _CARRIED.setdefault(module, _Carried(weight.detach().clone()))
        carried.changes[owner] = change
        _write(module, carried)


def remove(modules: Mapping[nn.Module, LowRank], owner: object) -> None:
    """Takes the owner's changes back, whatever else has been applied since.

    Raises:
        EditError: Something else wrote into a weight meanwhile, so the original is no longer what it was.
    """
    for module in modules:
        _check_untouched(module)
    for module in modules:
        carried = _CARRIED[module]
        del carried.changes[owner]
        _write(module, carried)
        if not carried.changes:
            del _CARRIED[module]


def carries(module: nn.Module, owner: object) -> bool:
    """Returns whether the owner's change is applied to the module."""
    return module in _CARRIED and owner in _CARRIED[module].changes


def earlier_keys(module: nn.Module) -> Tensor | None:
    """Returns the keys (m, in) that applied edits want to be spared by later ones, None without any."""
    changes = _CARRIED[module].changes.values() if module in _CARRIED else ()
    keys = [change.keys for change in changes if change.keys is not None]
    return torch.cat(keys) if keys else None


def fingerprint(model: nn.Module) -> str:
    """Returns a hash of all weights as they are without the applied edits.

    It reads every element once where the weights are and moves only sums, so it takes about as long as
    reading the weights.

    Example:
        >>> first, second = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> fingerprint(first) == fingerprint(first), fingerprint(first) == fingerprint(second)
        (True, False)
    """
    originals = {
        f"{name}.weight": _CARRIED[module].original
        for name, module in model.named_modules()
        if module in _CARRIED
    }
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):
            continue
        tensor = originals.get(name, tensor)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if not tensor.is_meta:
            digest.update(_sums(tensor).cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def _sums(tensor: Tensor) -> Tensor:
    """Sums of the bits of a tensor, read as whole numbers, in chunks: every changed element changes one."""
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(tensor.element_size())
    flat = tensor.detach().contiguous().flatten()
    numbers = flat.view(torch.uint8 if whole is None else whole)
    cut = len(numbers) // _CHUNK * _CHUNK
    return torch.cat(
        [numbers[:cut].view(-1, _CHUNK).sum(1, dtype=torch.int64), numbers[cut:].sum(dtype=torch.int64)[None]]
    )


def _weight(module: nn.Module) -> Tensor:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or type(weight.data) is not Tensor or weight.is_meta:
        raise EditError(
            f"the weight of {module} is sharded, quantized or offloaded ({type(weight).__name__}): "
            f"only a weight that is whole in memory can be edited"
        )
    if weight.dtype not in _PRECISIONS:
        raise EditError(
            f"the weight of {module} is stored as {weight.dtype}: a quantized weight cannot be edited and "
            f"given back bit for bit; load the model in float32, bfloat16 or float16"
        )
    return weight


def _check(module: nn.Module, change: LowRank) -> None:
    weight = _weight(module)
    shape = tuple(reversed(weight.shape)) if is_conv1d(module) else tuple(weight.shape)
    given = (change.left.shape[0], change.right.shape[1])
    if given != shape:
        raise EditError(f"a change of {given} values and keys does not fit a weight of {shape}")
    _check_untouched(module)


def _check_untouched(module: nn.Module) -> None:
    if module in _CARRIED:
        weight, carried = _weight(module), _CARRIED[module]
        if weight._version != carried.version or weight.dtype != carried.original.dtype:
            raise EditError(
                f"the weight of {module} was changed by something else while an edit was applied, so it "
                f"cannot be taken back bit for bit: revert edits before training, loading or casting a model"
            )


@torch.no_grad()
def _write(module: nn.Module, carried: _Carried) -> None:
    """Puts the original plus all changes into the weight, summed in float64 and rounded once."""
    weight = _weight(module)
    if not carried.changes:
        weight.copy_(carried.original)
        return
    place = torch.device("cpu") if weight.device.type == "mps" else weight.device
    left = torch.cat([change.left for change in carried.changes.values()], dim=1).to(place, torch.float64)
    right = torch.cat([change.right for change in carried.changes.values()]).to(place, torch.float64)
    change = left @ right
    weight.copy_(carried.original.to(place, torch.float64) + (change.T if is_conv1d(module) else change))
    carried.version = weight._version
