"""SparsityAnalyzer: how often neurons are active, which never are, and a model with fewer weights."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...core.blocks import block
from ...core.checks import checked
from ...core.errors import ArgumentError, EditError
from ...core.interrupts import until_the_end
from ...core.summaries import counted
from ...instrument import find_linear
from ..features import SparseAutoencoder, polysemanticity
from ..heads.vocabulary_weights import unembedding
from ..model.hooked_model import HookedModel
from ..model.point_names import wanted_names
from .base import HookedTool


class PolysemanticNeurons(NamedTuple):
    """Neurons that several features share.

    Attributes:
        neurons: Which, the most shared first.
        features: By how many features each is shared, as `polysemanticity` counts them.

    Example:
        >>> PolysemanticNeurons((3,), torch.tensor([[5, 9]])).neurons
        (3,)
    """

    neurons: tuple[int, ...]
    features: Tensor


class SparsityAnalyzer(HookedTool):
    """Looks at the sparsity of activations and of weights.

    The names and promises are those of Arrakis' tool ``sparsity``.

    Args:
        model: The model.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> tool = SparsityAnalyzer(HookedModel(model, tokenizer))
        >>> texts = [fact.text for fact in world.facts[:20]]
        >>> 0 < tool.compute_activation_sparsity(texts, ("post", 2)) < 1
        True
        >>> tool.firing_rates(texts, ("post", 2)).shape
        torch.Size([512])
        >>> with tool.prune_network(0.3) as pruned:
        ...     logits = pruned(texts[0])
    """

    @checked
    def compute_activation_sparsity(self, input_ids_list: Sequence[Any], activation_key: Any) -> float:
        """Returns the share of numbers of an activation that are not above 0.

        Args:
            input_ids_list: Texts, or tokens of texts.
            activation_key: The activation, such as ``("post", 2)`` or ``"blocks.2.mlp.hook_post"``.

        Raises:
            ArgumentError: There are no texts, or the key names several activations.
        """
        return 1 - float(self.firing_rates(input_ids_list, activation_key).double().mean())

    @checked
    def firing_rates(self, input_ids_list: Sequence[Any], activation_key: Any) -> Tensor:
        """Returns the share of tokens at which each neuron is above 0, (neurons,).

        Args:
            input_ids_list: Texts, or tokens of texts.
            activation_key: The activation.

        Raises:
            ArgumentError: There are no texts, or the key names several activations.
        """
        fired, tokens = None, 0
        for values in activations_of(self.model, input_ids_list, activation_key):
            counts = (values > 0).sum(0).double().cpu()
            fired = counts if fired is None else fired + counts
            tokens += len(values)
        assert fired is not None
        return (fired / tokens).float()

    @checked
    def dead_neurons(self, input_ids_list: Sequence[Any], activation_key: Any) -> tuple[int, ...]:
        """Returns the neurons that are above 0 at no token of the texts.

        Args:
            input_ids_list: Texts, or tokens of texts.
            activation_key: The activation.

        Raises:
            ArgumentError: There are no texts, or the key names several activations.
        """
        rates = self.firing_rates(input_ids_list, activation_key)
        return tuple((rates == 0).nonzero()[:, 0].tolist())

    @block
    @checked
    def prune_network(self, threshold: float = 0.9) -> Iterator[HookedModel]:
        """In the block, the smallest weights of each linear map are 0; afterwards all are what they were.

        Norms, biases, embeddings and the unembedding stay as they are.

        Args:
            threshold: The share of the weights of each map that are 0, those of the smallest size.

        Raises:
            ArgumentError: It is no share.
            EditError: Weights are offloaded.
        """
        if any(weight.is_meta for weight in self._weights()):
            raise EditError("weights are offloaded: load the model without offloading to prune it")
        if not 0 <= threshold < 1:
            raise ArgumentError(f"threshold is from 0 on and below 1, got {threshold}")
        with until_the_end() as cleanup, torch.no_grad():
            for weight in self._weights():
                before = weight.detach().clone()
                cleanup.add(lambda weight=weight, before=before: _set(weight, before))  # type: ignore[misc]
                count = int(threshold * weight.numel())
                if count:
                    smallest = weight.detach().abs().flatten().topk(count, largest=False, sorted=False)
                    weight.view(-1)[smallest.indices] = 0
            with torch.enable_grad():
                yield self.model

    def _weights(self) -> list[Tensor]:
        """The weights of the linear maps between embedding and unembedding."""
        points = self.model.points
        model: Any = points.graph.memory.model
        embedding = getattr(model, "get_input_embeddings", lambda: None)()
        kept = {id(getattr(embedding, "weight", None))}
        try:
            kept.add(id(model.get_parameter(unembedding(points).weight.name)))
        except TypeError:  # an encoder has none
            kept.add(id(None))
        names = {one.weight.name for one in find_linear(points.graph) if one.weight.kind == "parameter"}
        weights = [model.get_parameter(name) for name in sorted(names)]
        return [one for one in weights if id(one) not in kept]

    @checked
    def find_polysemantic_neurons(
        self, dictionary: SparseAutoencoder, threshold: float = 2.0
    ) -> PolysemanticNeurons:
        """Returns the neurons that more features of a dictionary share than a threshold.

        Args:
            dictionary: A dictionary of the neurons, such as one trained on ``blocks.2.mlp.hook_post``.
            threshold: How many features; a neuron with one feature has 1.
        """
        shared = polysemanticity(dictionary.W_dec)
        order = shared.argsort(descending=True)
        chosen = order[shared[order] > threshold]
        return PolysemanticNeurons(tuple(chosen.tolist()), shared[chosen])


def activations_of(model: HookedModel, given: Sequence[Any], key: Any) -> Iterator[Tensor]:
    """Yields an activation of each text, (tokens, width); heads are one vector.

    Raises:
        ArgumentError: There are no texts, or the key names several activations.
    """
    names = wanted_names(model.model, key, model.points)
    if len(names) != 1:
        raise ArgumentError(
            f"{key!r} names {counted(len(names), 'activation')}: name one, such as {names[:1]}"
        )
    if isinstance(given, str) or not len(given):
        raise ArgumentError(f"expected a list of texts, or of tokens of texts, got {given!r}")
    for one in given:
        with torch.no_grad():
            values = model.activations(one, names)[names[0]]
        yield values.flatten(2).flatten(0, 1)


def _set(weight: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        weight.copy_(value)
