"""Makes sure that a model without some parts computes what it would with zeros in their places."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import ArchitectureError
from ...core.modules import evaluating
from ...core.outputs import main_tensor
from ..model.blockwise import nearly_equal
from ..model.hooked_model import HookedModel
from ..model.trial import trial_inputs

WAY_OUT = (
    ". Where the code of a model takes sizes of layers from its config, parts of one layer cannot be cut "
    "out: write zeros in their places with HookedModel.edit"
)


class SameResult:
    """The output of a model on two short rows, before and after a surgery.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._expected: Tensor | None = None

    def expect(self, hooked: HookedModel, edits: Mapping[Any, Any]) -> None:
        """Notes the output of the model as it is now with edits."""
        with hooked.edit(edits):
            self._expected = self._output()

    def check(self) -> None:
        """Compares the output of the changed model with it.

        Raises:
            ArchitectureError: They differ.
        """
        assert self._expected is not None
        if not nearly_equal(self._output(), self._expected):
            raise ArchitectureError(
                f"the result of {type(self._model).__name__} is not that of zeros in place of these parts"
            )

    def _output(self) -> Tensor:
        args, kwargs = trial_inputs(self._model)
        with torch.no_grad(), evaluating(self._model):
            return main_tensor(self._model(*args, **kwargs)).clone()


def zeros_at(places: Sequence[int], axis: int) -> Callable[[Tensor], Tensor]:
    """Returns an edit that writes zeros at some places of an axis.

    Example:
        >>> zeros_at([1], 0)(torch.ones(3))
        tensor([1., 0., 1.])
    """
    return lambda tensor: tensor.index_fill(axis, torch.tensor(list(places), device=tensor.device), 0)
