"""New weights of linear layers: some inputs and outputs kept, others overwritten."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...core.errors import ArchitectureError
from ...core.linear_layers import is_conv1d, without_adapter
from ...core.tensors import in_place
from ...instrument import LinearMap
from ..model.weights import editable
from .changes import Replacement, attribute, parameter


class LinearDraft:
    """The weight and bias that a linear layer is to have; the layer itself stays as it is.

    Args:
        module: A plain `nn.Linear` or `Conv1D`.

    Attributes:
        weight: (in, out), a copy.
        bias: (out,), a copy; None without.

    Raises:
        ArchitectureError: It has an adapter, is quantized or is no linear layer.

    Example:
        >>> draft = LinearDraft(nn.Linear(3, 4))
        >>> draft.keep(outputs=[0, 2])
        >>> draft.weight.shape, draft.bias.shape
        (torch.Size([3, 2]), torch.Size([2]))
    """

    def __init__(self, module: nn.Module) -> None:
        linear = isinstance(module, nn.Linear) or (is_conv1d(module) and without_adapter(module) is module)
        if not linear or not in_place(editable(module)):
            raise ArchitectureError(
                f"{module} is no plain linear layer: merge adapters into the model, and load it without "
                f"quantization"
            )
        weight = editable(module).detach().clone()
        self.module = module
        self.weight = weight if is_conv1d(module) else weight.T
        bias = module._parameters.get("bias")
        self.bias = None if bias is None else bias.detach().clone()

    def keep(self, *, inputs: Sequence[int] | None = None, outputs: Sequence[int] | None = None) -> None:
        """Leaves out what is not named."""
        if inputs is not None:
            self.weight = self.weight[list(inputs)]
        if outputs is not None:
            self.weight = self.weight[:, list(outputs)]
            self.bias = None if self.bias is None else self.bias[list(outputs)]

    def replacements(self) -> list[Replacement]:
        """Returns what changes in the layer."""
        module = self.module
        sizes = ("nx", "nf") if is_conv1d(module) else ("in_features", "out_features")
        weight = self.weight if is_conv1d(module) else self.weight.T
        changes = [parameter(module, "weight", weight)]
        if self.bias is not None:
            changes.append(parameter(module, "bias", self.bias))
        return changes + [
            attribute(module, name, size)
            for name, size in zip(sizes, self.weight.shape, strict=True)
            if name in module.__dict__
        ]


class Drafts:
    """The drafts of the linear layers of a model, one for each layer that is asked for.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._by_name = model, dict[str, LinearDraft]()

    def of(self, linear: LinearMap) -> LinearDraft:
        """Returns the draft of the layer that a linear map is.

        Raises:
            ArchitectureError: It is no layer that can be changed.
        """
        name, _, weight = linear.weight.name.rpartition(".")
        if linear.weight.kind != "parameter" or weight != "weight":
            raise ArchitectureError(f"{linear.operation.name!r} is not computed by a linear layer")
        if name not in self._by_name:
            self._by_name[name] = LinearDraft(self._model.get_submodule(name))
        return self._by_name[name]

    def replacements(self) -> list[Replacement]:
        """Returns what changes in all of them."""
        return [change for draft in self._by_name.values() for change in draft.replacements()]


def left_out(size: int, dropped: Sequence[int] | Tensor) -> list[int]:
    """Returns the numbers below a size that are not dropped.

    Example:
        >>> left_out(4, [1, 2])
        [0, 3]
    """
    kept = torch.ones(size, dtype=torch.bool)
    kept[torch.as_tensor(dropped, dtype=torch.long)] = False
    return kept.nonzero()[:, 0].tolist()
