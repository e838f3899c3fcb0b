"""Where the time, the memory and the arithmetic of a model go: by module, or by operation."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from ..core.checks import check_choice
from ..core.errors import ArgumentError
from ..core.functions import Function, canonical_name, tensors_among
from ..core.hooks import listening
from ..core.kinds import shown
from ..core.modules import check_model, device_and_dtype, without_wrapper
from ..instrument.probe import instrument
from .hashes import plain_model
from .kernel_flops import attention_formulas
from .profile_result import Profile

GRANULARITIES = ("module", "operation")
_MARK = "toumei "  # before the names of our events in a trace
_WHOLE = "(model)"


_one_at_a_time = Lock()
_profiling = ContextVar("profiling", default=False)


def profile_call(model: Any, call: Callable[[], Any], granularity: str = "module") -> tuple[Any, Profile]:
    """Returns what a call returns, and where the time, memory and FLOPs of the model went in it.

    The call is made twice. In the first one FLOPs are counted, and what is loaded or compiled once is loaded;
    the second one is timed by `torch.profiler`.

    Args:
        model: The model, a module or a `HookedModel`.
        call: Runs the model, once or several times.
        granularity: ``"module"`` or ``"operation"``.

    Raises:
        ArgumentError: There is no such granularity, the call does not run the model, or another profile is
            being made: the profiler of torch is one of a process. Other threads wait for their turn.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        >>> output, found = profile_call(model, lambda: model(torch.ones(2, 8)))
        >>> found["0"].flops  # of 2 inputs, 2 x 8 x 16 multiplications and additions each
        512
    """
    check_choice("granularity", granularity, GRANULARITIES)
    model = plain_model(model) or model
    check_model(model)
    if not callable(call):
        raise ArgumentError(f"call is a function without arguments that runs the model, got {shown(call)}")
    elsewhere = torch.autograd._profiler_enabled()  # type: ignore[attr-defined]  # not in its __all__
    if _profiling.get() or elsewhere:
        raise ArgumentError("another profile is being made, and torch makes one at a time: end that first")
    with _one_at_a_time:
        token = _profiling.set(True)
        try:
            return _profiled(model, call, granularity)
        finally:
            _profiling.reset(token)


def _profiled(model: nn.Module, call: Callable[[], Any], granularity: str) -> tuple[Any, Profile]:
    operations = granularity == "operation"
    lines: dict[str, str] = {}
    counter = FlopCounterMode(display=False, custom_mapping=attention_formulas())
    with counter, ExitStack() as tracked:
        counts = _Counts(model, operations, counter)
        if operations:
            probe = tracked.enter_context(instrument(model))
            tracker = tracked.enter_context(probe.track([], batched=True))
        with listening(model, counts):
            call()
    if not counts.calls:
        raise ArgumentError("the call does not run the model, so there is nothing to profile")
    if operations:
        lines = {operation.name: operation.line for operation in tracker.build_graph()}
    activities = [ProfilerActivity.CPU]
    if device_and_dtype(model)[0].type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    marks = _Marks(model, operations, counts.kinds)
    with (
        profile(activities=activities, profile_memory=True, acc_events=True) as profiler,
        listening(model, marks),
    ):
        result = call()
    return result, _profile_of(profiler, counts, granularity, lines)


class _Places:
    """Names what a model runs, as the grammar of names does: ``h.0.attn``, ``h.0.attn/softmax#0``."""

    def __init__(self, model: nn.Module, operations: bool) -> None:
        self.operations = operations
        self.stack: list[str] = []
        self._names = {module: name for name, module in without_wrapper(model).named_modules()}
        self._ran: Counter[tuple[str, str]] = Counter()

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A pass begins."""
        self._ran.clear()
        self.open(_WHOLE)

    def end(self, output: Any) -> None:
        """A pass ends."""
        self.close()

    def fail(self, error: BaseException) -> None:
        """A pass fails."""
        while self.stack:
            self.close()

    def enter(self, module: nn.Module) -> None:
        """A module begins."""
        self.open(self._names.get(module, type(module).__name__))

    def leave(self, module: nn.Module, output: Any) -> None:
        """A module ends."""
        self.close()

    def moved(self, before: Tensor, after: Tensor) -> None:
        """A tensor came to another device, which is no operation of the model."""

    def open(self, name: str) -> None:
        """A module or an operation begins."""
        self.stack.append(name)

    def close(self) -> None:
        """It ends."""
        self.stack.pop()

    def place(self, kind: str) -> str:
        """The name of the next operation of a kind in the innermost module."""
        module = "" if self.stack[-1] == _WHOLE else self.stack[-1]
        number = self._ran[module, kind]
        self._ran[module, kind] += 1
        return f"{module}/{kind}#{number}"


class _Counts(_Places):
    """Counts calls and FLOPs."""

    def __init__(self, model: nn.Module, operations: bool, counter: FlopCounterMode) -> None:
        super().__init__(model, operations)
        self.calls: Counter[str] = Counter()
        self.flops: Counter[str] = Counter()
        self.inside: Counter[str] = Counter()
        self.kinds: set[str] = set()
        self._counter = counter
        self._before: list[int] = []

    def open(self, name: str) -> None:
        """A module begins."""
        super().open(name)
        self._before.append(self._counter.get_total_flops())

    def close(self) -> None:
        """It ends."""
        name = self.stack.pop()
        found = self._counter.get_total_flops() - self._before.pop()
        self.calls[name] += 1
        self.flops[name] += found
        if self.stack:
            self.inside[self.stack[-1]] += found

    def call(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation runs."""
        before = self._counter.get_total_flops()
        output = function(*args, **kwargs)
        if self.operations and self.stack and any(True for _ in tensors_among([output])):
            kind = canonical_name(function)[0]
            self.kinds.add(kind)
            name = self.place(kind)
            self.calls[name] += 1
            self.flops[name] += self._counter.get_total_flops() - before
        return output


class _Marks(_Places):
    """Marks what runs in the trace of the profiler."""

    def __init__(self, model: nn.Module, operations: bool, kinds: set[str]) -> None:
        super().__init__(model, operations)
        self._kinds = kinds
        self._marks: list[record_function] = []

    def open(self, name: str) -> None:
        """A module begins."""
        super().open(name)
        self._marks.append(record_function(_MARK + name))
        self._marks[-1].__enter__()

    def close(self) -> None:
        """It ends."""
        self._marks.pop().__exit__(None, None, None)
        super().close()

    def call(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation runs."""
        kind = canonical_name(function)[0] if self.operations and self.stack else ""
        if kind not in self._kinds:
            return function(*args, **kwargs)
        with record_function(_MARK + self.place(kind)):
            return function(*args, **kwargs)


def _profile_of(profiler: Any, counts: _Counts, granularity: str, lines: dict[str, str]) -> Profile:
    """Sums of the events of the profiler by name."""
    seconds, inside, memory = Counter[str](), Counter[str](), Counter[str]()
    for event in profiler.events():
        name = event.name.removeprefix(_MARK)
        kind = torch.autograd.DeviceType.CPU  # type: ignore[attr-defined]  # not in the __all__ of torch
        if name == event.name or event.device_type != kind:
            continue
        took = max(event.cpu_time_total, event.device_time_total) / 1e6
        seconds[name] += took
        memory[name] += event.cpu_memory_usage + event.device_memory_usage
        outer = event.cpu_parent
        while outer is not None and not outer.name.startswith(_MARK):
            outer = outer.cpu_parent
        if outer is not None:
            inside[outer.name.removeprefix(_MARK)] += took
    names = [name for name in counts.calls if ("/" in name) == (granularity == "operation") or name == _WHOLE]
    names.sort(key=lambda name: -(seconds[name] - (inside[name] if granularity == "module" else 0)))
    return Profile(
        granularity=granularity,
        names=tuple(names),
        calls=torch.tensor([counts.calls[name] for name in names]),
        seconds=torch.tensor([seconds[name] for name in names], dtype=torch.float64),
        self_seconds=torch.tensor([seconds[name] - inside[name] for name in names], dtype=torch.float64),
        memory=torch.tensor([memory[name] for name in names]),
        flop_counts=torch.tensor([counts.flops[name] for name in names]),
        self_flop_counts=torch.tensor([counts.flops[name] - counts.inside[name] for name in names]),
        lines=tuple(lines.get(name, "") for name in names),
        trace=_trace_of(profiler),
    )


def _trace_of(profiler: Any) -> torch.Tensor:
    with TemporaryDirectory() as folder:
        path = Path(folder, "trace.json.gz")
        profiler.export_chrome_trace(str(path))
        return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
