"""A network with a gate at each node: 1 lets it through, 0 puts its value at the baseline in its place."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...attribution.base.inputs import Inputs, like, parts_of
from ...core.outputs import main_tensor
from .sites import NodeNetwork, Site

Read = Callable[[Tensor, Tensor], Tensor]
"""From an output and the rows (B,) of the inputs to scores (B, T)."""


class GatedNetwork(nn.Module):
    """Scores of a network as a function of gates at its nodes.

    A node with gate g passes on g x + (1 - g) x', where x is what the network computes there while the other
    nodes have their gates, and x' is its value at the baseline. The gates are the output of the module
    ``gates``, so any attribution method with ``layer="gates"`` attributes to the nodes.

    Args:
        nodes: The network.
        inputs: Its inputs.
        absent: The value of each site at the baseline, by name, each (N, ...).
        read: Makes scores (B, T) of an output.
        chosen: The numbers of the nodes with gates, all by default; the others pass on what they compute.
        held: The values of sites at the inputs. If given, nodes pass on a mixture with these instead of what
            they compute, so that effects of one node on another one do not count.
        watched: A site whose activation is the output, instead of the output of the network.

    Attributes:
        passes: How many inputs have passed through the network.
        backward_passes: How many of these with a graph for gradients.
    """

    def __init__(
        self,
        nodes: NodeNetwork,
        inputs: Inputs,
        absent: dict[str, Tensor],
        read: Read,
        *,
        chosen: Sequence[int] | None = None,
        held: dict[str, Tensor] | None = None,
        watched: Site | None = None,
    ) -> None:
        super().__init__()
        self.network = nodes.model
        self.gates = nn.Identity()
        self.nodes, self.inputs, self.absent, self.read = nodes, inputs, absent, read
        self.held, self.watched = held, watched
        total = sum(len(site.nodes) for site in nodes.sites)
        self.chosen = list(range(total)) if chosen is None else list(chosen)
        # which gate each node has; those without one have the last, which is 1
        self.index = torch.full((total,), len(self.chosen))
        self.index[self.chosen] = torch.arange(len(self.chosen))
        self.passes = self.backward_passes = 0

    def forward(self, rows: Tensor) -> Tensor:
        """Returns the scores (B, T) of the inputs in rows (B,), with all gates at 1."""
        value = next(iter(self.absent.values()))
        ones = torch.ones(len(rows), len(self.chosen), dtype=value.dtype, device=value.device)
        return self.scores(self.gates(ones), rows)

    def scores(self, gates: Tensor, rows: Tensor) -> Tensor:
        """Returns the scores (B, T) for gates (B, chosen nodes)."""
        self.passes += len(rows)
        self.backward_passes += len(rows) * gates.requires_grad
        whole = torch.cat([gates, torch.ones_like(gates[:, :1])], 1)[:, self.index.to(gates.device)]
        edits: dict[Any, Callable[[Tensor], Tensor]] = {}
        seen: list[Tensor] = []
        start = 0
        for site in self.nodes.sites:
            stop = start + len(site.nodes)
            if site == self.watched:
                edits[site.key] = partial(_watch, seen)
                break
            if self.held is not None or bool((self.index[start:stop] < len(self.chosen)).any()):
                edits[site.key] = partial(self._mix, site, whole[:, start:stop], rows)
            start = stop
        parts = [part[rows.to(part.device)] for part in parts_of(self.inputs)]
        with self.nodes.editing(edits):
            output = main_tensor(self.nodes.run(like(self.inputs, parts)))
        return self.read(seen[-1] if self.watched else output, rows)

    def _mix(self, site: Site, gates: Tensor, rows: Tensor, tensor: Tensor) -> Tensor:
        absent = self.absent[site.name][rows.to(tensor.device)]
        present = tensor if self.held is None else self.held[site.name][rows.to(tensor.device)]
        shape = [1] * tensor.dim()
        shape[0] = len(tensor)
        if site.axis is not None:
            shape[site.axis] = len(site.nodes)
        shares = gates.to(tensor.dtype).reshape(shape)
        return shares * present + (1 - shares) * absent


def _watch(seen: list[Tensor], tensor: Tensor) -> Tensor:
    seen.append(tensor)
    return tensor
