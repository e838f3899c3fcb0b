"""An edit of a model: applied and reverted bit for bit, saved as two thin matrices for each layer."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from typing_extensions import Self

from ....core.checks import checked
from ....core.errors import EditError
from ....core.serialization import Saved, load_result, save_result
from ...model.families import Anatomy, anatomy
from ..weight_edits import registry
from ..weight_edits.low_rank import LowRank
from .requests import EditRequest
from .value import Value


@dataclass(frozen=True, repr=False, eq=False)
class Edit(Saved):
    """A change of some weights of a model that writes facts into it.

    Inside a ``with`` block the model is edited; outside of it every weight is bit for bit as before. `apply`
    and `revert` do the same without a block. Several edits can be applied at once, and reverted in any order.
    The weight is then the original plus the sum of all changes, rounded once.

    Attributes:
        parts: The model.
        method: The name of the editing method.
        requests: The facts.
        changes: For each edited layer the change of its down-projection (values, keys), on the CPU.
        values: The result of the optimization of each fact; empty if the edit was loaded.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> zero = LowRank(torch.zeros(128, 1), torch.zeros(1, 512))
        >>> edit = Edit(anatomy(model), "none", (EditRequest("{} lives in", "Ann", "Rome"),), {2: zero})
        >>> with edit:
        ...     edit.applied
        True
        >>> edit
        Edit(none, layer 2: Ann lives in -> Rome; not applied)
    """

    parts: Anatomy
    method: str
    requests: Sequence[EditRequest]
    changes: Mapping[int, LowRank]
    values: Sequence[Value] = ()
    _owner: object = field(default_factory=object)

    _not_stored = ("parts", "values", "_owner")
    _load_error = EditError

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers whose down-projections change."""
        return tuple(self.changes)

    @property
    def applied(self) -> bool:
        """Whether this edit is applied to the model now."""
        return any(registry.carries(module, self._owner) for module in self._modules())

    def apply(self) -> Self:
        """Changes the weights, and returns the edit.

        Raises:
            EditError: It is applied already, or a weight cannot be edited; then nothing has changed.
        """
        if self.applied:
            raise EditError(f"{self} is applied already: revert it first")
        registry.apply(self._modules(), self._owner)
        return self

    def revert(self, force: bool = False) -> Self:
        """Removes the change from the weights, and returns the edit.

        Args:
            force: Also if something else, such as training or `load_state_dict`, wrote into a weight after
                the edit. The weight from before the edit replaces it.

        Raises:
            EditError: It is not applied, or something else wrote into a weight after the edit.
        """
        if not self.applied:
            raise EditError(f"{self}: there is nothing to revert")
        registry.remove(self._modules(), self._owner, force)
        return self

    def __enter__(self) -> Self:
        return self.apply()

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if not self.applied:
            return
        try:
            self.revert()
        except EditError as failed:
            if kind is None:
                raise
            warnings.warn(str(failed), stacklevel=2)  # the error from inside the block is raised

    def save(self, path: str | Path) -> None:
        """Writes the thin factors and the facts, and notes on the model and the versions of the libraries."""
        save_result(self, path, self._notes())

    @classmethod
    def load(cls, path: str | Path, model: nn.Module) -> Self:  # type: ignore[override]
        """Returns a saved edit of this model, not applied.

        Args:
            path: The file.
            model: The model that the edit was made for, with the weights that it had (without other edits).

        Raises:
            EditError: The file is cut short, holds something else, or belongs to another model.
        """
        parts = anatomy(model)
        edit, notes = load_result(cls, path, parts=parts)
        if registry.unedited_fingerprint(model) != notes.get("fingerprint"):
            raise EditError(
                f"{path} edits {notes.get('model')} ({notes.get('class')} of {notes.get('layers')} layers) "
                f"with other weights than this {type(model).__name__} of {parts.layers} layers has"
            )
        return edit

    def _notes(self) -> dict[str, str]:
        import transformers

        from .... import __version__

        model = self.parts.model
        return {
            "fingerprint": registry.unedited_fingerprint(model),
            "model": str(getattr(getattr(model, "config", None), "name_or_path", "") or "a model"),
            "class": type(model).__name__,
            "layers": str(self.parts.layers),
            "toumei": __version__,
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
        }

    def _modules(self) -> dict[nn.Module, LowRank]:
        return {self.parts.module(self.parts.down(layer)): change for layer, change in self.changes.items()}

    def __repr__(self) -> str:
        first = self.requests[0]
        shown = (
            f"{first.text} -> {first.target}" if len(self.requests) == 1 else f"{len(self.requests)} facts"
        )
        word = "layer" if len(self.layers) == 1 else "layers"
        state = "applied" if self.applied else "not applied"
        return f"Edit({self.method}, {word} {', '.join(map(str, self.layers))}: {shown}; {state})"


@checked
def revert_all(model: nn.Module) -> None:
    """Reverts every edit that is applied to a model, also those whose `Edit` objects are lost.

    The edited weights are as before the first edit, even if something else wrote into them after it.

    Args:
        model: The model.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> zero = LowRank(torch.zeros(128, 1), torch.zeros(1, 512))
        >>> request = EditRequest("{} lives in", "Ann", "Rome")
        >>> edit = Edit(anatomy(model), "none", (request,), {2: zero}).apply()
        >>> revert_all(model)
        >>> edit.applied
        False
    """
    for owner, modules in registry.owners(model).items():
        registry.remove(modules, owner, force=True)
