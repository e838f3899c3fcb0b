"""The last linear maps of feed-forward layers: their inputs are coefficients, their columns values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ...core.errors import ArchitectureError, ArgumentError
from ...core.linear_layers import is_conv1d, projection_sizes, without_adapter
from ...core.modules import find_module, without_wrapper
from ...core.targets import resolve
from ...core.tensors import whole


@dataclass(frozen=True, eq=False)
class DownProjection:
    """The last linear map of a feed-forward layer.

    Attributes:
        name: Its name as a layer.
        module: The module.
        gated: Whether its inputs are products with a gate, so that coefficients of both signs matter.
    """

    name: str
    module: nn.Module
    gated: bool

    @property
    def values(self) -> Tensor:
        """The values of the memories, (neurons, width): what a neuron adds to the stream at coefficient 1."""
        weight = whole(self.module.weight)  # type: ignore[arg-type]
        return weight if is_conv1d(self.module) else weight.T


def find_down_projections(
    model: nn.Module, layers: Sequence[str], gated: bool | Mapping[str, bool] | None = None
) -> tuple[DownProjection, ...]:
    """Returns the down projections that layers name.

    Args:
        model: The model.
        layers: Their names, such as ``"model.layers.3.mlp.down_proj"``.
        gated: Whether all of them are gated, or which; by default the modules beside each one tell.

    Raises:
        LayerError: A layer that the model does not have; the message names the nearest ones.
        ArchitectureError: A layer that is no linear map.
        ArgumentError: There are no layers, or one names an operation or a part of an output.

    Example:
        >>> from toumei.models import facts_gpt
        >>> (found,) = find_down_projections(facts_gpt()[0], ["transformer.h.2.mlp.c_proj"])
        >>> found.values.shape, found.gated
        (torch.Size([512, 128]), False)
    """
    names = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    if not names:
        raise ArgumentError("expected the names of down projections, such as 'transformer.h.0.mlp.c_proj'")
    model = without_wrapper(model)
    found = []
    for name, place in resolve(model, names).items():
        module = find_module(model, place.module)
        if place.operation is not None or place.part:
            raise ArgumentError(f"{name!r} names no module: a down projection is a linear layer")
        linear = isinstance(module, nn.Linear) or is_conv1d(module)
        if not linear or without_adapter(module) is not module:
            raise ArchitectureError(
                f"{name!r} is a {type(module).__name__}: expected the last linear map of a feed-forward "
                f"layer, an nn.Linear or a Conv1D of transformers"
            )
        known = gated.get(name) if isinstance(gated, Mapping) else gated
        product = _is_gated(model, place.module) if known is None else known
        found.append(DownProjection(name, module, product))
    return tuple(found)


def _is_gated(model: nn.Module, name: str) -> bool:
    """Whether the linear maps beside this one make two numbers for each of its inputs, one of them a gate."""
    parent, _, child = name.rpartition(".")
    size = (projection_sizes(find_module(model, name)) or (0, 0))[0]
    beside = [module for other, module in find_module(model, parent).named_children() if other != child]
    made = [sizes[1] for sizes in map(projection_sizes, beside) if sizes is not None]
    return sum(one for one in made if one in (size, 2 * size)) == 2 * size
