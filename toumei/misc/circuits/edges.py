"""Edges between nodes: what one contributes directly to what another one reads."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...attribution import AtLayer, Attribution
from ...attribution.base.inputs import like, parts_of
from ...attribution.base.method import Method
from ...core.outputs import main_tensor
from .game import Game
from .gates import GatedNetwork
from .node_circuit import OUTPUT
from .scores import weighted_sums

Edges = dict[tuple[str, str], float]


def edges_between(game: Game, strongest: list[str], method: Callable[..., Method]) -> Edges:
    """Returns the weights of the edges between some nodes, and from them to the output.

    The weight of an edge from u to v is the attribution of w . a_v to u, where a_v is what v computes and w
    the gradient of the score by it; all nodes before v have the values that they have at the inputs, or are
    mixed with those at the baseline. So only what u adds directly to what v reads counts, and the weights of
    all edges into v sum to w . (a_v - a_v'), with a_v' computed from these nodes at the baseline.

    Args:
        game: The network and its inputs.
        strongest: The nodes.
        method: Makes the attribution method of a network.
    """
    names, slopes = game.names, _slopes(game)
    chosen = [index for index, name in enumerate(names) if name in strongest]
    found: Edges = {}
    first = 0
    for site in game.nodes.sites:
        columns = [place for place, node in enumerate(site.nodes) if node in strongest]
        senders = [index for index in chosen if index < first]
        if columns and senders:
            read = weighted_sums(site, slopes[site.name], columns)
            network = game.network(read=read, chosen=senders, held=game.present, watched=site)
            values = _attributed(network, method, game, list(range(len(columns)))).mean(1)
            for column, of_receiver in zip(columns, values.tolist(), strict=True):
                _add(found, [names[one] for one in senders], site.nodes[column], of_receiver)
        first += len(site.nodes)
    network = game.network(chosen=chosen, held=game.present)
    values = _attributed(network, method, game, [0]).mean(1)
    _add(found, [names[one] for one in chosen], OUTPUT, values[0].tolist())
    return found


def _attributed(
    network: GatedNetwork, method: Callable[..., Method], game: Game, targets: list[int]
) -> Tensor:
    """The contributions (targets, N, senders)."""
    with warnings.catch_warnings():
        # nodes of parallel branches contribute nothing to each other
        warnings.filterwarnings("ignore", "(all contributions to|the score does not use)")
        found: Attribution = method(network)(game.rows, targets, AtLayer(0.0))
    assert isinstance(found.values, Tensor)
    return found.values.double()


def _add(found: Edges, senders: list[str], receiver: str, weights: list[float]) -> None:
    found |= {(sender, receiver): weight for sender, weight in zip(senders, weights, strict=True) if weight}


@torch.enable_grad()
def _slopes(game: Game) -> dict[str, Tensor]:
    """The gradient of each input's score by the activation of each site, by name."""
    parts = parts_of(game.inputs)
    pieces: dict[str, list[Tensor]] = {site.name: [] for site in game.nodes.sites}
    for rows in game.rows.split(32):
        seen: dict[str, Tensor] = {}
        edits: dict[Any, Callable[[Tensor], Tensor]] = {
            site.key: _differentiable(seen, site.name) for site in game.nodes.sites
        }
        with game.nodes.editing(edits):
            output = game.nodes.run(like(game.inputs, [part[rows.to(part.device)] for part in parts]))
        scores = game.read(main_tensor(output), rows).sum()
        found = torch.autograd.grad(scores, list(seen.values()), allow_unused=True)
        for (name, tensor), gradient in zip(seen.items(), found, strict=True):
            pieces[name].append(torch.zeros_like(tensor) if gradient is None else gradient)
    return {name: torch.cat(of_site) for name, of_site in pieces.items()}


def _differentiable(seen: dict[str, Tensor], name: str) -> Callable[[Tensor], Tensor]:
    def note(tensor: Tensor) -> Tensor:
        seen[name] = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        return seen[name]

    return note
