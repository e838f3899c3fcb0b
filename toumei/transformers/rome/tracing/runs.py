"""The two runs that a trace compares: of the prompt as it is, and of the prompt with a corrupted subject."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal

from torch import Tensor

from ....core.hooks import hooked
from ....core.outputs import main_tensor
from ...model.families import Anatomy
from .noise import Corruption

Kind = Literal["hidden", "mlp", "attn"]
Measure = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """Which states a cell of a trace takes from which run.

    Attributes:
        kind: What is restored: the output of one block, or of the MLPs or attentions of a window of blocks.
        window: How many blocks a window has; the middle one is the cell's, or of an even number the one
            behind the middle.
        sever: Whose outputs stay at their corrupted values in the blocks behind a restored one.
        layers: How many blocks there are.
    """

    kind: Kind
    window: int
    sever: Literal["mlp", "attn"] | None
    layers: int

    @property
    def width(self) -> int:
        """How many blocks are restored together."""
        return 1 if self.kind == "hidden" else self.window

    def modules(self, parts: Anatomy) -> list[str]:
        """Returns for each block the name of the module that may be overwritten, or an empty list."""
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
    """What one run of a prompt computed, (rows, T, width) each.

    Attributes:
        blocks: The outputs of the blocks.
        modules: The outputs of the modules of a plan.
        keys: Keys (rows, heads, T, size) of each block, where they were asked for.
        values: Their values.
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
    """Returns what the model computes up to its last block.

    Args:
        parts: Where the parts of the model are.
        ids: The prompt (1, T).
        modules: Modules to record beside the blocks.
        corruption: Noise for the subject, a row for each sample; by default one row without noise.
        cached: Whether to keep the keys and values.
    """
    from transformers import DynamicCache

    rows = 1 if corruption is None else len(corruption.values)
    edit = {} if corruption is None else {parts.embedding: corruption.edit}
    cache: Any = DynamicCache() if cached else None
    options = {"past_key_values": cache} if cached else {}
    names = [*parts.blocks, *modules]
    with hooked(parts.model, names, edit, stop=True, detach=True) as found:
        parts.model(input_ids=ids.expand(rows, -1), use_cache=cached, **options)
    tensors = [found[name].reshape(rows, -1, parts.width) for name in names]
    layers = cache.layers if cached else []
    return Run(
        tensors[: parts.layers],
        tensors[parts.layers :],
        [layer.keys for layer in layers],
        [layer.values for layer in layers],
    )


def last_logits(parts: Anatomy, ids: Tensor) -> Tensor:
    """Returns the logits (N, tokens) of a plain forward pass behind the last token."""
    keep = {"logits_to_keep": 1} if "logits_to_keep" in signature(parts.model.forward).parameters else {}
    return main_tensor(parts.model(input_ids=ids, use_cache=False, **keep))[:, -1]


def overwriting(rows: Tensor, position: int, values: Tensor, width: int) -> Callable[[Tensor], Tensor]:
    """Returns an edit that puts values in the place of a module's output at one position of some rows.

    Args:
        rows: Which rows, a truth value for each.
        position: The index of the position.
        values: (rows, width), of which those of the chosen rows are used.
        width: Of the residual stream.
    """

    def overwrite(output: Tensor) -> Tensor:
        output = output.contiguous()
        view = output.view(len(rows), -1, width)
        view[rows, position] = values[rows].to(view)
        return output

    return overwrite
