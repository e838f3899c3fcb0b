"""Terms to train with, so that a network falls into modules: clusterability, and short connections."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ...core.errors import ArgumentError
from .graph import WeightGraph


def clusterability_loss(model: nn.Module, count: int = 3, example_input: object = None) -> Tensor:
    """Returns the sum of the Laplacian's smallest eigenvalues behind the first, with gradient.

    Each bounds a normalized cut from below: where they are small, the network can be cut into that many
    modules and one more (Filan et al., 2021, who add it to the loss with a weight of 0.1).

    Args:
        model: A feed-forward network; its whole adjacency matrix is made, so a small one.
        count: How many eigenvalues.
        example_input: See `WeightGraph.from_model`.

    Raises:
        ArgumentError: Not fewer eigenvalues than units with edges.

    Example:
        >>> from toumei.models import SimpleMLP
        >>> model = SimpleMLP(4, 8, 2)
        >>> clusterability_loss(model).backward()
        >>> model.fc0.weight.grad.shape
        torch.Size([8, 4])
    """
    adjacency = WeightGraph.from_model(model, example_input, keep_graph=True).adjacency()
    degrees = adjacency.sum(0)
    kept = degrees > 0
    if not 1 <= count < int(kept.sum()):
        raise ArgumentError(f"{count} eigenvalues behind the first, of {int(kept.sum())} units with edges")
    root = degrees[kept].rsqrt()
    values, _ = torch.linalg.eigh(adjacency[kept][:, kept] * root * root[:, None])
    return (1 - values[-1 - count : -1]).sum()


class LocalityCost:
    """The length of a perceptron's connections: brain-inspired modular training (Liu et al., 2023).

    Units of a layer stand beside each other between 0 and 1. A connection costs its absolute weight times
    ``2 * distance + 0.5``, a bias half of its absolute value, each as a mean over a layer; the paper's weight
    is 0.01, ten times as much in the middle half of the training. Every few hundred steps `swap` lets units
    change places.

    Args:
        model: A chain of linear layers with whatever between them acts on each unit alone.

    Raises:
        ArgumentError: Fewer than two linear layers, or layers that do not follow each other.

    Example:
        >>> from toumei.models import SimpleMLP
        >>> cost = LocalityCost(SimpleMLP(4, 8, 2))
        >>> before = cost().item()
        >>> cost.swap() >= 0, cost().item() <= before
        (True, True)
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
        fits = all(first.out_features == second.in_features for first, second in pairwise(self.layers))
        if len(self.layers) < 2 or not fits:
            found = ", ".join(f"{layer.in_features} to {layer.out_features}" for layer in self.layers)
            raise ArgumentError(
                f"a locality cost is for a chain of at least two linear layers, {type(model).__name__} has "
                f"{found or 'none'}"
            )

    def __call__(self) -> Tensor:
        """Returns the cost, a scalar with gradient to weights and biases."""
        weights = [(layer.weight.abs() * _lengths(layer)).mean() for layer in self.layers]
        biases = [0.5 * layer.bias.abs().mean() for layer in self.layers if layer.bias is not None]
        return torch.stack(weights + biases).sum()

    @torch.no_grad()
    def swap(self, most: int = 30) -> int:
        """Lets the strongest units of each hidden layer change places where that shortens connections.

        What the network computes stays the same.

        Args:
            most: How many units of a layer may begin a change.

        Returns:
            How many pairs changed places.
        """
        return sum(self._swap(before, after, most) for before, after in pairwise(self.layers))

    def _swap(self, before: nn.Linear, after: nn.Linear, most: int) -> int:
        strength = before.weight.abs().sum(1) + after.weight.abs().sum(0)
        swaps = 0
        for unit in strength.topk(min(most, len(strength))).indices.tolist():
            # at[i, j]: what the connections of unit i would cost at place j
            incoming = before.weight.abs() @ _lengths(before).T / before.weight.numel()
            at = incoming + after.weight.abs().T @ _lengths(after) / after.weight.numel()
            own = at.diagonal()
            gain = own[unit] + own - at[unit] - at[:, unit]
            best = int(gain.argmax())
            if gain[best] > 1e-9:
                _exchange(before, after, unit, best)
                swaps += 1
        return swaps


def _lengths(layer: nn.Linear) -> Tensor:
    """2 * distance + 0.5 between the places of outputs and inputs, (out, in)."""
    weight = layer.weight
    places = [(torch.arange(n, dtype=weight.dtype, device=weight.device) + 0.5) / n for n in weight.shape]
    return 2 * (places[0][:, None] - places[1]).abs() + 0.5


def _exchange(before: nn.Linear, after: nn.Linear, first: int, second: int) -> None:
    pair, turned = [first, second], [second, first]
    before.weight[pair] = before.weight[turned]
    after.weight[:, pair] = after.weight[:, turned]
    if before.bias is not None:
        before.bias[pair] = before.bias[turned]
