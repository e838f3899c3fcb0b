"""SuperpositionDisentangler: the directions of an activation by PCA, ICA or a dictionary."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ...core.checks import check_choice, check_counts, check_seed, checked
from ...core.errors import ArgumentError
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import specs
from ..features import DictionarySettings, SparseAutoencoder, interference, train_dictionary
from .base import HookedTool
from .sparsity_analyzer import activations_of

Method = Literal["pca", "ica", "dictionary"]


@dataclass(frozen=True, repr=False, eq=False)
class Directions(Saved):
    """Directions of an activation.

    Attributes:
        method: ``"pca"``, ``"ica"`` or ``"dictionary"``.
        directions: What each adds to the activation, of length 1, (directions, width).
        reading: What coordinates are products with, (directions, width).
        mean: The activation with all coordinates 0, (width,).
        unexplained: The share of the variance that the directions leave.
        dictionary: The dictionary, whose coordinates are no products.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import HookedModel
        >>> from toumei.transformers.tools import SuperpositionDisentangler
        >>> model, tokenizer, world = facts_gpt()
        >>> tool = SuperpositionDisentangler(HookedModel(model, tokenizer))
        >>> texts = [fact.text for fact in world.facts[:40]]
        >>> tool.disentangle_superposition(texts, ("mlp_out", 2), 8).directions.shape
        torch.Size([8, 128])
    """

    method: Method
    directions: Tensor
    reading: Tensor
    mean: Tensor
    unexplained: float
    dictionary: SparseAutoencoder | None = None

    _specs = specs(directions="directions width", reading="directions width", mean="width")

    @checked
    def project(self, activations: Tensor) -> Tensor:
        """Returns the coordinates (..., directions) of activations (..., width)."""
        if self.dictionary is not None:
            return self.dictionary.encode(activations)
        if activations.shape[-1:] != self.mean.shape:
            raise ArgumentError(f"expected width {len(self.mean)}, got {tuple(activations.shape)}")
        return (activations - self.mean.to(activations)) @ self.reading.T.to(activations)

    @checked
    def reconstruct(self, coordinates: Tensor) -> Tensor:
        """Returns the activations (..., width) of coordinates (..., directions)."""
        if coordinates.shape[-1:] != (len(self.directions),):
            raise ArgumentError(
                f"expected {counted(len(self.directions), 'coordinate')}, got {tuple(coordinates.shape)}"
            )
        return coordinates @ self.directions.to(coordinates) + self.mean.to(coordinates)

    @checked
    def interpolate(self, first: Tensor, second: Tensor, alpha: float = 0.5) -> Tensor:
        """Returns the activation whose coordinates lie between those of two, (..., width).

        Args:
            first: An activation (..., width).
            second: Another one.
            alpha: 0 for the first, 1 for the second.
        """
        return self.reconstruct((1 - alpha) * self.project(first) + alpha * self.project(second))

    def interference(self) -> Tensor:
        """Returns how much of the others each direction picks up, (directions,): 0 for orthogonal ones."""
        return interference(self.directions)

    def __repr__(self) -> str:
        count, width = self.directions.shape
        return (
            f"Directions({count} by {self.method} in width {width}, unexplained {self.unexplained:.3f}, "
            f"mean interference {float(self.interference().mean()):.3f})"
        )


class SuperpositionDisentangler(HookedTool):
    """Finds the directions that an activation is made of.

    The names and promises are those of Arrakis' tool ``superposition``.

    Args:
        model: The model.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import HookedModel
        >>> model, tokenizer, world = facts_gpt()
        >>> tool = SuperpositionDisentangler(HookedModel(model, tokenizer))
        >>> texts = [fact.text for fact in world.facts[:40]]
        >>> tool.disentangle_superposition(texts, ("mlp_out", 2), 8)
        Directions(8 by pca in width 128, unexplained ..., mean interference 0.000)
    """

    @checked
    def compute_activation_covariance(self, input_ids_list: Sequence[Any], activation_key: Any) -> Tensor:
        """Returns the covariance (width, width) of an activation over all tokens of the texts.

        Args:
            input_ids_list: Texts, or tokens of texts.
            activation_key: The activation, such as ``("mlp_out", 2)``.

        Raises:
            ArgumentError: There are fewer than two tokens, or the key names several activations.
        """
        return self._values(input_ids_list, activation_key).T.cov()

    @checked
    def disentangle_superposition(
        self,
        input_ids_list: Sequence[Any],
        activation_key: Any,
        n_components: int,
        *,
        method: Method = "pca",
        active: int = 4,
        passes: int = 20,
        seed: int = 0,
    ) -> Directions:
        """Returns the directions of an activation.

        PCA finds orthogonal ones, ICA independent ones, at most as many as the width; a dictionary (TopK)
        finds more than that; few are active at a time.

        Args:
            input_ids_list: Texts, or tokens of texts.
            activation_key: The activation.
            n_components: How many directions.
            method: ``"pca"``, ``"ica"`` or ``"dictionary"``.
            active: How many directions of a dictionary are active at a time.
            passes: How often a dictionary sees the activations in its training.
            seed: Of ICA and of the dictionary.

        Raises:
            ArgumentError: More directions than the width or the tokens allow, or another method.
        """
        check_counts(1, n_components=n_components, active=active, passes=passes)
        check_choice("method", method, ("pca", "ica", "dictionary"))
        check_seed(seed)
        values = self._values(input_ids_list, activation_key)
        if method == "dictionary":
            return _by_dictionary(values, n_components, active, passes, seed)
        most = min(values.shape)
        if n_components > most:
            raise ArgumentError(
                f"{method} finds at most {counted(most, 'direction')} in {counted(len(values), 'vector')} of "
                f"width {values.shape[1]}, got {n_components}: a dictionary finds more"
            )
        mean = values.mean(0)
        if method == "pca":
            _, vectors = torch.linalg.eigh(values.T.cov())
            directions = reading = vectors.T.flip(0)[:n_components].contiguous()
        else:
            from sklearn.decomposition import FastICA

            found = FastICA(n_components, whiten="unit-variance", random_state=seed, max_iter=1000)
            found.fit(values.numpy())
            mixing, unmixing = torch.as_tensor(found.mixing_.T), torch.as_tensor(found.components_)
            lengths = mixing.norm(dim=1, keepdim=True)
            directions, reading = (mixing / lengths).contiguous(), (unmixing * lengths).contiguous()
        left = values - mean - (values - mean) @ reading.T @ directions
        unexplained = float(left.square().sum() / (values - mean).square().sum())
        return Directions(method, directions.float(), reading.float(), mean.float(), unexplained)

    def _values(self, given: Sequence[Any], key: Any) -> Tensor:
        values = torch.cat([one.double().cpu() for one in activations_of(self.model, given, key)])
        if len(values) < 2 or not float(values.var(0).sum()):
            raise ArgumentError(
                f"expected two tokens with different activations, got {counted(len(values), 'token')}"
            )
        return values


def _by_dictionary(values: Tensor, features: int, active: int, passes: int, seed: int) -> Directions:
    settings = DictionarySettings(
        features=features,
        k=min(active, features),
        tokens=passes * len(values),
        batch_size=min(256, len(values)),
        buffer=len(values),
        learning_rate=3e-3,
        seed=seed,
    )
    plain = values.float()
    dictionary = train_dictionary(plain, settings, verbose=False).dictionary
    left = plain - dictionary(plain)
    unexplained = float(left.square().sum() / (plain - plain.mean(0)).square().sum())
    return Directions(
        method="dictionary",
        directions=dictionary.W_dec,
        reading=dictionary.W_enc.T.contiguous(),
        mean=dictionary.b_dec,
        unexplained=unexplained,
        dictionary=dictionary,
    )
