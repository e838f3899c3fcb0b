"""The scores of all edges of a model."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.serialization import Saved
from ...core.summaries import counted, shortened
from ...core.tensor_specs import Spec, specs
from .circuit import Circuit
from .edge_names import edge_mask, edge_name, edge_place, strongest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DRAWN = 60


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AttributionGraph(Saved):
    """The score of each edge: by how much its clean contribution raises the metric.

    Attributes:
        scores: (readers, writers), in units of the metric, mean over the prompts; float64 on the CPU. NaN
            where there is no edge, or where it was not patched. Positive scores are of edges whose clean
            contribution raises the metric, in comparison with what replaces it.
        allowed: Which edges there are, (readers, writers).
        writers: The labels of the nodes that write to the stream; see `Circuit`.
        readers: Those of the inputs that read it.
        method: ``"eap"``, ``"eap-ig"`` or ``"exact"``.
        ablation: What replaces a contribution: ``"resample"``, ``"mean"`` or ``"zero"``.
        direction: ``"noising"`` takes something away from the clean run, ``"denoising"`` puts something clean
            into the corrupt run; ``"path"`` is between them.
        gradient_at: The run of the gradients, ``"clean"``, ``"corrupt"`` or ``"path"``; empty for patches.
        metric: The name of the metric.
        clean: Its mean over the clean prompts.
        corrupt: Its mean over the corrupt prompts.
        completeness_error: Of integrated gradients: the sum of the scores of all edges from the embeddings
            minus the change of the metric between the ends of the path. It is 0 with infinitely many steps.
            None for other methods.

    Example:
        >>> import torch
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers import HookedModel, attribution_graph, logit_difference
        >>> model = HookedModel(InductionTransformer(vocabulary=8, positions=8))
        >>> clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
        >>> graph = attribution_graph(model, clean, corrupt, logit_difference(4, 5), "exact")
        >>> len(graph), graph.top(1)[0][0]
        (42, 'embed->a0.0<v>')
    """

    scores: Tensor
    allowed: Tensor
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    method: str
    ablation: str
    direction: str
    gradient_at: str
    metric: str
    clean: float
    corrupt: float
    completeness_error: float | None = None

    _specs = specs(
        scores="readers writers",
        allowed=Spec("readers writers", "any"),
        writers="writers",
        readers="readers",
    )

    @property
    def into(self) -> dict[str, float]:
        """The sum of the scores of all edges into each reader.

        For ``"eap"`` it is the change of what the reader reads times the gradient there, exactly.
        """
        return dict(zip(self.readers, self.scores.nansum(1).tolist(), strict=True))

    @property
    def out_of(self) -> dict[str, float]:
        """The sum of the scores of all edges from each writer."""
        return dict(zip(self.writers, self.scores.nansum(0).tolist(), strict=True))

    @checked
    def __getitem__(self, edge: str | tuple[str, str]) -> float:
        """Returns the score of an edge, such as ``"a0.1->m2"`` or ``("a0.1", "m2")``.

        Raises:
            ArgumentError: There is no such edge.
        """
        return float(self.scores[edge_place(edge, self.writers, self.readers, self.allowed)])

    @checked
    def top(self, k: int = 10) -> tuple[tuple[str, float], ...]:
        """Returns the edges with the scores of the largest size, and these.

        Args:
            k: How many.
        """
        check_counts(1, k=k)
        order = self.scores.abs().nan_to_num(-1.0).flatten().argsort(descending=True, stable=True)
        found = []
        for place in order[: min(k, len(self))].tolist():
            reader, writer = divmod(place, len(self.writers))
            name = edge_name(self.writers[writer], self.readers[reader])
            found.append((name, float(self.scores[reader, writer])))
        return tuple(found)

    @checked
    def prune(
        self, edges: int | None = None, *, share: float | None = None, threshold: float | None = None
    ) -> Circuit:
        """Returns the circuit of the edges whose scores are largest in size.

        Args:
            edges: How many edges.
            share: Which share of all edges of the model, 0 to 1.
            threshold: The smallest size of a score.

        Raises:
            ArgumentError: Not one of the three is given, or it is out of range.
        """
        given = {"edges": edges, "share": share, "threshold": threshold}
        known = {name: one for name, one in given.items() if one is not None}
        if len(known) != 1:
            raise ArgumentError(f"give one of edges, share and threshold, got {known or 'none'}")
        if share is not None and not 0 <= share <= 1:
            raise ArgumentError(f"a share is from 0 to 1, got {share}")
        if threshold is not None and not threshold >= 0:
            raise ArgumentError(f"a threshold is 0 or more, got {threshold}")
        check_counts(0, edges=edges)
        total = int(self.allowed.sum())
        if threshold is not None:
            kept, chosen = self.scores.abs() >= threshold, f"scores of {self.method} from {threshold:g} on"
        elif share is not None:
            kept, chosen = strongest(self.scores, round(share * total)), f"strongest by {self.method}"
        else:
            kept, chosen = strongest(self.scores, edges or 0), f"strongest by {self.method}"
        return Circuit(
            kept=kept,
            allowed=self.allowed,
            scores=self.scores,
            writers=self.writers,
            readers=self.readers,
            found_by=chosen,
        )

    @checked
    def auroc(self, edges: Iterable[str]) -> float:
        """Returns how well the sizes of the scores tell the true edges from all others, 0.5 is chance.

        The area under the curve of the rates of true and of false positives; edges without a score are left
        out.

        Args:
            edges: The names of all true edges.

        Raises:
            ArgumentError: There is no such edge, or all edges are true, or none.
        """
        from sklearn.metrics import roc_auc_score

        true = edge_mask(edges, self.writers, self.readers, self.allowed)
        known = self.scores.isfinite()
        labels = true[known]
        if not bool(labels.any()) or bool(labels.all()):
            raise ArgumentError(
                f"expected some of the edges to be true, got {int(labels.sum())} of {len(labels)}"
            )
        return float(roc_auc_score(labels.numpy(), self.scores[known].abs().numpy()))

    @checked
    def plot(self, ax: "Axes | None" = None, *, edges: int = _DRAWN) -> "Axes":
        """Returns axes with the strongest edges; see `Circuit.plot`.

        Args:
            ax: Where to draw; a new figure by default.
            edges: How many edges.
        """
        return self.prune(edges=edges).plot(ax)

    @checked
    def save_html(self, path: str | Path, *, edges: int = 1000) -> None:
        """Writes a page on which the strongest edges can be explored; see `Circuit.save_html`.

        Args:
            path: The file.
            edges: How many edges.
        """
        self.prune(edges=edges).save_html(path)

    def __len__(self) -> int:
        return int(self.scores.isfinite().sum())

    def __repr__(self) -> str:
        best = ", ".join(f"{name} {value:+.2f}" for name, value in self.top(2))
        return (
            f"AttributionGraph({self.method}, {counted(len(self), 'edge')}, {shortened(self.metric, 30)}: "
            f"{best})"
        )

    def __str__(self) -> str:
        where = f", gradient at {self.gradient_at}" if self.gradient_at else ""
        lines = [
            f"{self.method} of {counted(len(self), 'edge')} by {shortened(self.metric)}: {self.direction}, "
            f"{self.ablation}{where}",
            f"{self.clean:.3f} clean, {self.corrupt:.3f} corrupt",
        ]
        if self.completeness_error is not None:
            lines.append(f"completeness error {self.completeness_error:+.2g}")
        return "\n".join([*lines, *(f"{name:<24}{value:+.4f}" for name, value in self.top(12))])

    def _repr_html_(self) -> str:
        return self.prune(edges=min(len(self), 400))._repr_html_()
