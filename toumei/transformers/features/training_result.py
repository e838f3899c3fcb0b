"""A trained dictionary with the curves of its training."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ...core.checks import checked
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import specs
from ...plots import style
from ...plots.style import drawing
from .dictionary import SparseAutoencoder
from .settings import DictionarySettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False, eq=False)
class DictionaryTraining(Saved):
    """A dictionary and how its training went.

    Attributes:
        dictionary: The dictionary.
        settings: How it was trained.
        losses: The loss of each step, in units in which inputs have the norm sqrt(width), (steps,).
        unexplained: The share of the variance of the batch that the reconstructions miss, (steps,).
        active: How many features were active on average, (steps,).
        dead: The share of features that had not been active for `settings.dead_tokens` inputs, (steps,).
        fingerprint: The hash of the weights of the model that the activations are from; empty for tensors.

    Example:
        >>> import torch
        >>> from toumei.transformers import train_dictionary
        >>> values = torch.rand(500, 8, generator=torch.Generator().manual_seed(0))
        >>> settings = DictionarySettings(features=16, k=2, tokens=2000, batch_size=100)
        >>> training = train_dictionary(values, settings, verbose=False)
        >>> len(training.losses), training.dictionary
        (20, SparseAutoencoder(16 features of width 8, topk 2, reads activations))
    """

    dictionary: SparseAutoencoder
    settings: DictionarySettings
    losses: Tensor
    unexplained: Tensor
    active: Tensor
    dead: Tensor
    fingerprint: str

    _specs = specs(losses="steps", unexplained="steps", active="steps", dead="steps")

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the unexplained variance and the share of dead features over the inputs seen."""
        with drawing(ax, 5, 3.2) as ax:
            seen = [self.settings.batch_size * (step + 1) for step in range(len(self.losses))]
            ax.plot(seen, self.unexplained, color=style.BLUE, label="unexplained variance")
            ax.plot(seen, self.dead, color=style.ORANGE, label="dead features")
            ax.set_ylim(0, 1)
            ax.set_xlabel("activations seen")
            ax.set_ylabel("share")
            ax.set_title("The dictionary while it learns")
            ax.legend()
        return ax

    def __repr__(self) -> str:
        return (
            f"DictionaryTraining({counted(self.dictionary.features, 'feature')}, "
            f"{self.dictionary.activation}, {counted(len(self.losses), 'step')} of "
            f"{self.settings.batch_size}: unexplained {float(self.unexplained[-1]):.3f} with "
            f"{float(self.active[-1]):.1f} active, {float(self.dead[-1]):.1%} dead)"
        )
