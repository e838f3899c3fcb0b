"""Networks that take pictures of one size, as vision transformers do."""

from collections.abc import Iterable
from typing import NoReturn

import torch
from torch import Tensor, nn

from ..core.errors import ForwardError, ShapeError
from ..core.forward import declared_size
from ..core.surveys import survey

Size = tuple[int, int]


class FixedSizeError(ShapeError):
    """Pictures of another size than the only one that a network takes.

    Attributes:
        size: Height and width that the network takes.
        picture: Those of the pictures before their transforms.
    """

    def __init__(self, message: str, size: Size, picture: Size) -> None:
        super().__init__(message)
        self.size, self.picture = size, picture


def raise_size_error(
    error: ForwardError, model: nn.Module, layers: Iterable[str], image: Tensor, seen: Tensor
) -> NoReturn:
    """Raises an error that says which size a network takes, if one is found, else the given error.

    What is tried on an empty picture is the size that the network declares, and that of the pictures.

    Args:
        error: What the network said.
        model: The network.
        layers: Which have to be reached.
        image: The pictures (N, C, H, W).
        seen: What the transforms make of them, which the network does not take.

    Raises:
        FixedSizeError: The network takes another size.
        ForwardError: No size is known that it takes.
    """
    picture, shown = (tuple(batch.shape[-2:]) for batch in (image, seen))
    for size in (declared_size(model), picture):
        if size is None or size == shown or not _runs(model, layers, seen.new_zeros(*seen.shape[:2], *size)):
            continue
        height, width = size
        given = f"{shown[0]} by {shown[1]}"
        if shown == picture:
            advice = f"the pictures are {given}: give them that size"
        else:
            advice = f"the transforms show it {given}: end them with robustness.CropOrPad({height}, {width})"
        message = f"{type(model).__name__} takes pictures of {height} by {width} pixels, and {advice}"
        raise FixedSizeError(message, (height, width), (picture[0], picture[1])) from error
    raise error


def _runs(model: nn.Module, layers: Iterable[str], pictures: Tensor) -> bool:
    try:
        survey(model, layers, lambda: model(pictures))
    except (ForwardError, torch.OutOfMemoryError):
        return False
    return True
