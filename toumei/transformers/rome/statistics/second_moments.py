"""The second moments of the keys of layers, with which rank-one editing preserves all other facts.

C = E[k k^T] is the uncentered second moment of the inputs of a down-projection (Meng et al., 2022, eq. 2).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ....core.checks import checked
from ....core.errors import ArgumentError, NonFiniteError
from ....core.fingerprint import fingerprint_of
from ....core.serialization import Saved
from ....core.summaries import counted, listed
from ....core.tensor_specs import Spec, specs
from ...model.wrappers import language_model
from ..weight_edits.low_rank import null_directions
from ..weight_edits.registry import unedited_fingerprint


@dataclass(frozen=True, repr=False, eq=False)
class SecondMoment:
    """The second moment of the keys of one layer.

    Attributes:
        total: The sum of k k^T over all keys, (in, in), on the CPU.
        count: The number of keys.

    Example:
        >>> moment = SecondMoment(16 * torch.eye(2, dtype=torch.float64), 4)
        >>> moment.matrix.diag(), moment.whiten(torch.ones(1, 2))
        (tensor([4., 4.], dtype=torch.float64), tensor([[0.2500, 0.2500]], dtype=torch.float64))
    """

    total: Tensor
    count: int

    _specs = specs(total=Spec("keys keys", finite=True))

    @cached_property
    def matrix(self) -> Tensor:
        """The second moment itself, (in, in) in float64."""
        return self.total.double() / self.count

    @cached_property
    def _cholesky(self) -> Tensor:
        found: tuple[Tensor, Tensor] = torch.linalg.cholesky_ex(self.matrix)
        factor, info = found
        if info.item():
            raise NonFiniteError(
                f"the second moment of {counted(self.count, 'key')} of {counted(len(self.total), 'entry')} "
                "cannot be inverted: collect it over more texts, at least several times as many keys as "
                "entries"
            )
        return factor

    @checked
    def whiten(self, keys: Tensor) -> Tensor:
        """Returns the keys (n, in) times the inverse of the second moment, in float64 on the CPU.

        Raises:
            NonFiniteError: There were too few keys for an inverse.
        """
        return torch.cholesky_solve(keys.double().cpu().T, self._cholesky).T

    @cached_property
    def _axes(self) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = torch.linalg.eigh(self.matrix)
        return result

    @checked
    def project(self, keys: Tensor, threshold: float) -> Tensor:
        """Returns the part of the keys (n, in) in directions whose second moment is below a threshold.

        Raises:
            ArgumentError: There is no such direction.
        """
        free = null_directions(*self._axes, threshold)
        return keys.double().cpu() @ free @ free.T

    def __repr__(self) -> str:
        return f"SecondMoment({counted(len(self.total), 'entry')}, {counted(self.count, 'key')})"


class IdentityMoment(SecondMoment):
    """The second moment of a layer without statistics: all directions are used equally.

    Args:
        size: The number of entries of a key.

    Example:
        >>> IdentityMoment(2).whiten(torch.ones(1, 2))
        tensor([[1., 1.]], dtype=torch.float64)
    """

    def __init__(self, size: int) -> None:
        super().__init__(torch.ones(()).expand(size, size), 1)

    @property
    def matrix(self) -> Tensor:
        """The identity, (in, in) in float64."""
        return torch.eye(len(self.total), dtype=torch.float64)

    @checked
    def whiten(self, keys: Tensor) -> Tensor:
        """Returns the keys themselves, in float64 on the CPU."""
        return keys.double().cpu()

    @checked
    def project(self, keys: Tensor, threshold: float) -> Tensor:
        """Raises an `ArgumentError`: without statistics no direction is known to be unused."""
        raise ArgumentError(
            "'alphaedit' needs key statistics to find directions that keys do not use: give the editor the "
            "result of collect_statistics"
        )


@dataclass(frozen=True, repr=False, eq=False)
class KeyStatistics(Saved):
    """The second moments of the keys of some layers of one model over one corpus.

    Attributes:
        moments: The second moment of each layer.
        model: The fingerprint of the model's weights, including edits that were applied.
        corpus: A hash of all tokens that were read.
        texts: The number of texts.

    Example:
        >>> from itertools import islice
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import collect_statistics
        >>> model, tokenizer, world = facts_gpt()
        >>> texts = islice(world.texts(seed=0), 50)
        >>> statistics = collect_statistics(model, tokenizer, texts, [2], verbose=False)
        >>> statistics.texts, list(statistics.moments)
        (50, [2])
    """

    moments: Mapping[int, SecondMoment]
    model: str
    corpus: str
    texts: int

    @checked
    def __getitem__(self, layer: int) -> SecondMoment:
        if layer not in self.moments:
            raise ArgumentError(
                f"no statistics of layer {layer}: there are those of layers {list(self.moments)}; "
                f"collect_statistics(..., layers=[{layer}, ...]) collects others"
            )
        return self.moments[layer]

    @checked
    def check(self, model: nn.Module, layers: Sequence[int] = ()) -> None:
        """Checks that the statistics belong to this model and have these layers.

        Raises:
            ArgumentError: The keys were collected with other weights, or a layer is missing.
        """
        model = language_model(model)
        if self.model not in (fingerprint_of(model), unedited_fingerprint(model)):
            raise ArgumentError(
                f"these statistics belong to a model with other weights than this {type(model).__name__}: "
                f"collect them again"
            )
        for layer in layers:
            self[layer]

    @checked
    def merge(self, other: "KeyStatistics") -> "KeyStatistics":
        """Returns the statistics over both corpora.

        Raises:
            ArgumentError: The other statistics are of another model, of other layers, or of the same texts.
        """
        if other.corpus == self.corpus:
            raise ArgumentError(f"cannot merge {self} with {other}: both are of the same texts")
        if other.model != self.model or set(other.moments) != set(self.moments):
            raise ArgumentError(f"cannot merge {self} with {other}: they must share the model and the layers")
        moments = {
            layer: SecondMoment(mine.total + other[layer].total, mine.count + other[layer].count)
            for layer, mine in self.moments.items()
        }
        corpus = hashlib.sha256((self.corpus + other.corpus).encode()).hexdigest()
        return KeyStatistics(moments, self.model, corpus, self.texts + other.texts)

    @classmethod
    @checked
    def load(cls, path: str | Path, model: nn.Module | None = None) -> Self:
        """Returns saved statistics.

        Args:
            path: The file.
            model: Refuse the file if it does not belong to this model.

        Raises:
            ArgumentError: The file holds something else, is cut short, or belongs to other weights.
        """
        statistics = super().load(path)
        if model is not None:
            statistics.check(model)
        return statistics

    def __repr__(self) -> str:
        layers = listed(self.moments, 8)
        count = min((moment.count for moment in self.moments.values()), default=0)
        return f"KeyStatistics(layers {layers}: {counted(count, 'key')} of {counted(self.texts, 'text')})"
