"""A circuit of nodes: what each contributes, and by which edges."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor
from typing_extensions import Self

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.serialization import Saved
from ...core.summaries import counted, listed, shortened
from ...core.tensor_specs import specs
from ...plots.style import drawing
from .drawing import draw_circuit

if TYPE_CHECKING:
    import networkx
    from matplotlib.axes import Axes

OUTPUT = "output"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class NodeCircuit(Saved):
    """What each node of a network contributes to a score, and the edges between the strongest nodes.

    Attributes:
        nodes: The names of the nodes.
        values: (inputs, nodes) contributions: how much higher the score is with what the node computes than
            with its value at the baseline, as the method shares it out.
        sites: For each node the name of the activation that it is a part of.
        full: (inputs,) scores of the network.
        empty: (inputs,) scores with all nodes at the baseline.
        edges: Sender and receiver of each edge; the last receiver is ``"output"``.
        weights: (edges,) what the sender contributes directly to what the receiver reads, mean over inputs.
        method: The name of the method.
        complete: Whether the contributions of an input sum to `full` - `empty`.
        passes: Forward passes that each input took for the nodes, without those for the edges.
        backward_passes: How many of them had a backward pass.

    Example:
        >>> import torch
        >>> from toumei.misc.circuits import CircuitDetector
        >>> from toumei.models import SimpleMLP
        >>> model = SimpleMLP(4, 3, 2)
        >>> CircuitDetector(model, ["fc0"])(torch.rand(5, 4), 0.0, 1).nodes
        ('fc0:0', 'fc0:1', 'fc0:2')
    """

    nodes: tuple[str, ...]
    values: Tensor
    sites: tuple[str, ...]
    full: Tensor
    empty: Tensor
    edges: tuple[tuple[str, str], ...] = ()
    weights: Tensor
    method: str
    complete: bool
    passes: float
    backward_passes: float

    _specs = specs(
        nodes="nodes",
        sites="nodes",
        values="inputs nodes",
        full="inputs",
        empty="inputs",
        weights="edges",
    )

    @property
    def scores(self) -> Tensor:
        """The mean contribution of each node, (nodes,)."""
        return self.values.mean(0)

    @property
    def gap(self) -> Tensor | None:
        """(inputs,) The sum of contributions minus the difference of scores; None if they need not agree."""
        return self.values.sum(1) - (self.full - self.empty) if self.complete else None

    @property
    def order(self) -> tuple[str, ...]:
        """The nodes, from the largest absolute score on."""
        return tuple(self.nodes[index] for index in self.scores.abs().argsort(descending=True, stable=True))

    @checked
    def __getitem__(self, node: str) -> float:
        """Returns the score of a node.

        Raises:
            ArgumentError: There is no such node.
        """
        self._check([node])
        return float(self.scores[self.nodes.index(node)])

    def __len__(self) -> int:
        return len(self.nodes)

    @checked
    def prune(self, top: int, by_site: bool = False) -> Self:
        """Returns the circuit of the nodes with the largest absolute scores, and the edges between them.

        Args:
            top: How many nodes.
            by_site: Whether that is how many of each site.
        """
        check_counts(1, top=top)
        place, order = dict(zip(self.nodes, self.sites, strict=True)), self.order
        groups = [[node for node in order if place[node] == site] for site in dict.fromkeys(self.sites)]
        chosen = {node for group in (groups if by_site else [order]) for node in group[:top]}
        kept = [index for index, node in enumerate(self.nodes) if node in chosen]
        chosen.add(OUTPUT)
        edges = [index for index, edge in enumerate(self.edges) if chosen.issuperset(edge)]
        return replace(
            self,
            nodes=tuple(self.nodes[index] for index in kept),
            sites=tuple(self.sites[index] for index in kept),
            values=self.values[:, kept],
            edges=tuple(self.edges[index] for index in edges),
            weights=self.weights[edges],
            complete=self.complete and len(kept) == len(self.nodes),
        )

    @checked
    def auroc(self, known: "Collection[str] | NodeCircuit") -> float:
        """Returns the probability that a node of the known circuit has a larger absolute score than another.

        Args:
            known: The nodes of the known circuit, or the circuit.

        Raises:
            ArgumentError: A name that is no node, or a circuit of no node or of all.
        """
        from sklearn.metrics import roc_auc_score

        known = known.nodes if isinstance(known, NodeCircuit) else known
        self._check(known)
        true = [node in known for node in self.nodes]
        if all(true) or not any(true):
            raise ArgumentError(
                f"the known circuit has some of the {counted(len(self.nodes), 'node')}, got "
                f"{len(set(known))} of them"
            )
        return float(roc_auc_score(true, self.scores.abs().numpy()))

    def to_networkx(self) -> "networkx.DiGraph":
        """Returns the graph: nodes with ``score`` and ``site``, edges with ``weight``."""
        import networkx

        graph = networkx.DiGraph()
        for node, site, score in zip(self.nodes, self.sites, self.scores.tolist(), strict=True):
            graph.add_node(node, score=score, site=site)
        for (sender, receiver), weight in zip(self.edges, self.weights.tolist(), strict=True):
            graph.add_edge(sender, receiver, weight=weight)
        return graph

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the circuit: a row for each site, first below; nodes coloured by their scores.

        Edges are as wide as their weights are large, orange above zero and blue below.

        Args:
            ax: Where to draw; a new figure by default.
        """
        rows = len(set(self.sites)) + 1
        widest = max(self.sites.count(site) for site in self.sites)
        with drawing(ax, min(max(5.0, 0.8 * widest), 14.0) + 1.5, min(max(2.5, 0.75 * rows), 12.0)) as axes:
            draw_circuit(axes, self.to_networkx())
            axes.set_title(self.method)
        return axes

    def __repr__(self) -> str:
        best = ", ".join(f"{shortened(node, 20)} {self[node]:.2g}" for node in self.order[:3])
        return (
            f"NodeCircuit({shortened(self.method, 20)}: {counted(len(self.nodes), 'node')}, "
            f"{counted(len(self.edges), 'edge')}, {counted(self.passes, 'pass', form='.0f')}; strongest "
            f"{best})"
        )

    def __str__(self) -> str:
        lines = [
            f"{self.method}: {counted(len(self.nodes), 'node')}, {counted(len(self.edges), 'edge')}",
            f"score {self.full.mean():.3f}, with all nodes at the baseline {self.empty.mean():.3f}",
            f"{self.passes:.1f} forward and {self.backward_passes:.1f} backward passes an input",
        ]
        return "\n".join(
            [*lines, *(f"{shortened(node, 30):<12}{self[node]:.3f}" for node in self.order[:10])]
        )

    def _check(self, names: Collection[str]) -> None:
        wrong = [name for name in names if name not in self.nodes]
        if wrong:
            raise ArgumentError(f"no node {wrong[0]!r} in this circuit: it has {listed(self.nodes)}")
