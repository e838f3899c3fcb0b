"""The editing methods: for each a function (keys, residuals, statistics) -> change of a weight.

A new method is one such function and one line in `EDITING_METHODS`. All five use the same `closed_form`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ....core.errors import ArgumentError
from ..statistics.second_moments import SecondMoment
from ..weight_edits.low_rank import LowRank, closed_form
from .settings import EditSettings


@dataclass(frozen=True, eq=False)
class Keys:
    """The inputs of a down-projection at the last token of each of n subjects.

    Attributes:
        mean: The average over the contexts in which the subject was read, (n, in).
        bare: The input in the prompt alone, (n, in).
        earlier: The keys of facts of earlier edits that have to be preserved, (m, in).
    """

    mean: Tensor
    bare: Tensor
    earlier: Tensor

    @classmethod
    def of(cls, mean: Tensor, bare: Tensor | None = None, earlier: Tensor | None = None) -> "Keys":
        """Returns keys. By default the bare keys are the averages, and there are no earlier keys."""
        return cls(mean, mean if bare is None else bare, mean[:0] if earlier is None else earlier)


Update = Callable[[Keys, Tensor, SecondMoment, EditSettings], LowRank]


@dataclass(frozen=True)
class EditingMethod:
    """An editing method.

    Attributes:
        update: From keys, residuals (n, out), the second moment of the layer's keys and the settings to the
            change of the layer's weight.
        many: Whether it takes several facts at once and spreads them over the layers. Then the residuals are
            changes of the residual stream after the last of the layers.
    """

    update: Update
    many: bool = False


def rome(keys: Keys, residuals: Tensor, statistics: SecondMoment, settings: EditSettings) -> LowRank:
    """ROME (Meng et al., 2022, eq. 2) as in its code: along the averaged key, exact at the bare key.

    If the two keys differ much, the change becomes huge; `r_rome` does not have this defect.

    Example:
        >>> from toumei.transformers.rome.statistics.second_moments import IdentityMoment
        >>> keys = Keys.of(torch.tensor([[1.0, 2.0]]).double())
        >>> rome(keys, torch.ones(1, 3).double(), IdentityMoment(2), EditSettings(layers=(0,)))
        LowRank(3x2, rank 1)
    """
    return closed_form(keys.mean, residuals, statistics.whiten(keys.mean), exact_keys=keys.bare)


def r_rome(keys: Keys, residuals: Tensor, statistics: SecondMoment, settings: EditSettings) -> LowRank:
    """R-ROME (Gupta et al., 2024, arXiv:2403.07175): the averaged key on both sides.

    The optimization adds the residual to the value in every context, so the averaged key gets it too.
    """
    return closed_form(keys.mean, residuals, statistics.whiten(keys.mean))


def memit(keys: Keys, residuals: Tensor, statistics: SecondMoment, settings: EditSettings) -> LowRank:
    """MEMIT (Meng et al., 2023, eq. 14): many keys; lambda weighs the keys of all other texts."""
    return closed_form(keys.mean, residuals, statistics.whiten(keys.mean), settings.ridge)


def emmet(keys: Keys, residuals: Tensor, statistics: SecondMoment, settings: EditSettings) -> LowRank:
    """EMMET (Gupta et al., 2024, arXiv:2403.14236): exact for one key, with a small ridge for several."""
    ridge = settings.ridge * settings.emmet_ridge if len(keys.mean) > 1 else 0.0
    return closed_form(keys.mean, residuals, statistics.whiten(keys.mean), ridge)


def alphaedit(keys: Keys, residuals: Tensor, statistics: SecondMoment, settings: EditSettings) -> LowRank:
    """AlphaEdit (Fang et al., 2025, eq. 14): in the null space of the keys, preserving earlier edits."""
    every = torch.cat([keys.mean, keys.earlier])
    projected = statistics.project(every, settings.null_threshold)
    return replace(closed_form(every, residuals, projected, settings.null_ridge), keys=keys.mean)


EDITING_METHODS: Mapping[str, EditingMethod] = {
    "rome": EditingMethod(rome),
    "r-rome": EditingMethod(r_rome),
    "memit": EditingMethod(memit, many=True),
    "emmet": EditingMethod(emmet, many=True),
    "alphaedit": EditingMethod(alphaedit, many=True),
}


def find_method(name: str) -> EditingMethod:
    """Returns the method of this name.

    Raises:
        ArgumentError: There is no such method.
    """
    if name not in EDITING_METHODS:
        raise ArgumentError(f"no method {name!r}: there are {', '.join(EDITING_METHODS)}")
    return EDITING_METHODS[name]
