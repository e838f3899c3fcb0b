"""A change of the parts of a model: applied, and reverted bit for bit, in a block or for good."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from typing_extensions import Self

from ...core.checks import checked
from ...core.errors import ArchitectureError, EditError, ToumeiError
from ...core.functions import Function, intercepted, tensors_among
from ...core.interrupts import uninterrupted
from ...core.modules import evaluating
from ...core.summaries import shortened
from ...core.threads import alone
from ..model.revertible import Revertible
from ..model.surgeries import APPLIED
from ..model.trial import trial_inputs
from .changes import Replacement, undoing

_CAPTURES = "_output_capturing_hooks_installed"
_NUMBERS = count()


class Surgery(Revertible):
    """A change of the layers, heads or neurons of a model, made by functions such as `delete_layers`.

    Inside a ``with`` block the model is changed; outside of it every part is the same object as before, with
    the same weights. `apply` and `revert` do the same without a block. What is trained, loaded, or moved to
    another device while it is applied is lost with it, where it concerns parts that it put in.

    Several can be applied to a model; the last one is reverted first. Each counts layers, heads and neurons
    as the model has them when it is applied.

    Args:
        model: The model.
        description: What is done, such as ``"delete layer 3"``.
        plan: Returns the changes, for the model as it is then, or raises an error.
        check: Called when they are made; raises an error if the model does not compute what it should.
        way_out: What to do if it does not, or cannot be run.

    Attributes:
        number: Another one each time that it is applied.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers.surgery import delete_layers
        >>> model, tokenizer, world = facts_gpt()
        >>> with delete_layers(model, [4]):
        ...     len(model.transformer.h), model.config.n_layer
        (5, 5)
        >>> surgery = delete_layers(model, [4]).apply()
        >>> surgery
        Surgery(GPT2LMHeadModel: delete layer 4; applied)
        >>> surgery.revert()
        Surgery(GPT2LMHeadModel: delete layer 4; not applied)
    """

    def __init__(
        self,
        model: nn.Module,
        description: str,
        plan: Callable[[], Sequence[Replacement]],
        check: Callable[[], None] | None = None,
        way_out: str = "",
    ) -> None:
        self.model, self.description = model, description
        self._plan, self._check, self._way_out = plan, check, way_out
        self._undo: Callable[[], None] | None = None
        self.number = -1
        plan()  # an error comes at once

    @property
    def applied(self) -> bool:
        """Whether the model is changed now."""
        return self in APPLIED.get(self.model, [])

    def apply(self) -> Self:
        """Changes the model, and returns the surgery.

        Raises:
            EditError: It is applied already, or the changed model cannot be run; then nothing has changed.
            ArgumentError: An earlier surgery took away what it is about.
        """
        if self.applied:
            raise EditError(f"{self.description} is applied already: revert it first")
        try:
            with alone(self.model):
                changes = self._plan()
                with uninterrupted():
                    self._undo, self.number = undoing(changes), next(_NUMBERS)
                    APPLIED.setdefault(self.model, []).append(self)
                    for one in changes:
                        one.holder[one.key] = one.value
                    forget_captures(self.model)
                self._try()
            return self
        except BaseException:  # Ctrl-C may come when the changes have been made
            self._take_back()
            raise

    def revert(self) -> Self:
        """Gives the model back as it was, and returns the surgery.

        Raises:
            EditError: It is not applied, or a later surgery still is.
        """
        if not self.applied:
            raise EditError(f"{self.description} is not applied: there is nothing to revert")
        last = APPLIED[self.model][-1]
        if last is not self:
            raise EditError(f"{last.description} came later than {self.description}: revert that first")
        with alone(self.model):
            self._take_back()
        return self

    def _take_back(self) -> None:
        with uninterrupted():
            if self.applied and self._undo is not None:
                self._undo()
                forget_captures(self.model)
                APPLIED[self.model].remove(self)
                self._undo = None

    def _try(self) -> None:
        """Runs the changed model on two short rows.

        Raises:
            EditError: It cannot be run, or `check` finds that it computes something else.
        """
        try:
            args, kwargs = trial_inputs(self.model)
            with torch.no_grad(), evaluating(self.model), intercepted(_with_heads):
                self.model(*args, **kwargs)
            if self._check is not None:
                self._check()
        except ToumeiError as error:
            raise EditError(f"{self.description}: {error}{self._way_out}") from error
        except Exception as error:
            raise EditError(
                f"{type(self.model).__name__} cannot be run after {self.description}: {error}{self._way_out}"
            ) from error

    def __repr__(self) -> str:
        state = "applied" if self.applied else "not applied"
        return f"Surgery({type(self.model).__name__}: {shortened(self.description, 120)}; {state})"


@checked
def revert_surgeries(model: nn.Module) -> None:
    """Reverts every surgery that is applied to a model, also those whose objects are lost.

    Args:
        model: The model.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers.surgery import delete_layers
        >>> model, tokenizer, world = facts_gpt()
        >>> _ = delete_layers(model, [4]).apply()
        >>> revert_surgeries(model)
        >>> len(model.transformer.h)
        6
    """
    for surgery in reversed(list(APPLIED.get(model, []))):
        surgery.revert()


def forget_captures(model: nn.Module) -> None:
    """Removes the hooks by which transformers returns hidden states and attentions of layers.

    It puts them up once, on the layers that a model has then, and does so again where they are missing.
    """
    for module in model.modules():
        hooks: Any = module._forward_hooks
        for number in [key for key, hook in hooks.items() if "output_capturing_hook" in hook_name(hook)]:
            del hooks[number]
        module.__dict__.pop(_CAPTURES, None)


def hook_name(hook: object) -> str:
    """Returns the name of the function that a hook is."""
    return str(getattr(hook, "__qualname__", ""))


def _with_heads(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a function, but no attention without heads: on a CPU torch 2.9 ends the whole process there."""
    attention = function is scaled_dot_product_attention
    if attention and any(not tensor.numel() for tensor in tensors_among([*args, *kwargs.values()])):
        raise ArchitectureError("its attention is left without heads")
    return function(*args, **kwargs)
