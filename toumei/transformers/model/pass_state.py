"""What is known of the pass of a model that runs now: its rows, and what edits wrote."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ...core.modules import wrapped_forward

_INPUTS = ("input_ids", "inputs_embeds", "pixel_values")


@dataclass(eq=False)
class PassState:
    """What is known of the pass that runs now.

    Attributes:
        batch: How many rows it has.
        edits: How many blocks edit it, whose functions may raise errors of their own.
        written: What edits made of tensors that the model does not keep, such as fused attention weights.
    """

    batch: int = 1
    edits: int = 0
    written: dict[str, Tensor] = field(default_factory=dict)

    @contextmanager
    def noting(self, model: nn.Module, *, edits: bool = False) -> Iterator[None]:
        """Notes of all passes of a model in the block, which may edit it."""
        self.edits += edits
        try:
            with wrapped_forward(model, self._note):
                yield
        finally:
            self.edits -= edits
            self.written.clear()

    def _note(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        named = [kwargs[name] for name in _INPUTS if isinstance(kwargs.get(name), Tensor)]
        tensors = [one for one in (*named, *args, *kwargs.values()) if isinstance(one, Tensor) and one.dim()]
        self.batch = len(tensors[0]) if tensors else 1
        self.written.clear()
        return forward(*args, **kwargs)
