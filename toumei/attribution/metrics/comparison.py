"""Methods beside each other: one table and one figure."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.errors import ArgumentError
from ...core.serialization import Saved
from ...core.tensor_specs import Spec, specs
from ..base.baselines import BaselineLike
from ..base.method import Method
from ..base.result import Attribution
from ..base.targets import Target
from ..plots import heat_map
from .faithfulness import deletion, insertion, removals
from .localization import located

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADS = {
    "inside": "mass inside",
    "inside_chance": "by chance",
    "pointing": "pointing",
    "pointing_chance": "by chance",
    "balance": "balance",
    "insertion": "insertion",
    "deletion": "deletion",
    "correlation": "faithfulness",
    "gap": "gap",
    "seconds": "seconds",
}


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Saved):
    """What several methods say about the same inputs, and how well. Tensors are on the CPU.

    Attributes:
        methods: Their names, M.
        columns: Measures by name, (M, N) for each input, or (M,); NaN where a method has none. ``inside``:
            share of the mass in the mask; ``pointing``: 1 where the highest place is in it; each with
            ``_chance`` added to its name: what the masks of other images give (see `chance_level`);
            ``balance``: how much more in the mask speaks for the target than against it
            (see `balance_inside`);
            ``insertion`` and ``deletion``: areas under the curves; ``correlation``: faithfulness correlation;
            ``gap``: the completeness gap relative to the difference of outputs; ``seconds``: for all inputs.
        heat: (M, N, H, W) contributions of pictures between -1 and 1; None for other inputs.

    Example:
        >>> table = Comparison(("A", "B"), {"inside": torch.tensor([[0.5, 0.7], [0.1, 0.3]])})
        >>> table
        method  mass inside
        A             0.600
        B             0.200
        >>> table.rows
        [{'method': 'A', 'inside': 0.6}, {'method': 'B', 'inside': 0.2}]
    """

    methods: tuple[str, ...]
    columns: dict[str, Tensor]
    heat: Tensor | None = None

    _specs = specs(methods="M", heat="M N H W", columns=Spec("M ...", "any"))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a method, of means over the inputs; three digits behind the point or four in all."""
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

    def plot(self, images: Tensor | None = None, count: int = 6, masks: Tensor | None = None) -> "Figure":
        """Returns a figure with a row for each method and a column for each of the first inputs.

        Red speaks for the target, blue against it; with masks, the share of the mass inside is written too.

        Args:
            images: The pictures (N, 3, H, W) in [0, 1], shown above.
            count: How many inputs.
            masks: (N, H, W), drawn as outlines.

        Raises:
            ArgumentError: The inputs were no pictures.
        """
        if self.heat is None:
            raise ArgumentError("only attributions of pictures (N, C, H, W) are drawn")
        from matplotlib import pyplot

        above = int(images is not None)
        count = min(count, self.heat.shape[1])
        size = (1.2 * count + 1.4, 1.2 * (above + len(self.methods)))
        figure, axes = pyplot.subplots(
            above + len(self.methods), count, figsize=size, squeeze=False, layout="constrained"
        )
        for index in range(count):
            if images is not None:
                axes[0, index].imshow(images[index].detach().cpu().permute(1, 2, 0).clamp(0, 1).numpy())
            for ax, heat in zip(axes[above:, index], self.heat[:, index], strict=True):
                ax.imshow(heat.numpy(), cmap="bwr", vmin=-1, vmax=1)
                if masks is not None:
                    ax.contour(masks[index].cpu().float().numpy(), [0.5], colors="black", linewidths=0.5)
        for ax in axes.flat:
            ax.set_xticks([])
            ax.set_yticks([])
        for ax, row in zip(axes[above:, 0], self.rows, strict=True):
            inside = f"\n{row['inside']:.0%} inside" if "inside" in row else ""
            ax.set_ylabel(row["method"] + inside, rotation=0, ha="right", va="center", fontsize="small")
        return figure

    def __repr__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(
            "  ".join([name.ljust(widths[0]), *map(str.rjust, own, widths[1:])]) for name, *own in cells
        )

    def _cells(self) -> list[list[str]]:
        """The head of the table and its rows."""
        rows = [[row["method"], *(_said(row[name], name) for name in self.columns)] for row in self.rows]
        return [["method", *(_HEADS.get(name, name) for name in self.columns)], *rows]


def compare(
    methods: Mapping[str, Method] | Sequence[Method],
    inputs: Tensor,
    target: Target | None = None,
    masks: Tensor | None = None,
    *,
    baselines: BaselineLike = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    faithfulness: bool = True,
    samples: int = 30,
    steps: int = 16,
    batch_size: int = 128,
) -> Comparison:
    """Returns one table and one figure of methods on the same inputs.

    Args:
        methods: By name, or as they are.
        inputs: (N, ...).
        target: For one target an input.
        masks: (N, H, W) bool, where the evidence lies, if that is known.
        baselines: What stands for absence, in methods and measures.
        options: For the method of a name, such as ``{"KernelShap": {"samples": 500}}``; a baseline of its own
            is ``"baselines"``.
        faithfulness: Whether to measure insertion, deletion and faithfulness correlation too, which takes
            passes through the network.
        samples: Sets for the correlation.
        steps: Points of the curves.
        batch_size: Inputs at a time.

    Raises:
        ArgumentError: No methods, methods of layers, options for a method that is not there, or inputs that
            are no tensor.

    Example:
        >>> from toumei.attribution import InputXGradient, Saliency
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
        >>> table = compare([Saliency(model), InputXGradient(model)], torch.rand(5, 3, 4, 4), target=1)
        >>> table.methods, table.columns["insertion"].shape
        (('Saliency', 'InputXGradient'), torch.Size([2, 5]))
    """
    if not isinstance(inputs, Tensor):
        raise ArgumentError(
            f"methods are compared on one tensor (N, ...), got inputs in a {type(inputs).__name__}"
        )
    named = methods if isinstance(methods, Mapping) else {type(method).__name__: method for method in methods}
    if not named or len(named) < len(methods):
        raise ArgumentError("give at least one method, and a name each where two are of one class")
    options = options or {}
    if not set(options) <= set(named):
        raise ArgumentError(f"options for {sorted(set(options) - set(named))}, the methods are {list(named)}")
    rows, heats = [], []
    for name, method in named.items():
        start = time.perf_counter()
        result = method(inputs, target, **{"baselines": baselines, **options.get(name, {})})
        row = {"seconds": torch.tensor(time.perf_counter() - start, dtype=torch.float64)}
        values = _fitting(name, result, inputs)
        if masks is not None:
            row |= located(values, masks)
        if faithfulness:
            on = (method.model, _prepared(method, inputs), values, target, baselines)
            row["insertion"] = insertion(*on, steps=steps, batch_size=batch_size).auc
            row["deletion"] = deletion(*on, steps=steps, batch_size=batch_size).auc
            row["correlation"] = removals(*on, samples=samples, batch_size=batch_size).correlation()
        if result.gap is not None and result.baseline_output is not None:
            change = (result.output - result.baseline_output).double().abs().clamp(min=1e-3)
            row["gap"] = result.gap.abs() / change
        rows.append(row)
        if values.dim() == 4:
            heats.append(heat_map(values.cpu()))
    columns = {name: _column(name, rows) for name in _HEADS if any(name in row for row in rows)}
    return Comparison(tuple(named), columns, torch.stack(heats) if heats else None)


def _fitting(name: str, result: Attribution, inputs: Tensor) -> Tensor:
    values = result.values
    shapes = isinstance(values, Tensor) and (values.shape[0], *values.shape[2:])
    if result.several or shapes != (inputs.shape[0], *inputs.shape[2:]):
        raise ArgumentError(f"{name} gives no contributions of the inputs to one target")
    assert isinstance(values, Tensor)
    return values


def _column(name: str, rows: Sequence[Mapping[str, Tensor]]) -> Tensor:
    own = [row.get(name, torch.tensor(torch.nan, dtype=torch.float64)) for row in rows]
    return torch.stack(list(torch.broadcast_tensors(*own)))


def _prepared(method: Method, inputs: Tensor) -> Tensor:
    if method.preprocess is not None:
        raise ArgumentError("measures of faithfulness need the preprocessing inside of the network")
    return inputs


def _means(column: Tensor) -> list[float]:
    return [float(own) for own in (column if column.dim() == 1 else column.nanmean(1))]


def _said(value: float, name: str) -> str:
    if value != value:
        return "-"
    return f"{value:.1e}" if name == "gap" else f"{value:.3f}"
