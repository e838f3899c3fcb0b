"""The two runs that a trace compares: the clean run of the prompt, and the run with a corrupted subject."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

from torch import Tensor

from ....core.hooks import hooked
from ....core.outputs import main_tensor
from ...model.families import Anatomy
from ...model.prefix_cache import cache_option
from .noise import Corruption
from .settings import Kind, Severed

LogitMetric = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """Which states a cell of a trace takes from which run.

    Attributes:
        kind: What is restored: the output of one block, or of the MLPs or attentions of a window of blocks.
        window: The number of blocks in a window. The block of the cell is in its middle; in a window of even
            size it is the first of the second half.
        sever: The modules whose outputs keep their corrupted values in the blocks after the restored one.
        layers: The number of blocks of the model.
    """

    kind: Kind
    window: int
    sever: Severed | None
    layers: int

    @property
    def width(self) -> int:
        """The number of blocks that are restored together."""
        return 1 if self.kind == "hidden" else self.window

    def modules(self, parts: Anatomy) -> list[str]:
        """Returns the name of the module of each block that is overwritten for some cells; or no names."""
        part = self.sever if self.kind == "hidden" else self.kind
        if part is None:
            return []
        name = parts.mlp if part == "mlp" else parts.attention
        return [name(layer) for layer in range(self.layers)]

    def touches(self, cell: int, layer: int) -> bool:
        """Returns whether the module of a block is overwritten for a cell."""
        if self.kind == "hidden":
            return self.sever is not None and layer > cell
        return cell - self.window // 2 <= layer < cell - (-self.window // 2)

    def restores(self, cell: int, layer: int) -> bool:
        """Returns whether the output of a block is overwritten for a cell."""
        return self.kind == "hidden" and cell == layer

    def first(self, cell: int) -> int:
        """Returns the first block in which a cell differs from the corrupted run."""
        return cell if self.kind == "hidden" else max(0, cell - self.window // 2)


@dataclass(frozen=True)
class Run:
    """The tensors of one run of a prompt, (rows, T, width) each.

    Attributes:
        blocks: The outputs of the blocks.
        modules: The outputs of the modules of a plan.
        keys: The attention keys (rows, heads, T, size) of each block, if they were requested.
        values: The attention values, likewise.
    """

    blocks: list[Tensor]
    modules: list[Tensor]
    keys: list[Tensor]
    values: list[Tensor]


def record(
    parts: Anatomy,
    ids: Tensor,
    modules: Sequence[str] = (),
    corruption: Corruption | None = None,
    cached: bool = False,
) -> Run:
    """Returns the outputs of the blocks, and of some modules, for a prompt.

    Args:
        parts: Where the parts of the model are.
        ids: The prompt (1, T).
        modules: Names of further modules to record.
        corruption: Noise for the subject, a row for each sample; by default one row without noise.
        cached: Whether to keep the attention keys and values.
    """
    from transformers import DynamicCache

    rows = 1 if corruption is None else len(corruption.values)
    edit = {} if corruption is None else {f"{parts.embedding}#0": corruption.edit}
    cache: Any = DynamicCache() if cached else None
    options = cache_option(parts.model, cache) if cached else {}
    names = [*parts.blocks, *modules]
    with hooked(parts.model, parts.runs(names), edit, stop=True, detach=True) as found:
        parts.model(input_ids=ids.expand(rows, -1), use_cache=cached, **options)
    tensors = [found[name].reshape(rows, -1, parts.width) for name in names]
    layers = cache.layers if cached else []
    return Run(
        blocks=tensors[: parts.layers],
        modules=tensors[parts.layers :],
        keys=[layer.keys for layer in layers],
        values=[layer.values for layer in layers],
    )


def last_logits(parts: Anatomy, ids: Tensor) -> Tensor:
    """Returns the logits (N, tokens) of a plain forward pass at the last position."""
    keep = {"logits_to_keep": 1} if "logits_to_keep" in signature(parts.model.forward).parameters else {}
    return main_tensor(parts.model(input_ids=ids, use_cache=False, **keep))[:, -1]


def overwriting_edit(rows: Tensor, position: int, values: Tensor, width: int) -> Callable[[Tensor], Tensor]:
    """Returns an edit that replaces the output of a module at one position of some rows.

    Args:
        rows: A boolean mask of the rows to change.
        position: The index of the position.
        values: The new outputs (rows, width); those of the other rows are ignored.
        width: The width of the residual stream.
    """

    def overwrite(output: Tensor) -> Tensor:
        output = output.contiguous()
        view = output.view(len(rows), -1, width)
        view[rows, position] = values[rows].to(view)
        return output

    return overwrite
