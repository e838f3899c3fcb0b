"""Whether a circuit is all that matters, and no more: faithfulness, completeness, minimality."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.progress import tqdm
from ...core.seeding import make_generator
from ...core.serialization import Saved
from ...core.summaries import shortened
from ...core.tensor_specs import specs
from ...plots import style
from ..model.hooked_model import HookedModel
from .alternatives import Ablation
from .circuit import Circuit
from .circuit_runs import CircuitValues, check_circuit
from .labels import LOGITS, place_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CircuitChecks(Saved):
    """The three criteria of Wang et al. 2022 (arXiv:2211.00593), section 4, and random circuits beside them.

    Attributes:
        faithfulness: f of the circuit, ``(m(circuit) - m(none)) / (m(model) - m(none))``; 1 is the model.
        random: f of random circuits of as many edges, (draws,).
        without: For random sets K of the circuit's nodes, and last for all of them: f of the circuit without
            K and f of the model without K, (sets, 2). The edges from nodes in K are cut. A complete circuit
            has the same numbers on both sides.
        random_without: The same for a random circuit and sets of its nodes.
        minimality: For each node the largest change of f when the node is removed from the circuit, beside
            none or one of the sets K, (nodes,). A minimal circuit has no node near 0.
        nodes: The nodes of the circuit that write.
        full: The metric of the model.
        empty: The metric without any edge.
        metric: Its name.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers import HookedModel, acdc, circuit_checks, logit_difference
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
        >>> metric = logit_difference(4, 5)
        >>> circuit = acdc(model, clean, corrupt, metric, 0.1)
        >>> checks = circuit_checks(model, circuit, clean, corrupt, metric, sets=2)
        >>> round(checks.faithfulness, 3)
        1.0
    """

    faithfulness: float
    random: Tensor
    without: Tensor
    random_without: Tensor
    minimality: Tensor
    nodes: tuple[str, ...]
    full: float
    empty: float
    metric: str

    _specs = specs(
        random="draws", without="sets 2", random_without="sets 2", minimality="nodes", nodes="nodes"
    )

    @property
    def incompleteness(self) -> float:
        """The mean of |f(circuit without K) - f(model without K)| over the sets; 0 is complete."""
        return float((self.without[:, 0] - self.without[:, 1]).abs().mean())

    @property
    def random_incompleteness(self) -> float:
        """The same for the random circuit."""
        return float((self.random_without[:, 0] - self.random_without[:, 1]).abs().mean())

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the circuit over the model, both without K: a complete one is on the line.

        Args:
            ax: Where to draw; a new figure by default.
        """
        with style.drawing(ax, 4.5, 4.0) as axes:
            for pairs, name, color in (
                (self.random_without, "random circuit", style.GRAY),
                (self.without, "circuit", style.BLUE),
            ):
                axes.scatter(pairs[:, 1], pairs[:, 0], s=16, label=name, color=color)
            axes.axline((0, 0), slope=1, color="0.6", linewidth=1)
            axes.set(xlabel="f of the model without K", ylabel="f of the circuit without K")
            axes.set_title(f"Is the circuit complete? f: {shortened(self.metric, 30)}")
            axes.legend()
        return axes

    def __repr__(self) -> str:
        return (
            f"CircuitChecks(faithfulness {self.faithfulness:.2f}, random {self.random.mean():.2f}, "
            f"incompleteness {self.incompleteness:.2f}, smallest effect {self.minimality.min():.3f})"
        )

    def __str__(self) -> str:
        order = self.minimality.argsort()
        least = ", ".join(f"{self.nodes[place]} {self.minimality[place]:.3f}" for place in order[:5].tolist())
        return "\n".join(
            [
                f"{shortened(self.metric)}: {self.full:.3f} with all edges, {self.empty:.3f} without any",
                f"faithfulness {self.faithfulness:.3f}, random circuits {self.random.mean():.3f}",
                f"incompleteness {self.incompleteness:.3f}, random circuit {self.random_incompleteness:.3f}",
                f"smallest effects of a node: {least}",
            ]
        )


@checked
def circuit_checks(
    model: HookedModel,
    circuit: Any,
    clean: Any,
    corrupt: Any,
    metric: Any,
    *,
    ablation: Ablation = "resample",
    sets: int = 8,
    random: int = 3,
    seed: int = 0,
    batch_size: int | None = None,
    verbose: bool = False,
) -> CircuitChecks:
    """Returns the faithfulness, completeness and minimality of a circuit, beside random circuits of its size.

    Args:
        model: The model.
        circuit: A `Circuit` of it.
        clean: Prompts, all of the same number of tokens.
        corrupt: As many prompts of the same number of tokens.
        metric: As for `attribution_graph`.
        ablation: What replaces contributions of edges that are cut; see `run_circuit`.
        sets: How many random sets K of nodes are removed; each node is in half of them.
        random: How many random circuits are drawn.
        seed: Draws them.
        batch_size: How many prompts run at once.
        verbose: Show progress.

    Raises:
        ArgumentError: The circuit has no edges, or is of another model.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers import HookedModel, acdc, logit_difference
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
        >>> metric = logit_difference(4, 5)
        >>> circuit = acdc(model, clean, corrupt, metric, 0.1)
        >>> circuit_checks(model, circuit, clean, corrupt, metric, sets=2, random=1)
        CircuitChecks(faithfulness 1.00, random 0.00, incompleteness 0.00, smallest effect 1.000)
    """
    check_counts(1, sets=sets, random=random)
    with evaluating(model.model), torch.no_grad():
        runs = CircuitValues(model, clean, corrupt, metric, ablation, batch_size)
        check_circuit(circuit, runs.wiring)
        if not len(circuit):
            raise ArgumentError("the circuit has no edges")
        nodes = _writers(circuit)
        other = circuit.random(seed)
        total = (4 * (sets + 1)) + len(nodes) * (sets + 1) + random + 1
        with tqdm(total=total, desc="checks", unit="run", disable=not verbose) as progress:
            checks = _Checks(runs, progress)
            chosen = _sets(nodes, sets, seed)
            others = _sets(_writers(other), sets, seed)
            without = checks.pairs(circuit, chosen)
            return CircuitChecks(
                faithfulness=checks.value(circuit),
                random=torch.tensor(
                    [checks.value(circuit.random(seed + draw)) for draw in range(random)]
                ).double(),
                without=without,
                random_without=checks.pairs(other, others),
                minimality=checks.minimality(circuit, nodes, chosen[:-1], without[:-1, 0]),
                nodes=nodes,
                full=runs.problem.values[0],
                empty=checks.empty,
                metric=runs.problem.metric,
            )


class _Checks:
    def __init__(self, runs: CircuitValues, progress: Any) -> None:
        self._runs, self._progress = runs, progress
        self.empty = runs.empty()
        self._gap = runs.problem.values[0] - self.empty

    def value(self, circuit: Circuit) -> float:
        """The faithfulness of a circuit."""
        self._progress.update()
        return (self._runs.of(circuit.kept) - self.empty) / self._gap

    def pairs(self, circuit: Circuit, sets: list[tuple[str, ...]]) -> Tensor:
        """The faithfulness of circuit and model without sets of nodes."""
        from dataclasses import replace

        model = replace(circuit, kept=circuit.allowed)
        found = [(self.value(circuit.without(one)), self.value(model.without(one))) for one in sets]
        return torch.tensor(found, dtype=torch.float64)

    def minimality(
        self, circuit: Circuit, nodes: tuple[str, ...], sets: list[tuple[str, ...]], without: Tensor
    ) -> Tensor:
        """The largest change of the faithfulness when a node is removed."""
        bases = [((), self.value(circuit)), *zip(sets, without.tolist(), strict=True)]
        found = []
        for node in nodes:
            changes = [
                abs(self.value(circuit.without((*removed, node))) - base)
                for removed, base in bases
                if node not in removed
            ]
            found.append(max(changes))
        return torch.tensor(found, dtype=torch.float64)


def _writers(circuit: Circuit) -> tuple[str, ...]:
    """The nodes that the circuit goes on from. All is computed from embeddings, so they stay."""
    known = [one for one in circuit.nodes if one != LOGITS and place_of(one).kind != "embedding"]
    return tuple(one for one in known if bool(circuit.kept[:, circuit.writers.index(one)].any()))


def _sets(nodes: tuple[str, ...], count: int, seed: int) -> list[tuple[str, ...]]:
    """Random halves of the nodes, and all of them at the end."""
    generator = make_generator(seed)
    drawn = torch.rand(count, len(nodes), generator=generator) < 0.5
    return [tuple(one for one, taken in zip(nodes, row, strict=True) if taken) for row in drawn.tolist()] + [
        nodes
    ]
