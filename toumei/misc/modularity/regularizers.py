"""Terms of a training loss that make a network modular: clusterability, and short connections."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.summaries import counted
from .graph import WeightGraph


@checked
def clusterability_loss(model: nn.Module, count: int = 3, example_input: object = None) -> Tensor:
    """Returns the sum of the smallest eigenvalues of the Laplacian after the first, with gradient.

    Each is a lower bound of a normalized cut: if `count` eigenvalues are small, the network can be cut into
    `count` + 1 modules (Filan et al., 2021, who add the sum to the loss with a weight of 0.1).

    Args:
        model: A feed-forward network; its whole adjacency matrix is made, so a small one.
        count: How many eigenvalues.
        example_input: See `WeightGraph.from_model`.

    Raises:
        ArgumentError: At least as many eigenvalues as units with edges.

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
        raise ArgumentError(
            f"{counted(count, 'eigenvalue')} after the first, of {counted(int(kept.sum()), 'unit')} with "
            "edges"
        )
    root = degrees[kept].rsqrt()
    values, _ = torch.linalg.eigh(adjacency[kept][:, kept] * root * root[:, None])
    result: Tensor = (1 - values[-1 - count : -1]).sum()
    return result


@checked
class LocalityCost:
    """The length of the connections of a perceptron: brain-inspired modular training (Liu et al., 2023).

    The units of a layer have equidistant positions between 0 and 1. A connection costs its absolute weight
    times ``2 * distance + 0.5``, a bias half of its absolute value, each averaged over a layer. The weight in
    the paper is 0.01, and 0.1 in the middle half of the training. Every few hundred steps `swap` exchanges
    the positions of units.

    Args:
        model: A chain of linear layers with elementwise functions between them.

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
    @checked
    def swap(self, most: int = 30) -> int:
        """Exchanges the positions of the strongest units of each hidden layer if that shortens connections.

        The function of the network stays the same.

        Args:
            most: How many units of a layer are tried.

        Returns:
            How many pairs of units were exchanged.
        """
        check_counts(0, most=most)
        return sum(self._swap(before, after, most) for before, after in pairwise(self.layers))

    def _swap(self, before: nn.Linear, after: nn.Linear, most: int) -> int:
        strength = before.weight.abs().sum(1) + after.weight.abs().sum(0)
        swaps = 0
        for unit in strength.topk(min(most, len(strength))).indices.tolist():
            # at[i, j]: the cost of the connections of unit i at position j
            incoming = before.weight.abs() @ _lengths(before).T / before.weight.numel()
            at = incoming + after.weight.abs().T @ _lengths(after) / after.weight.numel()
            current = at.diagonal()
            gain = current[unit] + current - at[unit] - at[:, unit]
            best = int(gain.argmax())
            if gain[best] > 1e-9:
                _exchange(before, after, unit, best)
                swaps += 1
        return swaps


def _lengths(layer: nn.Linear) -> Tensor:
    """2 * distance + 0.5 between the positions of outputs and inputs, (out, in)."""
    weight = layer.weight
    positions = [(torch.arange(n, dtype=weight.dtype, device=weight.device) + 0.5) / n for n in weight.shape]
    return 2 * (positions[0][:, None] - positions[1]).abs() + 0.5


def _exchange(before: nn.Linear, after: nn.Linear, first: int, second: int) -> None:
    pair, turned = [first, second], [second, first]
    before.weight[pair] = before.weight[turned]
    after.weight[:, pair] = after.weight[:, turned]
    if before.bias is not None:
        before.bias[pair] = before.bias[turned]
