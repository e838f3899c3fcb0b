"""One call of a torch function in a forward pass, as the rules of propagation see it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from ...core.functions import tensors_among


class NotDecomposed(Exception):
    """Is raised by a decomposition for arguments that it does not cover."""


class Pass(Protocol):
    """What a call knows of the forward pass that it is part of.

    Attributes:
        recalls: Whether this is the pass of the inputs, after that of the baselines.
    """

    recalls: bool

    def following(self) -> AbstractContextManager[None]:
        """Returns a block in which functions follow their rules."""

    def recall(self, name: str, values: list[Tensor]) -> list[Tensor] | None:
        """Returns the tensors of the same call in the pass of the baselines, None in that pass itself."""

    def miss(self, what: str) -> None:
        """Raises an error or warns that no rule covers something."""


@dataclass(slots=True)
class Call:
    """One call of a function in a forward pass.

    Attributes:
        passing: The forward pass.
        function: What is called.
        name: Its canonical name.
        args: Its positional arguments.
        kwargs: Its other arguments.
        in_place: Whether it overwrites its first argument.
        tensors: The arguments that are tensors, by position or name.
    """

    passing: Pass
    function: Callable[..., Any]
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    in_place: bool = False
    tensors: dict[int | str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.tensors = {key: value for key, value in enumerate(self.args) if isinstance(value, Tensor)}
        if self.kwargs:
            self.tensors.update(
                (key, value) for key, value in self.kwargs.items() if isinstance(value, Tensor)
            )

    def run(self, replaced: Mapping[int | str, Any] | None = None) -> Any:
        """Returns what the function returns, with some arguments replaced, given by position or name."""
        if not replaced:
            return self.function(*self.args, **self.kwargs)
        args = [replaced.get(key, value) for key, value in enumerate(self.args)]
        return self.function(*args, **{key: replaced.get(key, value) for key, value in self.kwargs.items()})

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """Returns an argument that may be given by its position or its name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def moving(self) -> list[int | str]:
        """Returns the positions or names of the tensors that depend on the input."""
        return [key for key, value in self.tensors.items() if depends_on_input(value)]

    def linear(self) -> bool:
        """Returns whether a product is linear, since all its factors but one are parameters."""
        return sum(not is_parameter(value) for value in self.tensors.values()) < 2

    def noted(self) -> dict[int | str, Tensor] | None:
        """Returns the tensors of the same call in the pass of the baselines; None in that pass itself."""
        values = self.passing.recall(self.name, list(self.tensors.values()))
        return None if values is None else dict(zip(self.tensors, values, strict=True))

    def unknown(self, why: str = "") -> Any:
        """Returns what the function returns, after the error or warning that no rule covers it.

        Raises:
            ArgumentError: It depends on the input, and unknown functions are errors.
        """
        output = self.run()
        if self.passing.recalls and any(map(depends_on_input, tensors_among([output]))):
            self.passing.miss(f"{self.name!r}{why}")
        return output


def depends_on_input(tensor: Tensor) -> bool:
    """Returns whether a tensor depends on the input: it requires a gradient and is no parameter."""
    return tensor.requires_grad and not is_parameter(tensor)


def is_parameter(tensor: Tensor) -> bool:
    """Returns whether a tensor is a parameter or a view of one, as the query weights of attention are."""
    base = tensor._base
    return issubclass(type(tensor if base is None else base), nn.Parameter)
