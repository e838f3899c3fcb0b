"""Neurons of feed-forward layers pruned in the weights of a model."""

from collections.abc import Mapping, Sequence

from torch import nn

from ...core.checks import checked
from ...core.errors import ArchitectureError, ArgumentError, LayerError
from ...core.summaries import listed
from ..model.hook_search import HookPoints
from ..model.hooked_model import HookedModel
from .changes import Replacement
from .same_result import WAY_OUT, SameResult, zeros_at
from .surgery import Surgery
from .weight_drafts import Drafts, left_out


@checked
def prune_neurons(model: nn.Module, neurons: Mapping[int, Sequence[int]]) -> Surgery:
    """Returns the surgery after which a model computes without some neurons of its feed-forward layers.

    Their rows and columns are cut out of the weights, of a gated layer those of the gate too. The result is
    that of a zero in place of the activation ``post`` of the neuron, which is checked.

    Args:
        model: A transformer.
        neurons: For each layer the neurons.

    Raises:
        ArgumentError: There is no such neuron, one is given twice, or none would be left.
        LayerError: There is no such layer.
        ArchitectureError: The layer has experts, or its weights cannot be told.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> with prune_neurons(model, {2: range(500)}):
        ...     model.transformer.h[2].mlp.c_fc.weight.shape
        torch.Size([128, 12])
    """
    given = {layer: list(some) for layer, some in neurons.items()}
    if not given:
        raise ArgumentError("expected neurons of layers, got none")
    same = SameResult(model)

    def plan() -> list[Replacement]:
        hooked, drafts = HookedModel(model), Drafts(model)
        for layer, some in given.items():
            _cut(hooked.points, layer, some, drafts)
        same.expect(hooked, {("post", layer): zeros_at(some, -1) for layer, some in given.items()})
        return drafts.replacements()

    counts = [f"{len(some)} of layer {layer}" for layer, some in given.items()]
    return Surgery(model, f"prune neurons, {listed(counts)}", plan, same.check, WAY_OUT)


def _cut(points: HookPoints, layer: int, neurons: Sequence[int], drafts: Drafts) -> None:
    """Cuts neurons out of the drafts of a layer."""
    network = points.networks.get(layer)
    if network is None:
        if not 0 <= layer < points.layers:
            raise LayerError(f"layers are from 0 to {points.layers - 1}, got {layer}")
        raise ArchitectureError(points.missing[f"blocks.{layer}.mlp.hook_post"])
    size = network.hidden_size
    for neuron in neurons:
        if type(neuron) is not int or not 0 <= neuron < size:
            raise ArgumentError(f"layer {layer} has neurons 0 to {size - 1}, got {neuron!r}")
    if not neurons or len(set(neurons)) < len(neurons):
        raise ArgumentError(f"expected different neurons of layer {layer}, got {listed(neurons)}")
    if len(neurons) == size:
        raise ArgumentError(f"all neurons ({size}) of layer {layer} would be pruned: leave one")
    kept = left_out(size, neurons)
    first = drafts.of(network.first)
    up = first if network.up is None else drafts.of(network.up)
    if up is first:  # maybe gates and values in one layer, side by side
        starts = range(0, first.weight.shape[1], size)
        first.keep(outputs=[start + neuron for start in starts for neuron in kept])
    else:
        for draft in (first, up):
            draft.keep(outputs=kept)
    drafts.of(network.down).keep(inputs=kept)
