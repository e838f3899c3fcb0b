"""The joint model: several networks as one, so that a picture can be optimized for units of all of them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..core.checks import checked
from ..core.errors import ArgumentError
from ..core.hooks import run
from ..core.modules import device_and_dtype
from ..core.names import parse_layer
from ..core.targets import resolve


@checked
class JointModel(nn.Module):
    """Networks that see the same pictures; a layer of one is ``"name.layer"``, its output ``"name"``.

    The networks are its submodules and are not changed. Each gets the pictures on its device and in its
    precision.

    Args:
        networks: The networks by name.
        preprocess: Preprocessing of the networks of these names, such as a normalization or a resize; the
            others see the pictures themselves.
        until: The last layer that is needed of the networks of these names: their forward passes end there.
            (The forward pass of the last network ends early in any case.)

    Raises:
        ArgumentError: No networks, a name that no network has, or one that no module can have.
        LayerError: A last layer that the network does not have.

    Example:
        >>> both = JointModel({"plain": nn.ReLU(), "upside_down": nn.ReLU()}, {"upside_down": torch.neg})
        >>> both(torch.tensor([[1.0, -2.0]]))
        {'plain': tensor([[1., 0.]]), 'upside_down': tensor([[0., 2.]])}
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        preprocess: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        until: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.names = tuple(networks)
        self.preprocess, self.until = dict(preprocess or {}), dict(until or {})
        self._ends: dict[str, str] = {}
        if not networks:
            raise ArgumentError("JointModel needs at least one network")
        if unknown := [name for name in (*self.preprocess, *self.until) if name not in networks]:
            raise ArgumentError(f"no network {unknown[0]!r}: there are {', '.join(networks)}")
        # The finest precision first: callers round pictures to the precision of the first weight of a model.
        for name, network in sorted(networks.items(), key=lambda item: -_bits(item[1])):
            if not name or "." in name or hasattr(self, name):
                raise ArgumentError(
                    f"a network cannot be named {name!r}: a name has no dots and is no attribute of a module"
                )
            self.add_module(name, network)
            resolve(network, [self.until.get(name, "")])

    def forward(self, pictures: Tensor) -> dict[str, Any]:
        """Returns the output of each network, or of its last layer, by name."""
        return {name: self._output(name, pictures) for name in self.names}

    def _output(self, name: str, pictures: Tensor) -> Any:
        network = self.get_submodule(name)
        prepared = self.preprocess[name](pictures) if name in self.preprocess else pictures
        prepared = prepared.to(*device_and_dtype(network))
        if name not in self.until:
            return network(prepared)
        last = self._ends.get(name, self.until[name])
        activations = run(network, prepared, record=[last], clone=False)
        if name not in self._ends:  # of the first pass, which shows after which run later ones may end
            layer = parse_layer(last)
            self._ends[name] = str(layer.at_run(activations.runs(last) - 1) if layer.run is None else layer)
        return activations[last]


def _bits(network: nn.Module) -> int:
    """How many bits a number of a network has."""
    return torch.finfo(device_and_dtype(network)[1]).bits
