"""What a network says when it cannot run on what it is given."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .errors import ArgumentError, ForwardError

# Errors of torch and of Python; those that a user defined go through as they are.
_RAW = (
    *(RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError),
    *(NotImplementedError, ZeroDivisionError, AssertionError),
)


@contextmanager
def forward_errors(model: nn.Module | None = None, given: Iterable[Any] = ()) -> Iterator[None]:
    """Turns errors of torch and Python inside a forward pass into a `ForwardError` that says what went in.

    Args:
        model: The network, which may declare a size of its pictures.
        given: What it is given.

    Raises:
        ForwardError: The network cannot run on it.

    Example:
        >>> with forward_errors(nn.ReLU()):
        ...     raise ValueError("too short")
        Traceback (most recent call last):
        ...
        toumei.core.errors.ForwardError: ReLU cannot run on what it is given: too short
    """
    try:
        yield
    except Exception as error:
        raise_forward_error(error, model, given)


def raise_forward_error(error: Exception, model: nn.Module | None = None, given: Iterable[Any] = ()) -> None:
    """Raises the `ForwardError` for an error of a forward pass, or another error as it is."""
    if type(error) not in _RAW:
        raise error
    given = list(given)
    shapes = ", ".join(str(tuple(one.shape)) for one in given if isinstance(one, Tensor))
    name = "the network" if model is None else type(model).__name__
    cause = str(error) or type(error).__name__
    size = None if model is None else declared_size(model)
    taken = f"; it takes pictures of {size[0]} by {size[1]} pixels" if size else ""
    taken += "" if model is None else _order(model, given)
    raise ForwardError(f"{name} cannot run on {shapes or 'what it is given'}: {cause}{taken}") from error


def _order(model: nn.Module, given: Sequence[Any]) -> str:
    """What a network of pictures is told by the shape of one that lacks an axis, or has channels last."""
    pictures = [one.shape for one in given if isinstance(one, Tensor) and one.dim() in (3, 4)]
    if not pictures or not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return ""
    shape = pictures[0]
    if shape[-1] in (1, 3, 4) and shape[-3] not in (1, 3, 4):
        return "; pictures are (N, C, H, W), with the channels before height and width"
    alone = len(shape) == 3 and shape[0] in (1, 3, 4)
    return "; one picture needs an axis of the batch, as picture[None]" if alone else ""


def check_differentiable(output: Tensor, model: nn.Module) -> None:
    """Raises an error for what a network, run with gradients, computed without them.

    Raises:
        ArgumentError: The numbers have no gradient.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 1)
        >>> check_differentiable(model(torch.ones(2)), model)
    """
    if not output.requires_grad:
        raise ArgumentError(
            f"the output of {type(model).__name__} has no gradient by its weights: it computes without "
            f"gradients, as under torch.no_grad() or in whole numbers, or is cut off from them by detach()"
        )


def declared_size(model: nn.Module) -> tuple[int, int] | None:
    """Returns the height and width of pictures that a network or its configuration names, else None.

    Example:
        >>> declared_size(nn.ReLU()) is None
        True
    """
    config = getattr(model, "config", None)
    sources = (model, config, getattr(config, "vision_config", None), getattr(model, "patch_embed", None))
    for source in sources:
        for name in ("image_size", "img_size"):
            size = getattr(source, name, None)
            if isinstance(size, int) and not isinstance(size, bool):
                return size, size
            if isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(n, int) for n in size):
                return size[0], size[1]
    return None
