"""The editing methods: for each a function (keys, residuals, statistics) -> change of a weight.

A new method is one such function and one line in `METHODS`. All five are one closed form, `closed_form`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ....core.errors import ArgumentError
from ..statistics.second_moments import SecondMoment
from ..weight_edits.low_rank import LowRank, closed_form
from .settings import Settings


@dataclass(frozen=True, eq=False)
class Keys:
    """What a layer is given at the last token of each of n subjects.

    Attributes:
        mean: Averaged over the contexts that the subject was read in, (n, in).
        bare: In the prompt alone, (n, in).
        earlier: Keys of facts that earlier edits have written and that are to stay, (m, in).
    """

    mean: Tensor
    bare: Tensor
    earlier: Tensor

    @classmethod
    def of(cls, mean: Tensor, bare: Tensor | None = None, earlier: Tensor | None = None) -> "Keys":
        """Returns keys; the bare ones are the averaged ones, and there are no earlier ones, if not given."""
        return cls(mean, mean if bare is None else bare, mean[:0] if earlier is None else earlier)


Update = Callable[[Keys, Tensor, SecondMoment, Settings], LowRank]


@dataclass(frozen=True)
class Method:
    """An editing method.

    Attributes:
        update: From keys, residuals (n, out), the second moment of the layer's keys and the settings to the
            change of the layer's weight.
        many: Whether it takes several facts at once and spreads them over the layers. Its residuals are
            those of the residual stream then, behind the last of the layers.
    """

    update: Update
    many: bool = False


def rome(keys: Keys, residuals: Tensor, statistics: SecondMoment, settings: Settings) -> LowRank:
    """ROME (Meng et al., 2022, eq. 2) as its code has it: along the averaged key, exact at the bare one.

    Where the two keys differ much the change becomes huge; `r_rome` does not have that defect.

    Example:
        >>> from toumei.transformers.rome.statistics.second_moments import Identity
        >>> keys = Keys.of(torch.tensor([[1.0, 2.0]]).double())
        >>> rome(keys, torch.ones(1, 3).double(), Identity(2), Settings(layers=(0,)))
        LowRank(3x2, rank 1)
    """
    return closed_form(keys.mean, residuals, statistics.whiten(keys.mean), probes=keys.bare)


def r_rome(keys: Keys, residuals: Tensor, statistics: SecondMoment, settings: Settings) -> LowRank:
    """R-ROME (Gupta et al., 2024, arXiv:2403.07175): the averaged key on both sides.

    The residual is what was added to the value in every context, so it is what the averaged key gets too.
    """
    return closed_form(keys.mean, residuals, statistics.whiten(keys.mean))


def memit(keys: Keys, residuals: Tensor, statistics: SecondMoment, settings: Settings) -> LowRank:
    """MEMIT (Meng et al., 2023, eq. 14): many keys, weighed against all others by lambda."""
    return closed_form(keys.mean, residuals, statistics.whiten(keys.mean), settings.ridge)


def emmet(keys: Keys, residuals: Tensor, statistics: SecondMoment, settings: Settings) -> LowRank:
    """EMMET (Gupta et al., 2024, arXiv:2403.14236): exact for one key, with a small ridge for several."""
    ridge = settings.ridge * settings.emmet_ridge if len(keys.mean) > 1 else 0.0
    return closed_form(keys.mean, residuals, statistics.whiten(keys.mean), ridge)


def alphaedit(keys: Keys, residuals: Tensor, statistics: SecondMoment, settings: Settings) -> LowRank:
    """AlphaEdit (Fang et al., 2025, eq. 14): within the null space of the keys, and past earlier edits."""
    every = torch.cat([keys.mean, keys.earlier])
    projected = statistics.project(every, settings.null_threshold)
    return replace(closed_form(every, residuals, projected, settings.null_ridge), keys=keys.mean)


METHODS: Mapping[str, Method] = {
    "rome": Method(rome),
    "r-rome": Method(r_rome),
    "memit": Method(memit, many=True),
    "emmet": Method(emmet, many=True),
    "alphaedit": Method(alphaedit, many=True),
}


def find_method(name: str) -> Method:
    """Returns the method of this name.

    Raises:
        ArgumentError: There is no such method.
    """
    if name not in METHODS:
        raise ArgumentError(f"no method {name!r}: there are {', '.join(METHODS)}")
    return METHODS[name]
