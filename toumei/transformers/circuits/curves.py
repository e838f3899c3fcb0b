"""How faithful circuits of growing size are to the model, for several ways to choose the edges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.progress import tqdm
from ...core.serialization import Saved
from ...core.summaries import counted, shortened
from ...core.tensor_specs import specs
from ...plots import style
from ..model.hooked_model import HookedModel
from .alternatives import Ablation
from .attribution_result import AttributionGraph
from .circuit import Circuit
from .circuit_runs import CircuitValues, check_nodes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of the edges, in the benchmark MIB (Mueller et al. 2025, arXiv:2504.13151)."""
RANDOM = "random"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FaithfulnessCurves(Saved):
    """The faithfulness of circuits, ``f = (m(circuit) - m(none)) / (m(model) - m(none))``: 1 is the model.

    Attributes:
        values: f for each method and share of the edges, (methods, shares), float64 on the CPU; of random
            circuits the mean over the draws.
        spread: The standard deviation over the draws, 0 for methods.
        methods: Their names; the last one is ``"random"``.
        shares: The shares of all edges that are kept.
        edges: How many these are.
        full: The metric of the model.
        empty: The metric without any edge.
        metric: Its name.
        ablation: What replaced the contributions of other edges.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers import HookedModel, attribution_graph, logit_difference
        >>> from toumei.transformers.circuits import faithfulness_curves
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
        >>> metric = logit_difference(4, 5)
        >>> graphs = {"EAP-IG": attribution_graph(model, clean, corrupt, metric, "eap-ig")}
        >>> faithfulness_curves(model, graphs, clean, corrupt, metric, shares=[0.1, 1.0]).methods
        ('EAP-IG', 'random')
    """

    values: Tensor
    spread: Tensor
    methods: tuple[str, ...]
    shares: tuple[float, ...]
    edges: tuple[int, ...]
    full: float
    empty: float
    metric: str
    ablation: str

    _specs = specs(
        values="methods shares", spread="methods shares", methods="methods", shares="shares", edges="shares"
    )

    @property
    def cpr(self) -> dict[str, float]:
        """The circuit performance ratio of each method, the area under f; higher is better."""
        return self._areas(self.values)

    @property
    def cmd(self) -> dict[str, float]:
        """The circuit-model distance of each method, the area between f and 1; 0 is best."""
        return self._areas((1 - self.values).abs())

    def _areas(self, values: Tensor) -> dict[str, float]:
        """Areas by the trapezoidal rule between the smallest and the largest share."""
        areas = torch.trapezoid(values, torch.tensor(self.shares, dtype=torch.float64))
        return dict(zip(self.methods, areas.tolist(), strict=True))

    @checked
    def at(self, method: str, share: float) -> float:
        """Returns the faithfulness of a method at a share.

        Raises:
            ArgumentError: There is no such method or share.
        """
        if method not in self.methods or share not in self.shares:
            raise ArgumentError(
                f"methods are {', '.join(self.methods)} and shares {', '.join(map(str, self.shares))}, got "
                f"{method!r} and {share}"
            )
        return float(self.values[self.methods.index(method), self.shares.index(share)])

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with faithfulness over the share of the edges, a line for each method.

        Args:
            ax: Where to draw; a new figure by default.
        """
        with style.drawing(ax, 5.5, 3.8) as axes:
            for row, (name, color) in enumerate(
                zip(self.methods, style.palette(len(self.methods)), strict=True)
            ):
                color = style.GRAY if name == RANDOM else color
                width = min(0.6 + 0.9 * (len(self.methods) - row), 5.0)  # curves that coincide are all seen
                axes.plot(self.shares, self.values[row], "o-", label=name, color=color, linewidth=width)
                axes.lines[-1].set_markersize(width + 2)
                if bool(self.spread[row].any()):
                    low, high = self.values[row] - self.spread[row], self.values[row] + self.spread[row]
                    axes.fill_between(self.shares, low, high, color=color, alpha=0.2, linewidth=0)
            axes.axhline(1, color="0.6", linewidth=0.8)
            axes.set(xscale="log", xlabel="share of edges kept", ylabel="faithfulness")
            axes.set_title(f"How much of the {shortened(self.metric, 30)} circuits keep")
            axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
            axes.legend()
        return axes

    def __len__(self) -> int:
        return len(self.shares)

    def __repr__(self) -> str:
        found = ", ".join(f"{shortened(name, 20)} {value:.2f}" for name, value in list(self.cmd.items())[:4])
        return f"FaithfulnessCurves({counted(len(self.shares), 'share')}, circuit-model distance: {found})"

    def __str__(self) -> str:
        width = max(map(len, self.methods)) + 2
        head = "".join(f"{100 * share:>8g}%" for share in self.shares)
        lines = [
            f"faithfulness by {shortened(self.metric)}, {self.ablation} ablation: {self.full:.3f} with all "
            f"edges, {self.empty:.3f} without any",
            f"{'edges kept':<{width}}{head}{'CPR':>9}{'CMD':>9}",
        ]
        for name, row in zip(self.methods, self.values.tolist(), strict=True):
            numbers = "".join(f"{value:>9.3f}" for value in row)
            lines.append(f"{name:<{width}}{numbers}{self.cpr[name]:>9.3f}{self.cmd[name]:>9.3f}")
        return "\n".join(lines)


@checked
def faithfulness_curves(
    model: HookedModel,
    graphs: Mapping[str, Any],
    clean: Any,
    corrupt: Any,
    metric: Any,
    *,
    shares: Sequence[float] = SHARES,
    ablation: Ablation = "resample",
    random: int = 2,
    seed: int = 0,
    batch_size: int | None = None,
    verbose: bool = False,
) -> FaithfulnessCurves:
    """Returns how well the strongest edges alone do what the model does, beside random edges.

    Args:
        model: The model.
        graphs: An `AttributionGraph` of it for each name of a method.
        clean: Prompts, all of the same number of tokens; better not those of the graphs.
        corrupt: As many prompts of the same number of tokens.
        metric: As for `attribution_graph`.
        shares: Which shares of all edges are kept, in rising order.
        ablation: What replaces the contributions of the other edges; see `run_circuit`.
        random: How many random circuits are drawn for each share.
        seed: Draws them.
        batch_size: How many prompts run at once.
        verbose: Show progress.

    Raises:
        ArgumentError: A graph is of another model, shares are not in rising order from 0 to 1, the gap of the
            metric is near 0.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers import HookedModel, attribution_graph, logit_difference
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
        >>> metric = logit_difference(4, 5)
        >>> graphs = {"exact": attribution_graph(model, clean, corrupt, metric, "exact")}
        >>> curves = faithfulness_curves(model, graphs, clean, corrupt, metric, shares=[0.1, 1.0], random=1)
        >>> curves.values.shape  # of the graph and of random edges
        torch.Size([2, 2])
    """
    check_counts(1, random=random)
    _check_shares(shares)
    wrong = [name for name, one in graphs.items() if not isinstance(one, AttributionGraph)]
    if wrong or not graphs or RANDOM in graphs:
        raise ArgumentError(
            f"expected an AttributionGraph by the name of each method, {RANDOM!r} not among them, got "
            f"{graphs!r:.120}"
        )
    with evaluating(model.model), torch.no_grad():
        runs = CircuitValues(model, clean, corrupt, metric, ablation, batch_size)
        for graph in graphs.values():
            check_nodes(graph.writers, graph.readers, runs.wiring)
        full, empty = runs.problem.values[0], runs.empty()
        total = len(shares) * (len(graphs) + random)
        with tqdm(total=total, desc="circuits", unit="run", disable=not verbose) as progress:

            def value(circuit: Circuit) -> float:
                progress.update()
                return (runs.of(circuit.kept) - empty) / (full - empty)

            circuits = {name: [graph.prune(share=one) for one in shares] for name, graph in graphs.items()}
            rows = [[value(one) for one in row] for row in circuits.values()]
            first = next(iter(circuits.values()))
            drawn = [[value(one.random(seed + draw)) for one in first] for draw in range(random)]
    draws = torch.tensor(drawn, dtype=torch.float64)
    values = torch.cat([torch.tensor(rows, dtype=torch.float64), draws.mean(0, keepdim=True)])
    spread = torch.zeros_like(values)
    spread[-1] = draws.std(0, correction=0)
    total = int(runs.wiring.allowed.sum())
    return FaithfulnessCurves(
        values=values,
        spread=spread,
        methods=(*graphs, RANDOM),
        shares=tuple(map(float, shares)),
        edges=tuple(round(share * total) for share in shares),
        full=full,
        empty=empty,
        metric=runs.problem.metric,
        ablation=ablation,
    )


def _check_shares(shares: Sequence[float]) -> None:
    """Makes sure that shares rise from 0 to 1."""
    listed = list(shares)
    if not listed or sorted(set(listed)) != listed or not 0 <= listed[0] <= listed[-1] <= 1:
        raise ArgumentError(f"shares are between 0 and 1, in rising order, got {listed}")
