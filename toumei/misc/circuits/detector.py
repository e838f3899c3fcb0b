"""Circuits found by feature attribution: which nodes of a network make a score, and how they connect."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...attribution import AtLayer
from ...core.checks import check_counts, checked
from ...core.conversions import MISFIT, as_tensor, has_values
from ...core.errors import ArgumentError, NotATensorError
from ...core.kinds import shown
from ...core.modules import check_model, evaluating, frozen
from ...core.seeding import make_generator
from ...core.targets import resolve
from ...transformers import HookedModel
from .edges import edges_between
from .faithfulness import Faithfulness, kept_sizes
from .game import Game, make_game
from .methods import method_named
from .node_circuit import NodeCircuit
from .scores import Goal
from .sites import LayerNodes, NodeNetwork, TransformerNodes


class CircuitDetector:
    """Attributes a score to the nodes of a network instead of its inputs.

    Each node gets a gate: 1 lets through what the node computes, 0 puts its value at the baseline in its
    place, and what follows from it is computed with that. An attribution method then shares the difference
    between the score with all gates open and all gates closed out among the gates. The methods are those of
    `toumei.attribution`:

    - ``"gradient"``: the gradient by the gate, which is gradient times difference, (x - x') dm/dx, the
      attribution patching of Nanda 2023: one pass and one backward pass.
    - ``"integrated_gradients"``: its mean on the way from closed to open gates (Sundararajan et al. 2017).
    - ``"deep_lift"``: the rescale rule (Shrikumar et al. 2017), two passes and one backward pass.
    - ``"shapley"``: Shapley values by sampled orders (Castro et al. 2009), as Ghorbani and Zou 2020 ("Neuron
      Shapley", arXiv:2002.09815) take them of neurons.
    - ``"ablation"``: the drop of the score when the node alone is at the baseline, a pass for each node.

    With integrated gradients, DeepLift and Shapley values the scores sum to that difference. Where the nodes
    cut the network, it is the difference between the scores of the inputs and of the baselines.

    Args:
        model: The network. Of a `HookedModel` nodes are the heads and MLPs, of any other the channels of
            layers.
        nodes: Names of layers, whose channels are nodes, ``"layer:channel"``. Of a `HookedModel` short
            names of activations: by default ``z`` for the heads, ``"layer.head"``, and ``mlp_out`` for the
            MLPs, ``"mlp.layer"``; others are ``post``, ``attn_out``, ``resid_pre``, ``embed``.
        method: One of these names, another class of `toumei.attribution` that takes a layer, or a
            `functools.partial` of one with its settings.
        edges: Between so many nodes with the largest absolute scores edges are computed, too; 0 for none.
        batch_size: How many inputs pass through the network at a time.

    Raises:
        LayerError: A layer or an activation that the model does not have.
        ArgumentError: No layers, or a method that does not exist.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers.patching import logit_difference
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> prompt, other = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
        >>> detector = CircuitDetector(model, method="shapley", edges=2)
        >>> circuit = detector(prompt, other, logit_difference(4, 5))
        >>> sorted(circuit.order[:2]), circuit.edges
        (['0.0', '1.0'], (('0.0', '1.0'), ('1.0', 'output')))
    """

    @checked
    def __init__(
        self,
        model: nn.Module | HookedModel,
        nodes: str | Sequence[str] | None = None,
        method: Any = "integrated_gradients",
        *,
        edges: int = 0,
        batch_size: int = 64,
    ) -> None:
        check_counts(0, edges=edges)
        check_counts(1, batch_size=batch_size)
        nodes = [nodes] if isinstance(nodes, str) else nodes
        if nodes is not None and (not nodes or len(set(nodes)) < len(nodes)):
            raise ArgumentError(f"nodes are different names in a list, at least one, got {shown(nodes)}")
        if not isinstance(model, HookedModel):
            check_model(model)
            if nodes is None:
                raise ArgumentError(
                    f"name the layers of {type(model).__name__} whose channels are nodes, or give a "
                    f"HookedModel"
                )
            resolve(model, nodes)  # an error of the names comes at once
        self.model, self.nodes, self.edges, self.batch_size = model, nodes, edges, batch_size
        self.method, made = method_named(method)
        self._method = partial(made, layer="gates", batch_size=batch_size)

    @checked
    def __call__(self, inputs: Any, baselines: Any, target: Goal = None) -> NodeCircuit:
        """Returns the contributions of all nodes to a score, and edges if asked for.

        Args:
            inputs: A tensor or an array (N, ...), a tuple or a dictionary of tensors; of a `HookedModel`
                texts or token ids of one length.
            baselines: What the values of closed nodes are computed from: inputs of the same shape or one for
                all, numbers and objects such as `Mean`, but no distributions, for networks that are not
                hooked; or
                ``AtLayer(0.0)`` for nodes that are 0.
            target: The score: an index of the output or one for each input, of a `HookedModel` of the logits
                at the last position; a metric of `toumei.transformers.patching`; or a function from the
                output to scores (N,).

        Raises:
            ArgumentError: The score is the same with all nodes at the baseline, texts have different
                lengths, or a baseline is a distribution.
            ShapeError: Baselines of another shape than the inputs, or another number of targets.
            UnitError: A target that the output does not have.
            NonFiniteError: Scores that are NaN or infinite.
        """
        with self._playing(inputs, baselines, target) as game:
            network = game.network()
            found = self._method(network)(game.rows, None, AtLayer(0.0))
            assert isinstance(found.values, Tensor)
            circuit = NodeCircuit(
                nodes=game.names,
                values=found.values,
                sites=tuple(site.name for site in game.nodes.sites for _ in site.nodes),
                full=game.full,
                empty=game.empty,
                weights=torch.zeros(0),
                method=self.method,
                complete=found.complete,
                passes=game.setup_passes + network.passes / len(game.full),
                backward_passes=network.backward_passes / len(game.full),
            )
            return self._with_edges(circuit, game) if self.edges else circuit

    @checked
    def faithfulness(
        self,
        circuit: NodeCircuit,
        inputs: Any,
        baselines: Any,
        target: Goal = None,
        *,
        random: int = 5,
        seed: int = 0,
    ) -> Faithfulness:
        """Returns which share of the score is left with only the strongest nodes of a circuit.

        Args:
            circuit: The circuit, of this network.
            inputs: As for the call; others than those that the circuit was found with tell whether it holds.
            baselines: As for the call.
            target: As for the call.
            random: How many random orders of the nodes it is compared with.
            seed: Seed of these.

        Raises:
            ArgumentError: A circuit of other nodes, and as for the call.
        """
        check_counts(1, random=random)
        with self._playing(inputs, baselines, target) as game:
            places = {name: index for index, name in enumerate(game.names)}
            if not set(circuit.nodes) <= set(places):
                raise ArgumentError(f"the nodes of {circuit} are not those of this network")
            count, generator = len(places), make_generator(seed)
            sizes = [size for size in kept_sizes(count) if size <= len(circuit.nodes)]
            orders = [torch.tensor([places[node] for node in circuit.order])]
            orders += [torch.randperm(count, generator=generator) for _ in range(random)]
            shares = torch.stack([self._shares(game, order, sizes) for order in orders])
        return Faithfulness(
            sizes=torch.tensor(sizes),
            values=shares[0].clone(),
            random=shares[1:].clone(),
            nodes=count,
            method=circuit.method,
        )

    def __repr__(self) -> str:
        return f"CircuitDetector({type(self.model).__name__}, {self.method})"

    @contextmanager
    def _playing(self, inputs: Any, baselines: Any, target: Goal) -> Iterator[Game]:
        """A game in a block in which the model is frozen and in evaluation mode."""
        model = self.model.model if isinstance(self.model, HookedModel) else self.model
        with torch.inference_mode(False), frozen(model), evaluating(model):
            network: NodeNetwork
            if isinstance(self.model, HookedModel):
                network = TransformerNodes(self.model, self.nodes, inputs)
            else:
                assert self.nodes is not None
                inputs, baselines = _tensors(inputs), _tensors(baselines)
                network = LayerNodes(self.model, self.nodes, inputs)
            yield make_game(network, inputs, baselines, target, self.batch_size)

    def _with_edges(self, circuit: NodeCircuit, game: Game) -> NodeCircuit:
        found = edges_between(game, list(circuit.order[: self.edges]), self._method)
        return replace(
            circuit,
            edges=tuple(found),
            weights=torch.tensor(list(found.values()), dtype=circuit.values.dtype),
        )

    def _shares(self, game: Game, order: Tensor, sizes: Sequence[int]) -> Tensor:
        """The share of the score with the first nodes of an order, for each size."""
        found = []
        for size in sizes:
            keep = torch.zeros(len(game.names), dtype=torch.bool)
            keep[order[:size]] = True
            found.append(game.kept(keep, self.batch_size).double().mean())
        empty = game.empty.double().mean()
        return (torch.stack(found) - empty) / (game.full.double().mean() - empty)


def _tensors(given: Any) -> Any:
    """Arrays and lists of numbers as tensors, anything else as it is."""
    if isinstance(given, Tensor) and not has_values(given):
        raise NotATensorError(f"expected a tensor with values, got {shown(given)}")
    array = as_tensor(given) if isinstance(given, list | np.ndarray) else MISFIT
    return given if array is MISFIT else array
