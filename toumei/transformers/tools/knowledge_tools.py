"""KnowledgeProber and KnowledgeGraphExtractor: what neurons tell of statements, and relations in heads."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.functional import normalize

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError, LayerError
from ...core.kinds import shown
from ..heads import ov_circuit
from ..heads.circuit_tokens import SingularReadOut, singular_read_out
from ..heads.vocabulary_weights import embedding_weights
from ..heads.weights import matrix_of
from ..knowledge import KnowledgeGraph, ProbeResult
from ..knowledge import KnowledgeGraphExtractor as Extractor
from ..knowledge import KnowledgeProber as Prober
from ..knowledge.features import read_features
from .base import HookedTool


class NeuronProbe(NamedTuple):
    """The activations of a neuron after true and false statements.

    Attributes:
        true: (statements,).
        false: (statements,).
        auroc: The share of pairs of a true and a false statement in which that of the true one is larger: 0.5
            says nothing, 1 tells them apart.

    Example:
        >>> import torch
        >>> NeuronProbe(torch.tensor([0.9, 0.8]), torch.tensor([0.1, 0.2]), auroc=1.0).auroc
        1.0
    """

    true: Tensor
    false: Tensor
    auroc: float


class Subspaces(NamedTuple):
    """The largest singular values of the OV circuits of a layer's heads, with their vectors.

    Attributes:
        values: (heads, k).
        read: What of the stream is read, (heads, k, width).
        written: What is written for it, (heads, k, width).

    Example:
        >>> import torch
        >>> Subspaces(torch.rand(2), torch.rand(2, 8), torch.rand(2, 8)).read.shape
        torch.Size([2, 8])
    """

    values: Tensor
    read: Tensor
    written: Tensor


class KnowledgeProber(HookedTool):
    """Reads out of neurons and layers what a model knows.

    Args:
        model: The model.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> from toumei.transformers import HookedModel
        >>> prober = KnowledgeProber(HookedModel(model, tokenizer))
        >>> prober.polysemantic_score(2).shape
        torch.Size([512])
    """

    @checked
    def polysemantic_score(self, layer_idx: int, k: int = 5) -> Tensor:
        """Returns the mean cosine of each neuron's input weights with its k nearest neurons, (neurons,).

        1 is a neuron that reads what others read too, 0 one whose direction is its alone.

        Raises:
            LayerError: The layer has no neurons.
        """
        check_counts(1, k=k)
        network = self.model.points.networks.get(layer_idx)
        if network is None:
            known = sorted(self.model.points.networks)
            raise LayerError(f"layers with neurons are {known}, got {layer_idx}")
        weights = matrix_of(self.model.points.graph, network.first)[:, : network.hidden_size].T
        cosines = normalize(weights.float(), dim=1) @ normalize(weights.float(), dim=1).T
        cosines.fill_diagonal_(-2)
        return cosines.topk(min(k, len(cosines) - 1)).values.mean(1).detach().cpu()

    @checked
    def knowledge_probe(self, pairs: Sequence[tuple[Any, Any]], neuron: tuple[int, int]) -> NeuronProbe:
        """Returns how a neuron is active at the end of true and of false statements.

        Args:
            pairs: Pairs of a true and a false statement.
            neuron: Layer and number of the neuron.

        Raises:
            ArgumentError: There are no pairs, or no such neuron.
            LayerError: The layer has no neurons.
        """
        if not pairs:
            raise ArgumentError(f"expected pairs of a true and a false statement, got {shown(pairs)}")
        layer, number = neuron
        sides = [
            read_features(self.model, [pair[side] for pair in pairs], [("post", layer)]) for side in (0, 1)
        ]
        true, false = (side.values[0] for side in sides)
        if not 0 <= number < true.shape[1]:
            raise ArgumentError(f"layer {layer} has neurons 0 to {true.shape[1] - 1}, got {number}")
        one, other = true[:, number], false[:, number]
        larger = (one[:, None] > other).double() + (one[:, None] == other).double() / 2
        return NeuronProbe(one, other, float(larger.mean()))

    @checked
    def probe(self, texts: Sequence[Any], labels: Sequence[Any], kind: str = "linear") -> ProbeResult:
        """Returns the accuracy of probes of each layer; see `toumei.transformers.KnowledgeProber`."""
        return Prober(self.model, kind)(texts, labels)  # type: ignore[arg-type]


class KnowledgeGraphExtractor(HookedTool):
    """Relations between tokens in the OV circuits of heads, and facts that a model states after prompts.

    Args:
        model: The model.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers import HookedModel
        >>> model = HookedModel(InductionTransformer(vocabulary=4, positions=8))
        >>> found = KnowledgeGraphExtractor(model).identify_relation_types(1, top_k=4, tokens=1)
        >>> found.rows == found.columns  # the induction head copies
        True
    """

    @checked
    def extract_relational_subspaces(self, layer_idx: int, top_k: int = 10) -> Subspaces:
        """Returns the singular vectors of what each head of a layer reads and writes.

        Raises:
            LayerError: The layer has no attention.
        """
        check_counts(1, top_k=top_k)
        self._check_layer(layer_idx)
        U, S, Vh = ov_circuit(self.model, layer_idx).svd()
        found = Subspaces(S[:, :top_k], U[..., :top_k].mT, Vh[:, :top_k])
        return Subspaces(*(part.detach().cpu() for part in found))

    @checked
    def project_token_embeddings(self, layer_idx: int, top_k: int = 10) -> Tensor:
        """Returns how much of each token's embedding these vectors read, (heads, k, tokens)."""
        read = self.extract_relational_subspaces(layer_idx, top_k).read
        return read @ embedding_weights(self.model).detach().cpu().T

    @checked
    def identify_relation_types(
        self, layer_idx: int, *, head_idx: int = 0, top_k: int = 5, tokens: int = 8
    ) -> SingularReadOut:
        """Returns which tokens a head reads and which it writes for them, by singular vector.

        Raises:
            ArgumentError: There is no such head.
            LayerError: The layer has no attention.
        """
        self._check_head(layer_idx, head_idx)
        return singular_read_out(self.model, layer_idx, head_idx, vectors=top_k, k=tokens)

    @checked
    def extract(self, subjects: Mapping[str, Sequence[str]], templates: Mapping[str, Any]) -> KnowledgeGraph:
        """Returns the facts that the model states; see `toumei.transformers.KnowledgeGraphExtractor`."""
        return Extractor(self.model).from_prompts(subjects, templates)
