"""The result of an optimization: pictures, their losses and their titles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import plots
from ..core.checks import checked
from ..core.errors import ArgumentError
from ..core.serialization import Saved
from ..core.tensor_specs import specs

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False, eq=False)
class Visualization(Saved):
    """Pictures of what units look for, with their history. All tensors are on the CPU.

    Attributes:
        images: The final pictures (N, C, H, W), RGB in [0, 1].
        losses: The loss of each picture before each step, (steps, N): minus its score, plus the total
            variation with ``tv_loss``.
        titles: What each picture shows.
        snapshots: The pictures after some steps, by step.
        ended: ``"finished"``, ``"stopped"`` by the stop criterion, or ``"interrupted"`` by Ctrl-C.

    Example:
        >>> result = Visualization(torch.rand(2, 3, 8, 8), torch.zeros(5, 2), ("conv1:0", "conv1:1"))
        >>> result
        Visualization(2 pictures of 8x8 after 5 steps, finished: conv1:0, conv1:1)
    """

    images: Tensor
    losses: Tensor
    titles: Sequence[str] = ()
    snapshots: Mapping[int, Tensor] = field(default_factory=dict)
    ended: str = "finished"

    _specs = specs(images="N _ _ _", losses="steps N", snapshots="N _ _ _")

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return len(self.losses)

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the pictures as a grid with titles."""
        return plots.image_grid(self.images, self.titles, ax=ax)

    @checked
    def plot_losses(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the loss of each picture over the steps."""
        from matplotlib import pyplot

        ax = ax or pyplot.subplots()[1]
        lines = ax.plot(self.losses.numpy())
        ax.set_xlabel("step")
        ax.set_ylabel("loss")
        if self.titles:
            ax.legend(lines, self.titles, fontsize="small")
        return ax

    def save(self, path: str | Path) -> None:
        """Writes the result in the format that the ending of the path names.

        ``.png`` or ``.jpg``: a single picture as its pixels, several as a grid with titles.
        ``.gif``: an animation of the snapshots. ``.safetensors``: everything, for `load`.

        Args:
            path: File to write; its folder is made if it does not exist.

        Raises:
            ArgumentError: Another ending, or an animation of a run without snapshots.
        """
        path = Path(path)
        ending = path.suffix.lower()
        if ending == ".gif":
            if not self.snapshots:
                raise ArgumentError("there are no snapshots to animate: optimize(snapshots=...) takes some")
            plots.save_animation([self.snapshots[step] for step in sorted(self.snapshots)], path)
        elif ending == ".safetensors":
            super().save(path)
        elif ending not in (".png", ".jpg", ".jpeg"):
            raise ArgumentError(
                f"cannot save as {path.suffix!r}: there are .png, .jpg, .gif and .safetensors"
            )
        elif len(self.images) == 1:
            plots.save_pixels(self.images[0], path)
        else:
            plots.save_grid(self.images, path, self.titles)

    def __repr__(self) -> str:
        count, _, height, width = self.images.shape
        titles = [*self.titles[:4], "..."] if len(self.titles) > 4 else self.titles
        shown = ": " + ", ".join(titles) if titles else ""
        pictures = "1 picture" if count == 1 else f"{count} pictures"
        return f"Visualization({pictures} of {height}x{width} after {self.steps} steps, {self.ended}{shown})"

    def _repr_html_(self) -> str:
        return plots.figure(self.images, repr(self))


def as_picture(image: Tensor) -> Tensor:
    """Returns a copy of the pictures without graph, on the CPU and in float32."""
    return image.detach().to("cpu", torch.float32, copy=True)
