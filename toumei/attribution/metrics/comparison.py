"""Several methods on the same inputs: one table and one figure."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError, ShapeError
from ...core.kinds import shown
from ...core.notebooks import escaped
from ...core.parallel import sweep
from ...core.serialization import Saved
from ...core.summaries import counted, listed
from ...core.tensor_specs import Spec, specs
from ...plots.pixels import check_overlay, montage
from ...plots.style import TITLE, color_bar, diverging_map, look
from ..base.baselines import BaselineLike
from ..base.method import Method
from ..base.result import Attribution
from ..base.targets import Target
from ..plots import heat_map
from .insertion_curves import deletion, insertion
from .localization import located
from .removed_sets import removals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADS = {
    "inside": "mass inside",
    "inside_chance": "chance",
    "pointing": "pointing",
    "pointing_chance": "chance",
    "balance": "balance",
    "insertion": "insertion",
    "deletion": "deletion",
    "correlation": "faithfulness",
    "gap": "gap",
    "seconds": "seconds",
}


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Saved):
    """Measures of several methods on the same inputs. Tensors are on the CPU.

    Attributes:
        methods: Their names, M.
        columns: Measures by name, (M, N) for each input, or (M,); NaN where a method has none. ``inside``:
            share of the mass in the mask (`relevance_mass_accuracy`); ``pointing``: `pointing_game`; both
            with ``_chance`` added to the name: their `chance_level`; ``balance``: `balance_inside`;
            ``insertion`` and ``deletion``: areas under the curves; ``correlation``: faithfulness correlation;
            ``gap``: the completeness gap relative to the difference of outputs; ``seconds``: for all inputs.
        heat: (M, N, H, W) contributions of pictures between -1 and 1; None for other inputs.

    Example:
        >>> comparison = Comparison(("A", "B"), {"inside": torch.tensor([[0.5, 0.7], [0.1, 0.3]])})
        >>> print(comparison)
        method  mass inside
        A             0.600
        B             0.200
        >>> comparison.rows
        [{'method': 'A', 'inside': 0.6}, {'method': 'B', 'inside': 0.2}]
    """

    methods: tuple[str, ...]
    columns: dict[str, Tensor]
    heat: Tensor | None = None

    _specs = specs(methods="M", heat="M N H W", columns=Spec("M ...", "any"))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a method, of means over the inputs with four digits."""
        means = {name: _means(column) for name, column in self.columns.items()}
        return [
            {"method": method, **{name: float(f"{mean[row]:.4g}") for name, mean in means.items()}}
            for row, method in enumerate(self.methods)
        ]

    def markdown(self) -> str:
        """Returns the table for a page."""
        head, *rows = self._cells()
        lines = [head, ["---", *("---:" for _ in self.columns)], *rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    @look()
    @checked
    def plot(self, images: Tensor | None = None, count: int = 6, masks: Tensor | None = None) -> "Figure":
        """Returns a figure with a row for each method and a column for each of the first inputs.

        Orange speaks for the target, blue against it. If masks were compared, the share of the mass inside is
        written beside each method.

        Args:
            images: The pictures (N, 3, H, W) in [0, 1], shown above.
            count: How many inputs.
            masks: (N, H, W), drawn as outlines.

        Raises:
            ArgumentError: The inputs were no pictures.
            ShapeError: Pictures or masks are not as many as the inputs, or masks have another size.
        """
        if self.heat is None:
            raise ArgumentError("only attributions of pictures (N, C, H, W) are drawn")
        from matplotlib import pyplot

        from ...plots.shown_once import ShownOnce

        self._check(images, masks)
        above = int(images is not None)
        check_counts(1, count=count)
        count = min(count, self.heat.shape[1])
        size = (1.2 * count + 2.2, 1.2 * (above + len(self.methods)))
        figure = pyplot.figure(figsize=size, layout="constrained", FigureClass=ShownOnce)
        figure.suptitle("What speaks for the target (orange) and what against it (blue)", fontsize=TITLE)
        axes = figure.subplots(above + len(self.methods), count, squeeze=False)
        for index in range(count):
            if images is not None:
                axes[0, index].imshow(montage(images[index, None]).permute(1, 2, 0).numpy())
            for ax, heat in zip(axes[above:, index], self.heat[:, index], strict=True):
                ax.imshow(heat.numpy(), cmap=diverging_map(), vmin=-1, vmax=1)
                if masks is not None:
                    ax.contour(masks[index].cpu().float().numpy(), [0.5], colors="black", linewidths=0.5)
        for ax in axes.flat:
            ax.set_xticks([])
            ax.set_yticks([])
        for ax, row in zip(axes[above:, 0], self.rows, strict=True):
            inside = f"\n{row['inside']:.0%} inside" if "inside" in row else ""
            ax.set_ylabel(row["method"] + inside, rotation=0, ha="right", va="center")
        # beside the first rows, because there may be many
        color_bar(axes[: above + 4], "contribution, 1: strongest of each map")
        return figure

    def _check(self, images: Tensor | None, masks: Tensor | None) -> None:
        """Refuses pictures and masks that do not fit the contributions."""
        assert self.heat is not None
        _, count, *size = self.heat.shape
        if images is not None:
            if images.dim() != 4 or len(images) != count:
                raise ShapeError(
                    f"expected {counted(count, 'picture')} (N, 1 or 3, H, W), got {tuple(images.shape)}"
                )
            check_overlay(size, images.shape[-2:])
        if masks is not None and tuple(masks.shape) != (count, *size):
            raise ShapeError(f"expected masks {(count, *size)}, got {tuple(masks.shape)}")

    def __repr__(self) -> str:
        measures = listed([_HEADS.get(name, name) for name in self.columns], 8)
        return f"Comparison({counted(len(self.methods), 'method')} by {measures})"

    def __str__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(
            "  ".join([name.ljust(widths[0]), *map(str.rjust, row, widths[1:])]) for name, *row in cells
        )

    def _repr_html_(self) -> str:
        head, *rows = (
            "".join(f"<{tag}>{escaped(cell)}</{tag}>" for cell in cells)
            for tag, cells in zip(["th", *["td"] * len(self.methods)], self._cells(), strict=True)
        )
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"

    def _cells(self) -> list[list[str]]:
        """The head of the table and its rows."""
        rows = [[row["method"], *(_format(row[name], name) for name in self.columns)] for row in self.rows]
        return [["method", *(_HEADS.get(name, name) for name in self.columns)], *rows]


@checked
def compare(
    methods: Mapping[str, Method] | Sequence[Method],
    inputs: Tensor,
    target: Target | None = None,
    masks: Tensor | None = None,
    *,
    baselines: BaselineLike = None,
    method_baselines: Mapping[str, BaselineLike] | None = None,
    faithfulness: bool = True,
    samples: int = 30,
    steps: int = 16,
    batch_size: int = 128,
    jobs: int = 1,
    verbose: bool = False,
) -> Comparison:
    """Returns one table and one figure of methods on the same inputs.

    Args:
        methods: Configured methods of one network, by name or in a list.
        inputs: (N, ...).
        target: For one target an input.
        masks: (N, H, W) bool, where the evidence lies, if that is known.
        baselines: What stands for absence, in methods and measures.
        method_baselines: Other baselines for the methods with these names, such as a distribution for
            ``"ExpectedGradients"``.
        faithfulness: Whether to measure insertion, deletion and faithfulness correlation too, which takes
            more passes through the network.
        samples: Sets for the correlation.
        steps: Points of the curves.
        batch_size: How many inputs pass through the network at a time for these measures.
        jobs: How many methods run at once, in processes or on a cluster; see `toumei.core.sweep`. Any number
            gives the same table but for the seconds.
        verbose: Show a progress bar.

    Raises:
        ArgumentError: No methods, methods of several networks or of layers, baselines for a method that does
            not exist, or inputs that are not a tensor.

    Example:
        >>> from toumei.attribution import InputXGradient, Saliency
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
        >>> table = compare([Saliency(model), InputXGradient(model)], torch.rand(5, 3, 4, 4), target=1)
        >>> table.methods, table.columns["insertion"].shape
        (('Saliency', 'InputXGradient'), torch.Size([2, 5]))
    """
    named, method_baselines = _named(methods), method_baselines or {}
    if unknown := sorted(set(method_baselines) - set(named)):
        raise ArgumentError(f"baselines for {unknown}, the methods are {list(named)}")
    task = _MethodTask(
        methods=named,
        inputs=inputs,
        target=target,
        masks=masks,
        baselines={name: method_baselines.get(name, baselines) for name in named},
        measured_with=baselines,
        faithfulness=faithfulness,
        samples=samples,
        steps=steps,
        batch_size=batch_size,
    )
    rows, heats = zip(*sweep(task, named, jobs=jobs, verbose=verbose), strict=True)
    columns = {name: _column(name, rows) for name in _HEADS if any(name in row for row in rows)}
    heat = [each for each in heats if each is not None]
    return Comparison(tuple(named), columns, torch.stack(heat) if heat else None)


@dataclass(frozen=True)
class _MethodTask:
    """The function of a sweep over methods; most attributes are arguments of `compare`.

    Attributes:
        baselines: Those of each method.
        measured_with: Those of the measures.
    """

    methods: Mapping[str, Method]
    inputs: Tensor
    target: Target | None
    masks: Tensor | None
    baselines: Mapping[str, BaselineLike]
    measured_with: BaselineLike
    faithfulness: bool
    samples: int
    steps: int
    batch_size: int

    def __call__(self, name: str) -> tuple[dict[str, Tensor], Tensor | None]:
        """Returns the measures of a method, and its contributions where they can be drawn."""
        method = self.methods[name]
        start = time.perf_counter()
        result = method(self.inputs, self.target, self.baselines[name])
        row = {"seconds": torch.tensor(time.perf_counter() - start, dtype=torch.float64)}
        values = _fitting(name, result, self.inputs)
        if self.masks is not None:
            row |= located(values, self.masks)
        if self.faithfulness:
            _check_preprocess(method)
            given = (method.model, self.inputs, values, self.target, self.measured_with)
            row["insertion"] = insertion(*given, steps=self.steps, batch_size=self.batch_size).auc
            row["deletion"] = deletion(*given, steps=self.steps, batch_size=self.batch_size).auc
            row["correlation"] = removals(
                *given, samples=self.samples, batch_size=self.batch_size
            ).correlation()
        if result.gap is not None and result.baseline_output is not None:
            change = (result.output - result.baseline_output).double().abs().clamp(min=1e-3)
            row["gap"] = result.gap.abs() / change
        return row, heat_map(values.cpu()) if values.dim() == 4 else None


def _named(methods: Mapping[str, Method] | Sequence[Method]) -> Mapping[str, Method]:
    """The methods by name.

    Raises:
        ArgumentError: No methods, two with one name, something else than methods, or several networks.
    """
    if not isinstance(methods, Mapping | Sequence):
        raise ArgumentError(f"methods are a list or a dictionary of methods, got {shown(methods)}")
    listed = list(methods.values()) if isinstance(methods, Mapping) else list(methods)
    if others := [method for method in listed if not isinstance(method, Method)]:
        raise ArgumentError(f"a method is configured, such as Saliency(model), got {others[0]!r}")
    named = methods if isinstance(methods, Mapping) else {type(one).__name__: one for one in listed}
    if not named or len(named) < len(listed):
        raise ArgumentError("give at least one method, and a name each where two are of one class")
    if any(method.model is not listed[0].model for method in listed):
        raise ArgumentError("methods are compared on one network, got methods of several")
    return named


def _fitting(name: str, result: Attribution, inputs: Tensor) -> Tensor:
    values = result.values
    shapes = isinstance(values, Tensor) and (values.shape[0], *values.shape[2:])
    if result.several or shapes != (inputs.shape[0], *inputs.shape[2:]):
        raise ArgumentError(f"{name} gives no contributions of the inputs to one target")
    assert isinstance(values, Tensor)
    return values


def _column(name: str, rows: Sequence[Mapping[str, Tensor]]) -> Tensor:
    cells = [row.get(name, torch.tensor(torch.nan, dtype=torch.float64)) for row in rows]
    return torch.stack(list(torch.broadcast_tensors(*cells)))


def _check_preprocess(method: Method) -> None:
    if method.preprocess is not None:
        raise ArgumentError("measures of faithfulness need the preprocessing inside of the network")


def _means(column: Tensor) -> list[float]:
    return [float(cell) for cell in (column if column.dim() == 1 else column.nanmean(1))]


def _format(value: float, name: str) -> str:
    if value != value:
        return "-"
    return f"{value:.1e}" if name == "gap" else f"{value:.3f}"
