"""The circuits of heads in tokens: their largest entries, and what their singular vectors mean."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError, ShapeError
from ...core.serialization import Saved
from ...core.summaries import shortened
from ...core.tensor_specs import specs
from ...plots import style
from ...plots.style import drawing
from ..model.hooked_model import HookedModel
from .circuits import ov_circuit, qk_circuit
from .factored_matrix import FactoredMatrix
from .vocabulary_weights import embedding_weights, unembedding_weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NUMBERS = 2**24  # of a product that are computed at once: 64 MB


class TokenPair(NamedTuple):
    """Two tokens and their entry in a circuit.

    Attributes:
        row: The query of a QK circuit, the token that is read of an OV circuit.
        column: The key of a QK circuit, the token whose logit changes of an OV circuit.
        value: The entry.

    Example:
        >>> TokenPair(" Ann", " Rome", 2.5).column
        ' Rome'
    """

    row: str
    column: str
    value: float


@checked
def top_token_pairs(
    model: HookedModel, circuit: FactoredMatrix, k: int = 10, *, largest: bool = True
) -> tuple[TokenPair, ...]:
    """Returns the largest entries of a circuit between tokens, a block of rows at a time.

    Args:
        model: The model, whose tokenizer names the tokens; without one they are numbers.
        circuit: The circuit of one head, (tokens, tokens).
        k: How many entries.
        largest: Whether the largest are wanted, or the smallest.

    Raises:
        ShapeError: It is no single matrix.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> model = HookedModel(InductionTransformer(vocabulary=4, positions=8, sharpness=20))
        >>> (pair,) = top_token_pairs(model, ov_circuit(model, 1, vocabulary=True)[0], 1)
        >>> pair.row == pair.column, pair.value
        (True, 20.0)
    """
    check_counts(1, k=k)
    if len(circuit.shape) != 2:
        raise ShapeError(f"expected the circuit of one head, circuit[head], got {circuit!r}")
    rows, columns = circuit.shape
    best, places = circuit.A.new_empty(0), torch.empty(0, dtype=torch.long, device=circuit.A.device)
    step = max(1, _NUMBERS // columns)
    for begin in range(0, rows, step):
        block = circuit.rows(slice(begin, begin + step)).dense()
        extremes = block.amax(1) if largest else block.amin(1)
        chosen = extremes.topk(min(k, len(block)), largest=largest).indices  # no other row has one of the k
        values, found = block[chosen].flatten().topk(min(k, len(chosen) * columns), largest=largest)
        found = (begin + chosen[found // columns]) * columns + found % columns
        best, order = torch.cat([best, values]).sort(descending=largest, stable=True)
        best, places = best[:k], torch.cat([places, found])[order][:k]
    return tuple(
        TokenPair(token_text(model, place // columns), token_text(model, place % columns), value)
        for place, value in zip(places.tolist(), best.tolist(), strict=True)
    )


def token_text(model: HookedModel, token: int) -> str:
    """Returns the text of a token, its number without a tokenizer."""
    return str(token) if model.tokenizer is None else str(model.tokenizer.decode([token]))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SingularReadOut(Saved):
    """The largest singular values of a head's circuit, and the tokens that their vectors stand for.

    Attributes:
        circuit: ``"ov"`` or ``"qk"``.
        head: Layer and number of the head, ``"5.1"``.
        values: The singular values, (vectors,), the largest first.
        rows: For each, the tokens whose embedding has the largest part along its left vector: what a head
            reads, or the query.
        columns: For each, the tokens of its right vector: those whose logits it raises most, or the key.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import HookedModel
        >>> from toumei.transformers.heads import singular_read_out
        >>> model, tokenizer, world = facts_gpt()
        >>> hooked = HookedModel(model, tokenizer)
        >>> found = singular_read_out(hooked, 3, 1)
        >>> found.head, len(found.values)
        ('3.1', 5)
    """

    circuit: str
    head: str
    values: Tensor
    rows: tuple[tuple[str, ...], ...]
    columns: tuple[tuple[str, ...], ...]

    _specs = specs(values="vectors", rows="vectors", columns="vectors")

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the singular values, and the first token of each side."""
        with drawing(ax, 6, max(2.0, 0.3 * len(self.values))) as axes:
            names = [
                f"{row[0]!r} -> {column[0]!r}" for row, column in zip(self.rows, self.columns, strict=True)
            ]
            places = range(len(self.values))
            axes.barh(places, self.values.tolist(), color=style.BLUE)
            axes.set_yticks(places, names)
            axes.invert_yaxis()
            axes.set(xlabel="singular value", title=f"{self.circuit.upper()} circuit of head {self.head}")
        return axes

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"SingularReadOut({self.circuit!r} of {self.head}, {len(self)} of the singular vectors)"

    def __str__(self) -> str:
        lines = [f"{self.circuit.upper()} circuit of head {self.head}"]
        for value, row, column in zip(self.values.tolist(), self.rows, self.columns, strict=True):
            read, written = (shortened(" ".join(map(repr, side)), 100) for side in (row, column))
            lines.append(f"{value:9.3g}  {read} -> {written}")
        return "\n".join(lines)


@checked
def singular_read_out(
    model: HookedModel,
    layer: int,
    head: int,
    circuit: Literal["ov", "qk"] = "ov",
    *,
    vectors: int = 5,
    k: int = 8,
    fold_norms: bool = True,
) -> SingularReadOut:
    """Returns the singular vectors of a head's circuit in tokens.

    Vectors that are read, queries and keys stand for the tokens whose embeddings they fit; vectors that are
    written for the tokens whose logits they raise (Millidge & Black 2022, "The singular value decompositions
    of transformer weight matrices are highly interpretable"). Both vectors of a pair may change their sign
    together: it is chosen so that the strongest token of the right vector is positive.

    Args:
        model: The model.
        layer: The number of the layer.
        head: The number of the head.
        circuit: Which circuit; that of queries and keys without rotation of positions.
        vectors: How many singular vectors.
        k: How many tokens of each.
        fold_norms: Whether the gains of norms are part of the circuit and of the unembedding.

    Raises:
        ArgumentError: There is no such head.
        LayerError: There is no such layer.
        ArchitectureError: The weights cannot be told, or norms not be folded.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> model = HookedModel(InductionTransformer(vocabulary=4, positions=8, sharpness=20))
        >>> found = singular_read_out(model, 1, 0, vectors=4, k=1)
        >>> found.rows == found.columns  # the induction head copies
        True
    """
    check_counts(1, vectors=vectors, k=k)
    found = ov_circuit if circuit == "ov" else qk_circuit
    matrices = found(model, layer, fold_norms=fold_norms)
    if not 0 <= head < len(matrices.A):
        raise ArgumentError(f"layer {layer} has heads 0 to {len(matrices.A) - 1}, got {head}")
    U, S, Vh = matrices[head].svd()
    embedding = embedding_weights(model)
    reads = embedding.T
    writes = unembedding_weights(model, fold_norm=fold_norms) if circuit == "ov" else reads
    vectors = min(vectors, len(S))
    left, right = U.T[:vectors] @ reads, Vh[:vectors] @ writes
    strongest = right.gather(1, right.abs().argmax(1, keepdim=True)).sign()
    strongest[strongest == 0] = 1
    return SingularReadOut(
        circuit=circuit,
        head=f"{layer}.{head}",
        values=S[:vectors].cpu(),
        rows=_top_tokens(model, left * strongest, k),
        columns=_top_tokens(model, right * strongest, k),
    )


def _top_tokens(model: HookedModel, numbers: Tensor, k: int) -> tuple[tuple[str, ...], ...]:
    places = numbers.topk(min(k, numbers.shape[1])).indices.tolist()
    return tuple(tuple(token_text(model, token) for token in row) for row in places)
