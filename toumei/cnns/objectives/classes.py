"""The objective for a class of a classifier, by its index or its name."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import index

from torch import Tensor, nn

from ...core.checks import checked
from ...core.errors import UnitError
from ...core.layout import channels_of
from ...core.modules import categories_of
from .objective import ActivationMap, Objective


@checked
@dataclass(frozen=True, repr=False)
class ClassLogit(Objective):
    """The logit of a class.

    Args:
        target: Index of the class, or its name among the categories.
        layer: The layer of the logits: by default the model's `logits_layer` if it has one, else its output.
        categories: Names of the classes, for a target that is a name: by default the model's `categories`
            or, for a Hugging Face model, the labels of its configuration.

    Raises:
        UnitError: A negative index. When a model is attached: a name that is not among its categories, an
            index that its logits do not have, or a name for a model without categories.

    Example:
        >>> import torch
        >>> ClassLogit(3, layer="head").score({"head": torch.arange(5.0)[None]})
        tensor([3.])
    """

    target: int | str
    layer: str | None = field(default=None, kw_only=True)
    categories: Sequence[str] | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.target, str):
            object.__setattr__(self, "target", index(self.target))  # also an index of numpy or torch
            if self.target < 0:
                raise UnitError(f"the index of a class is a whole number from 0 up, got {self.target}")
        if self.categories is not None:
            object.__setattr__(self, "categories", tuple(self.categories))

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer of the logits."""
        return (self.layer or "",)

    def bind(self, model: nn.Module) -> Objective:
        """Returns the objective with the layer and the index of the class filled in."""
        known = self.categories or categories_of(model)
        layer = self.layer if self.layer is not None else getattr(model, "logits_layer", "")
        return replace(self, target=self._index(model, known), layer=layer, categories=known)

    def score(self, activations: ActivationMap) -> Tensor:
        """Returns the logit of the class for each picture, (N,)."""
        logits = channels_of(activations, self.layers[0])
        if not isinstance(self.target, int):
            raise UnitError(f"the index of class {self.target!r} is known once a model is attached")
        logits.check([self.target])
        return logits.values[:, self.target].mean(1)

    def titles(self, images: int) -> list[str]:
        """Returns the name of the class where it is known, else its index."""
        names: dict[int | str, str] = dict(enumerate(self.categories or ()))
        return [str(names.get(self.target, self.target))] * images

    def _index(self, model: nn.Module, known: Sequence[str] | None) -> int:
        if isinstance(self.target, int):
            return self.target
        if not known:
            raise UnitError(
                f"{type(model).__name__} has no categories to find {self.target!r} in: give "
                f"ClassLogit({self.target!r}, categories=[...]) or an index"
            )
        if self.target not in known:
            near = [name for name in known if self.target.lower() in name.lower()][:6] or list(known)[:6]
            raise UnitError(f"no class {self.target!r} among {len(known)} categories: {', '.join(near)}, ...")
        return list(known).index(self.target)
