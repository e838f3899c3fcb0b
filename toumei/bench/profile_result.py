"""What a profile shows: a sorted table, a picture, and a trace for Perfetto."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from torch import Tensor

from ..core.checks import checked
from ..core.errors import ArgumentError, LayerError
from ..core.files import atomic_write
from ..core.notebooks import escaped
from ..core.serialization import Saved
from ..core.summaries import counted, shortened
from ..core.tensor_specs import Spec, specs
from ..plots.style import BLUE, SKY, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WHOLE = "(model)"
_COLUMNS = ("name", "calls", "ms", "self ms", "share", "MB", "MFLOP", "source")


class ProfileRow(NamedTuple):
    """What a module or an operation took.

    Attributes:
        calls: How often it ran.
        seconds: How long it took, with what runs inside it.
        self_seconds: How long it took without the modules inside it.
        memory: Bytes that it allocated and did not free.
        flops: Floating-point operations, a multiplication and an addition counted as two.
        self_flops: Those without the modules inside it.
    """

    calls: int
    seconds: float
    self_seconds: float
    memory: int
    flops: int
    self_flops: int


@dataclass(frozen=True, repr=False, eq=False)
class Profile(Saved):
    """Where the time, the memory and the FLOPs of a model went, the longest on top.

    Attributes:
        granularity: ``"module"`` or ``"operation"``.
        names: Names of modules or operations; ``"(model)"`` is the whole pass.
        calls: How often each ran, (rows,).
        seconds: How long each took, with what runs inside it, (rows,).
        self_seconds: How long without the modules inside it, (rows,).
        memory: Bytes that it allocated and did not free, (rows,).
        flop_counts: Floating-point operations, with what runs inside it, (rows,).
        self_flop_counts: Those without the modules inside it, (rows,).
        lines: The line of source of each operation; empty for modules.
        trace: The compressed trace of the profiler, for `save_trace`, (bytes,).

    Example:
        >>> import torch
        >>> from toumei.bench import profile_call
        >>> from toumei.models import SimpleMLP
        >>> model, inputs = SimpleMLP(4, 3, 2), torch.rand(5, 4)
        >>> output, profile = profile_call(model, lambda: model(inputs))
        >>> "fc0" in profile.names, profile.granularity
        (True, 'module')
    """

    granularity: str
    names: tuple[str, ...]
    calls: Tensor
    seconds: Tensor
    self_seconds: Tensor
    memory: Tensor
    flop_counts: Tensor
    self_flop_counts: Tensor
    lines: tuple[str, ...]
    trace: Tensor
    differs_each_time: ClassVar[bool] = True  # so that it says nothing about whether results are equal
    _specs = specs(
        names="rows",
        calls=Spec("rows", "integer"),
        seconds="rows",
        self_seconds="rows",
        memory=Spec("rows", "integer"),
        flop_counts=Spec("rows", "integer"),
        self_flop_counts=Spec("rows", "integer"),
        lines="rows",
        trace=Spec("bytes", "integer"),
    )

    def __len__(self) -> int:
        return len(self.names)

    @checked
    def __getitem__(self, name: str) -> ProfileRow:
        """Returns what a module or an operation took.

        Raises:
            LayerError: It did not run.
        """
        if name not in self.names:
            raise LayerError(f"{name!r} did not run; the longest is {self.names[0]!r}")
        row = self.names.index(name)
        times = self.calls, self.seconds, self.self_seconds
        counts = self.memory, self.flop_counts, self.self_flop_counts
        return ProfileRow(*(column[row].item() for column in (*times, *counts)))  # type: ignore[arg-type]

    @property
    def whole(self) -> ProfileRow:
        """What all passes of the model took together."""
        return self[_WHOLE]

    def __repr__(self) -> str:
        first = next((name for name in self.names if name != _WHOLE), _WHOLE)
        whole = self.whole
        return (
            f"Profile({counted(len(self), self.granularity)}, {1000 * whole.seconds:.3g} ms, "
            f"{whole.flops / 1e6:.4g} MFLOP, longest {shortened(first, 60)!r})"
        )

    def __str__(self) -> str:
        rows = [_COLUMNS, *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
        lines = []
        for row in rows:
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
            cells[0], cells[-1] = row[0].ljust(widths[0]), row[-1]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [
            "<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in self._rows()
        ]
        head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
        return f"<table><tr>{head}</tr>{''.join(rows)}</table>"

    def _rows(self, most: int = 40) -> list[tuple[str, ...]]:
        whole = self.whole.seconds or 1.0
        found: list[tuple[str, ...]] = []
        for name, line in list(zip(self.names, self.lines, strict=True))[:most]:
            row = self[name]
            found.append(
                (
                    shortened(name, 60),
                    str(row.calls),
                    f"{1000 * row.seconds:.3f}",
                    f"{1000 * row.self_seconds:.3f}",
                    f"{100 * row.self_seconds / whole:.1f} %",
                    f"{row.memory / 2**20:.2f}",
                    f"{row.flops / 1e6:.3f}",
                    line,
                )
            )
        return found

    @checked
    def plot(self, ax: "Axes | None" = None, count: int = 20) -> "Axes":
        """Returns axes with the time of what took longest as bars, and its share of the FLOPs as dots.

        Args:
            ax: Where to draw; a new figure by default.
            count: How many rows.
        """
        rows = [(name, self[name]) for name in self.names if name != _WHOLE][:count]
        whole = self.whole
        with drawing(ax, 7.0, 1.4 + 0.24 * len(rows)) as ax:
            shares = [100 * row.self_seconds / (whole.seconds or 1.0) for _, row in rows]
            ax.barh(range(len(rows)), shares, color=SKY, label="time")
            if whole.flops:
                flops = [100 * row.self_flops / whole.flops for _, row in rows]
                ax.plot(flops, range(len(rows)), "o", color=BLUE, markersize=4, label="FLOPs")
            ax.set_yticks(range(len(rows)), [shortened(name, 44) for name, _ in rows])
            ax.invert_yaxis()
            ax.set_xlabel("% of the pass, without modules inside")
            ax.set_title(f"Where {1000 * whole.seconds:.3g} ms and {whole.flops / 1e6:.4g} MFLOP go")
            ax.legend(loc="lower right")
        return ax

    @checked
    def save_trace(self, path: str | Path) -> None:
        """Writes the trace for https://ui.perfetto.dev, where modules and operations are nested bars.

        Args:
            path: File to write, ending in ``.json.gz``.

        Raises:
            ArgumentError: The path has another ending.
        """
        if not str(path).endswith(".json.gz"):
            raise ArgumentError(f"a trace is saved as .json.gz, got {path}")
        with atomic_write(path) as partial:
            partial.write_bytes(self.trace.numpy().tobytes())
