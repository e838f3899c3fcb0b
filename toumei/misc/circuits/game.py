"""What a circuit is looked for in: a network, inputs, a baseline and a score."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...attribution.base.baselines import AtLayer
from ...attribution.base.inputs import Inputs, like, parts_of
from ...core.errors import ArgumentError
from ...core.finite import check_finite
from ...core.outputs import main_tensor
from .gates import GatedNetwork, Read
from .scores import Goal, reading
from .sites import NodeNetwork, at_baseline

_SMALLEST = 1e-3  # difference of the scores, as a share of the larger one


@dataclass(frozen=True, eq=False, kw_only=True)
class Game:
    """A network whose nodes have their values or those of the baseline.

    Attributes:
        nodes: The network.
        inputs: Its inputs.
        present: The values of each site at the inputs, by name.
        absent: Those at the baseline.
        read: Makes scores (B, 1) of an output.
        full: (N,) scores of the network.
        empty: (N,) scores with all nodes at the baseline.
        setup_passes: Forward passes that each input has taken so far.
    """

    nodes: NodeNetwork
    inputs: Inputs
    present: dict[str, Tensor]
    absent: dict[str, Tensor]
    read: Read
    full: Tensor
    empty: Tensor
    setup_passes: float

    @property
    def rows(self) -> Tensor:
        """The numbers of the inputs, (N,)."""
        return torch.arange(len(self.full))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all nodes."""
        return tuple(node for site in self.nodes.sites for node in site.nodes)

    def network(self, **options: Any) -> GatedNetwork:
        """Returns the network with gates; options are those of `GatedNetwork`."""
        return GatedNetwork(self.nodes, self.inputs, self.absent, **{"read": self.read, **options})

    @torch.no_grad()
    def kept(self, keep: Tensor, batch_size: int) -> Tensor:
        """Returns the scores (N,) with some nodes kept, (nodes,) booleans, and others at the baseline."""
        return kept_scores(self.network(), keep, len(self.full), batch_size)


def make_game(nodes: NodeNetwork, given: Any, baselines: Any, goal: Goal, batch_size: int) -> Game:
    """Returns the game of what the user gave; the model is in evaluation mode.

    Raises:
        ArgumentError: The score is the same with all nodes at the baseline.
        ShapeError: Baselines of another shape than the inputs.
        NonFiniteError: Scores that are NaN or infinite.
    """
    inputs = nodes.inputs(given)
    output, present = site_values(nodes, inputs, batch_size)
    setup = 2.0
    if isinstance(baselines, AtLayer):
        absent = {name: at_baseline(baselines.baseline, values) for name, values in present.items()}
        setup = 1.0
    else:
        absent = site_values(nodes, nodes.absent(baselines, inputs), batch_size)[1]
    read = reading(nodes, inputs, output, goal)
    network = GatedNetwork(nodes, inputs, absent, read)
    count = len(network.index)
    ends = [
        kept_scores(network, torch.full((count,), value), len(output), batch_size) for value in (True, False)
    ]
    for scores, what in zip(ends, ("the scores of the inputs", "the scores at the baseline"), strict=True):
        check_finite(scores, what, "look for the layer whose output is NaN first with toumei.core.run")
    full, empty = (float(scores.mean()) for scores in ends)
    if abs(full - empty) <= _SMALLEST * max(abs(full), abs(empty), 1e-6):
        raise ArgumentError(
            f"the mean score is {full:.4g}, and {empty:.4g} with all nodes at the baseline: contributions to "
            f"so small a difference mean nothing; give other baselines, nodes or another target"
        )
    return Game(
        nodes=nodes,
        inputs=inputs,
        present=present,
        absent=absent,
        read=read,
        full=ends[0],
        empty=ends[1],
        setup_passes=setup,
    )


@torch.no_grad()
def kept_scores(network: GatedNetwork, keep: Tensor, count: int, batch_size: int) -> Tensor:
    """Returns the scores (N,) of a network with some nodes kept, (nodes,) booleans."""
    value = next(iter(network.absent.values()))
    found = []
    for rows in torch.arange(count).split(batch_size):
        gates = keep.to(value.device, value.dtype).expand(len(rows), -1)
        found.append(network.scores(gates, rows)[:, 0])
    return torch.cat(found).cpu()


@torch.no_grad()
def site_values(nodes: NodeNetwork, inputs: Inputs, batch_size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the output of a network for inputs, and the activation of each of its sites, by name."""
    parts, outputs = parts_of(inputs), []
    pieces: dict[str, list[Tensor]] = {site.name: [] for site in nodes.sites}
    for rows in torch.arange(len(parts[0])).split(batch_size):
        # a pass begins again where it is not known yet which run is the last: later ones replace earlier ones
        seen: dict[str, Tensor] = {}
        with nodes.editing({site.key: _keeping(seen, site.name) for site in nodes.sites}):
            output = nodes.run(like(inputs, [part[rows.to(part.device)] for part in parts]))
        outputs.append(main_tensor(output))
        for name, tensor in seen.items():
            pieces[name].append(tensor)
    return torch.cat(outputs), {name: torch.cat(of_site) for name, of_site in pieces.items()}


def _keeping(seen: dict[str, Tensor], name: str) -> Callable[[Tensor], Tensor]:
    def keep(tensor: Tensor) -> Tensor:
        seen[name] = tensor.detach().clone()
        return tensor

    return keep
