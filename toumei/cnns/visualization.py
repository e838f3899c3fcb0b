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
from ..core.summaries import counted, listed
from ..core.tensor_specs import specs
from ..core.user_warnings import warn
from ..plots.style import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STILL = 1e-6  # a change of a picture in [0, 1] that nobody can see


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
        moved: How far each picture came from the first one, (N,): the root of the mean squared change of its
            values in [0, 1]. None if it is not known.

    Example:
        >>> first, last = torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.25)
        >>> titles, losses = ("conv1:0", "conv1:1"), torch.zeros(5, 2)
        >>> Visualization(last, losses, titles, moved=distance_moved(first, last))
        Visualization(2 pictures of 8x8 after 5 steps, moved by 0.25, finished: conv1:0, conv1:1)
    """

    images: Tensor
    losses: Tensor
    titles: Sequence[str] = ()
    snapshots: Mapping[int, Tensor] = field(default_factory=dict)
    ended: str = "finished"
    moved: Tensor | None = None

    _specs = specs(images="N _ _ _", losses="steps N", snapshots="N _ _ _", moved="N")

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
        with drawing(ax) as ax:
            lines = ax.plot(self.losses.numpy())
            ax.set_xlabel("step")
            ax.set_ylabel("loss")
            if self.titles:
                ax.legend(lines, self.titles)
        return ax

    @checked
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
        shown = f": {listed(self.titles)}" if self.titles else ""
        moved = "" if self.moved is None or not self.steps else f"moved by {self._moved_by()}, "
        size = f"{counted(count, 'picture')} of {height}x{width}"
        return f"Visualization({size} after {counted(self.steps, 'step')}, {moved}{self.ended}{shown})"

    def _moved_by(self) -> str:
        assert self.moved is not None
        low, high = (f"{float(value):.2g}" for value in (self.moved.min(), self.moved.max()))
        return low if low == high else f"{low} to {high}"

    def _repr_html_(self) -> str:
        return plots.figure(self.images, repr(self))


def distance_moved(first: Tensor, last: Tensor) -> Tensor:
    """Returns the root of the mean squared change of each picture, (N,).

    Example:
        >>> distance_moved(torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4))
        tensor([1., 1.])
    """
    return (last - first).square().mean((1, 2, 3)).sqrt()


def warn_if_still(result: Visualization, what: object, unreached: Sequence[int] = ()) -> None:
    """Warns if pictures did not move, or not for the network, and says what may be the cause.

    Args:
        result: The result.
        what: The objective.
        unreached: The pictures that no gradient of the network reached.
    """
    if result.moved is None or not result.steps:
        return
    still = (result.moved <= _STILL).nonzero().flatten().tolist()
    moved = [index for index in unreached if index not in still]
    if still:
        _warn_of(result, still, f"did not move in {counted(result.steps, 'step')}", f"the gradient of {what}")
    if moved:
        how = f"moved in {counted(result.steps, 'step')} by regularizers and noise only"
        _warn_of(result, moved, how, f"the gradient of {what} through the network")


def _warn_of(result: Visualization, pictures: Sequence[int], how: str, gradient: str) -> None:
    titles = ", ".join(repr(result.titles[index]) for index in pictures[:4] if index < len(result.titles))
    count = len(result.images)
    shown = "the picture" if count == 1 else f"{len(pictures)} of {count} pictures"
    warn(
        f"{shown} {how}{titles and f' ({titles})'}: {gradient} "
        f"is zero or vanishes. Causes are a unit that is dead on the first pictures, a function without a "
        f"gradient between pictures and layer (sign, round, argmax), saturated pictures, or a learning rate "
        f"near 0: try other first pictures (seed), a larger lr, or gradients through dead units for longer "
        f"(redirect=)"
    )


def as_picture(image: Tensor) -> Tensor:
    """Returns a copy of the pictures without graph, on the CPU and in float32."""
    return image.detach().to("cpu", torch.float32, copy=True)
