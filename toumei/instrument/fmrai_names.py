"""The names of fMRAi, for scripts that were written for it."""

from collections.abc import Iterable, Iterator
from contextvars import ContextVar

from torch import nn

from ..core.blocks import block
from ..core.checks import checked
from ..core.errors import TrackingError
from ..core.interrupts import until_the_end
from .nodes import TensorNode
from .probe import Probe, Tracker

_scopes: ContextVar[tuple["Fmrai", ...]] = ContextVar("scopes", default=())


class Fmrai:
    """Tracks the model that `instrument_model` was called with last; see `fmrai`.

    Example:
        >>> import torch
        >>> from toumei.instrument import fmrai, instrument_model
        >>> with fmrai() as fmr:
        ...     model = instrument_model(nn.Linear(3, 2))
        ...     with fmr.track() as tracker:
        ...         _ = model(torch.rand(1, 3))
        >>> isinstance(fmr, Fmrai), len(tracker.build_graph())
        (True, 1)
    """

    def __init__(self) -> None:
        self._probe: Probe | None = None
        self._over = False

    @property
    def probe(self) -> Probe:
        """The probe of the instrumented model.

        Raises:
            TrackingError: There is none yet, or the block is over.
        """
        if self._over:
            raise TrackingError("the block of fmrai() is over, and no model is instrumented any longer")
        if self._probe is None:
            raise TrackingError("no model is instrumented: call instrument_model(model) in this block")
        return self._probe

    @block
    @checked
    def track(
        self, *, batched: bool = False, track_tensors: Iterable[str | TensorNode] | None = None
    ) -> Iterator[Tracker]:
        """Yields a tracker of the forward passes in the block; see `Probe.track`."""
        with self.probe.track(track_tensors, batched=batched) as tracker:
            yield tracker

    def _end(self) -> None:
        self._over = True


@block
def fmrai() -> Iterator[Fmrai]:
    """Yields what tracks an instrumented model until the end of the block, as fMRAi has it.

    `toumei.instrument.instrument` does the same for a model that is given.

    Example:
        >>> import torch
        >>> with fmrai() as fmr:
        ...     model = instrument_model(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))
        ...     with fmr.track() as tracker:
        ...         output = model(torch.ones(1, 3))
        ...         graph = tracker.build_graph()
        >>> list(graph.operations)
        ['0/linear#0', '1/relu#0']
    """
    scope, before = Fmrai(), _scopes.get()

    def leave() -> None:
        scope._end()
        _scopes.set(before)

    with until_the_end() as cleanup:
        cleanup.add(leave)
        _scopes.set((*before, scope))
        yield scope


@checked
def instrument_model(model: nn.Module) -> nn.Module:
    """Instruments a model for the innermost block of `fmrai`, and returns it: nothing is wrapped around it.

    Raises:
        TrackingError: There is no such block.
        ArchitectureError: Hooks do not run inside the model.

    Example:
        >>> import torch
        >>> from toumei.instrument import fmrai
        >>> with fmrai() as fmr:
        ...     model = instrument_model(nn.Linear(3, 2))
        ...     with fmr.track() as tracker:
        ...         _ = model(torch.rand(1, 3))
        >>> len(tracker.build_graph())
        1
    """
    current_scope()._probe = Probe(model)
    return model


def current_scope() -> Fmrai:
    """Returns what the innermost block of `fmrai` yields.

    Raises:
        TrackingError: There is no such block.
    """
    scopes = _scopes.get()
    if not scopes:
        raise TrackingError("there is no block of fmrai(): use `with fmrai() as fmr:` around it")
    return scopes[-1]
