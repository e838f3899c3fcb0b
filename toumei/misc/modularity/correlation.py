"""The graph of the activations of a network: units joined by the correlations of their responses."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.finite import check_finite
from ...core.hooks import run
from ...core.kinds import shown
from ...core.layout import channels_of, with_layouts_of
from ...core.modules import evaluating
from ...core.repeats import check_repeats
from ...core.surveys import survey
from .graph import Block, WeightGraph


@checked
@torch.no_grad()
def correlation_graph(
    model: nn.Module, layers: Sequence[str], inputs: Tensor, *, batch_size: int = 500
) -> WeightGraph:
    """Returns the graph whose edges are squared Spearman correlations of activations (Hod et al., 2021).

    The response of a unit to an input is its activation, for maps and tokens the mean over positions. Units
    with the same response to all inputs are isolated. `null_test` shuffles the correlations.

    Args:
        model: The network.
        layers: Names of the layers whose units are the nodes.
        inputs: (N, ...), at least three; the paper takes at most 5000.
        batch_size: Inputs at a time.

    Raises:
        ArgumentError: Fewer than three inputs, or no layers.
        LayerError: A layer that the model does not have.
        NonFiniteError: Activations that are NaN or infinite.

    Example:
        >>> from toumei.models import SimpleMLP
        >>> correlation_graph(SimpleMLP(4, 8, 2), ["fc0", "fc1"], torch.randn(50, 4))
        WeightGraph(10 units: fc0 8, fc1 2; 45 edges)
    """
    if not inputs.dim() or len(inputs) < 3 or not layers:
        raise ArgumentError(
            f"correlations need at least 3 inputs and 1 layer, got {shown(inputs)} and {layers}"
        )
    responses: dict[str, list[Tensor]] = {name: [] for name in layers}
    with evaluating(model):
        found = survey(model, layers, lambda: model(inputs[:1]))
        for batch in inputs.split(batch_size):
            activations = with_layouts_of(found.activations, run(model, batch, record=found.names))
            for name in layers:
                responses[name].append(channels_of(activations, name).values.mean(2))
        check_repeats(model, inputs[:1])
    for name, of_batches in responses.items():
        check_finite(torch.cat(of_batches), f"activations of {name!r}")
    ranks = [_standardized_ranks(torch.cat(responses[name])) for name in layers]
    blocks = []
    for target, rows in enumerate(ranks):
        for source, columns in enumerate(ranks[: target + 1]):
            squared = (rows.T @ columns).square()
            if source == target:
                squared = (squared + squared.T) / 2  # symmetric to the last bit
                squared.fill_diagonal_(0)
            blocks.append(Block(source, target, squared))
    return WeightGraph(tuple(layers), tuple(rank.shape[1] for rank in ranks), tuple(blocks))


def _standardized_ranks(values: Tensor) -> Tensor:
    """Ranks of each column, with mean 0 and norm 1; equal values share a rank, constant columns are 0."""
    from scipy.stats import rankdata

    ranks = torch.from_numpy(rankdata(values.cpu().numpy(), axis=0)).to(values.device)
    centred = ranks - ranks.mean(0)
    norms = torch.linalg.vector_norm(centred, dim=0)
    return torch.where(norms > 0, centred / norms.clamp(min=1e-12), 0.0)
