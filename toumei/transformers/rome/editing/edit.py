"""An edit of a model: applied and reverted bit for bit, saved as two thin matrices for each layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten

import torch
from torch import nn
from typing_extensions import Self

from ....core.checks import checked
from ....core.errors import EditError
from ....core.serialization import Saved, load_result, save_result
from ....core.summaries import counted
from ....core.threads import alone
from ...model.families import Anatomy, anatomy
from ...model.revertible import Revertible
from ..weight_edits import registry
from ..weight_edits.low_rank import LowRank
from .effect import EditEffect
from .requests import EditRequest
from .value import Value


@dataclass(frozen=True, repr=False, eq=False)
class Edit(Saved, Revertible):
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
        effects: How far the edit came with each fact; empty if it was not measured.

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
    effects: Sequence[EditEffect] = ()
    _owner: object = field(default_factory=object)

    _not_stored = ("parts", "values", "_owner")
    _load_error = EditError

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers whose down-projections change."""
        return tuple(self.changes)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the optimization of a fact."""
        ends = [value.ended for value in self.values] + [effect.ended for effect in self.effects]
        return "interrupted" in ends

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
        try:
            with alone(self.parts.model):
                registry.apply(self._modules(), self._owner)
            return self
        except BaseException:  # Ctrl-C may come when the weights have been written
            registry.remove(self._modules(), self._owner, force=True)
            raise

    @checked
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
        with alone(self.parts.model):
            registry.remove(self._modules(), self._owner, force)
        return self

    @checked
    def save(self, path: str | Path) -> None:
        """Writes the thin factors and the facts, and notes on the model and the versions of the libraries."""
        save_result(self, path, self._notes())

    @classmethod
    @checked
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
        if registry.unedited_fingerprint(parts.model) != notes.get("fingerprint"):
            raise EditError(
                f"{path} edits {notes.get('model')} ({notes.get('class')} of {notes.get('layers')} layers) "
                f"with other weights than this {type(model).__name__} of {counted(parts.layers, 'layer')} has"
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
        word = "layer" if len(self.layers) == 1 else "layers"
        layers = shorten(", ".join(map(str, self.layers)), 24, placeholder=" ...")
        state = "applied" if self.applied else "not applied"
        return f"Edit({self.method}, {word} {layers}: {self._shown()}; {state})"

    def _shown(self) -> str:
        """The facts, and how far the edit came."""
        count, effects = len(self.requests), self.effects
        if count > 1:
            took = f", {sum(effect.took for effect in effects)} took" if effects else ""
            return f"{counted(count, 'fact')}{took}"
        target = shorten(self.requests[0].target, 24, placeholder=" ...")
        shown = f"{shorten(self.requests[0].text, 48, placeholder=' ...')} -> {target}"
        if not effects:
            return shown
        (before, after), (old_before, old_after) = effects[0].target, effects[0].old
        old = shorten(effects[0].old_answer, 24, placeholder=" ...")
        return f"{shown}, p {before:.2g} to {after:.2g}, {old} {old_before:.2g} to {old_after:.2g}"


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
    with alone(model):
        registry.restore(model)
