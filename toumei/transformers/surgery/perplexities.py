"""How much of its predictions a language model loses with each layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ...core.checks import check_counts, check_no_nan, checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.outputs import main_tensor
from ...core.progress import tqdm
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import specs
from ...plots import style
from ...plots.style import drawing
from ..model.causality import check_next_token_logits
from ..model.corpus import TokenChunks
from ..model.families import anatomy
from .block_orders import BlockOrders

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Change = Literal["delete", "swap", "repeat"]

_ORDERS: dict[str, Callable[[int, int], list[int]]] = {
    "delete": lambda count, layer: [one for one in range(count) if one != layer],
    "swap": lambda count, layer: [*range(layer), layer + 1, layer, *range(layer + 2, count)],
    "repeat": lambda count, layer: [*range(layer + 1), *range(layer, count)],
}
_LENGTH = 256
_WORDS = {"delete": "layer deleted", "swap": "layer swapped with the next", "repeat": "layer run twice"}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LayerPerplexities(Saved):
    """The perplexity of a language model with one layer changed, layer by layer.

    Attributes:
        change: What is done with the layer: deleted, swapped with the next one, or repeated.
        layers: The layers, from 0 on.
        losses: The mean next-token loss of each text with the layer changed, in nats, (layers, texts).
        before: That of the whole model, (texts,).
        length: Tokens of each text.

    Example:
        >>> losses = torch.tensor([[3.0, 3.2], [2.1, 2.2]], dtype=torch.float64)
        >>> found = LayerPerplexities(
        ...     change="delete", layers=(0, 1), losses=losses, before=losses[1] - 0.1, length=64
        ... )
        >>> found.least(1)
        (1,)
    """

    change: str
    layers: tuple[int, ...]
    losses: Tensor
    before: Tensor
    length: int

    _specs = specs(layers="layers", losses="layers texts", before="texts")

    @property
    def perplexities(self) -> Tensor:
        """Exp of the mean loss over all texts, (layers,)."""
        return self.losses.mean(1).exp()

    @property
    def baseline(self) -> float:
        """The perplexity of the whole model."""
        return float(self.before.mean().exp())

    @property
    def rises(self) -> Tensor:
        """How much the mean loss rises, in nats, (layers,)."""
        return (self.losses - self.before).mean(1)

    @cached_property
    def intervals(self) -> Tensor:
        """The 95 % intervals of the rises over texts, by Student's t, (layers, 2); NaN for one text."""
        from scipy.stats import t

        count = len(self.before)
        error = (self.losses - self.before).std(1) / count**0.5
        factor = float(t.ppf(0.975, count - 1)) if count > 1 else float("nan")
        signs = torch.tensor([-1.0, 1.0], dtype=torch.float64)
        result: Tensor = self.rises[:, None] + error[:, None] * factor * signs
        return result

    @checked
    def least(self, k: int = 5) -> tuple[int, ...]:
        """Returns the layers whose change raises the loss least, the best first."""
        check_counts(1, k=k)
        order = self.rises.argsort(stable=True)[:k]
        return tuple(self.layers[place] for place in order.tolist())

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the perplexity by layer, on a logarithmic scale, and that of the whole model.

        Vertical lines are the 95 % intervals of the rises over texts.

        Args:
            ax: Where to draw; a new figure by default.
        """
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        with drawing(ax, min(max(4.0, 0.25 * len(self.layers)), 10.0), 3.4) as axes:
            middle = self.before.mean()
            low, high = (middle + self.intervals).exp().T.tolist()
            if len(self.before) > 1:
                axes.vlines(self.layers, low, high, color=style.BLUE, alpha=0.5)
            axes.plot(self.layers, self.perplexities, "o-", markersize=4, color=style.BLUE)
            axes.axhline(self.baseline, color=style.GRAY, linestyle="--", linewidth=1, label="whole model")
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            step = -(-len(self.layers) // 16)
            axes.set_xticks(self.layers[::step])
            axes.set(xlabel=_WORDS[self.change], ylabel="perplexity")
            axes.set_title(f"Perplexity with one {_WORDS[self.change]}")
            axes.legend(loc="upper center")
        return axes

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        best = ", ".join(
            f"{layer} {float(self.perplexities[self.layers.index(layer)]):.4g}" for layer in self.least(3)
        )
        return (
            f"LayerPerplexities({self.change} each of {counted(len(self), 'layer')}: whole model "
            f"{self.baseline:.4g}, least with layer {best})"
        )

    def __str__(self) -> str:
        lines = [
            f"perplexity of {counted(len(self.before), 'text')} of {counted(self.length, 'token')}: "
            f"{self.baseline:.2f}",
            f"{_WORDS[self.change]:>28}  perplexity  loss rises by (95 %)",
        ]
        rows = zip(self.layers, self.perplexities, self.rises, self.intervals, strict=True)
        for layer, perplexity, rise, (low, high) in rows:
            interval = f"  ({low:.3f} to {high:.3f})" if len(self.before) > 1 else ""
            lines.append(f"{layer:>28}  {perplexity:10.4g}  {rise:8.3f}{interval}")
        return "\n".join(lines)


@checked
def perplexity_by_layer(
    model: nn.Module,
    tokenizer: Any,
    texts: Any,
    change: Change = "delete",
    *,
    layers: Sequence[int] | None = None,
    length: int | None = None,
    max_tokens: int = 16384,
    batch_size: int = 8,
    verbose: bool = False,
) -> LayerPerplexities:
    """Returns the perplexity of a causal language model with each of its layers deleted, swapped or repeated.

    The numbers are those of `delete_layers`, `permute_layers` and `repeat_layers`. Blocks below the changed
    one are not run again, where the blocks of the model can be called one by one: half of the work.

    Args:
        model: A causal language model of Hugging Face.
        tokenizer: Its tokenizer.
        texts: A corpus; see `toumei.transformers.model.corpus.texts_in`.
        change: ``"delete"``; ``"swap"``, with the next layer; ``"repeat"``, run twice.
        layers: Which layers; by default all.
        length: Tokens that are read together; by default 256, or as many as the model has positions for.
        max_tokens: How many tokens of the corpus are read.
        batch_size: How many times `length` tokens run at once.
        verbose: Show progress.

    Raises:
        ArgumentError: There is no such layer, or the texts fill no chunk of `length` tokens.
        ArchitectureError: The parts of the model are not found, or it is no causal language model.
        NonFiniteError: The loss of the whole model is NaN.

    Example:
        >>> from itertools import islice
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> texts = list(islice(world.texts(seed=1), 100))
        >>> found = perplexity_by_layer(model, tokenizer, texts, layers=[0, 5], length=32)
        >>> found.perplexities[0] > 2 * found.baseline
        tensor(True)
    """
    check_counts(2, length=length)
    check_counts(1, max_tokens=max_tokens, batch_size=batch_size)
    parts = anatomy(model)
    chosen = _chosen(layers, parts.layers - (change == "swap"), change)
    length = min(_LENGTH, parts.positions or _LENGTH) if length is None else length
    parts.check_length(length, f"a text of length={length}")
    orders = [list(range(parts.layers)), *(_ORDERS[change](parts.layers, layer) for layer in chosen)]
    found: list[Tensor] = []
    with torch.no_grad(), evaluating(parts.model), tqdm(desc="layers", disable=not verbose) as progress:
        for tokens in _batches(TokenChunks(texts, tokenizer, length), batch_size, max_tokens):
            if not found:
                some = tokens[:1, :4].to(parts.device)
                check_next_token_logits(type(model).__name__, lambda ids: main_tensor(parts.model(ids)), some)
            runs = BlockOrders(parts, tokens.to(parts.device))
            runs.prepare(orders[-1])
            rows = []
            for order in orders:
                rows.append(runs.losses(order))
                progress.update()
            found.append(torch.stack(rows))
    if not found:
        raise ArgumentError(f"the texts fill no chunk of length={length} tokens: give more texts")
    losses = torch.cat(found, 1)
    check_no_nan("the losses of the whole model", losses[0])
    return LayerPerplexities(
        change=change, layers=tuple(chosen), losses=losses[1:], before=losses[0], length=length
    )


def _chosen(layers: Sequence[int] | None, count: int, change: str) -> list[int]:
    """The layers, sorted."""
    if layers is None and count:
        return list(range(count))
    given = list(layers or [])
    wrong = [layer for layer in given if not 0 <= layer < count]
    if wrong or not given:
        raise ArgumentError(f"layers to {change} are from 0 to {count - 1}, got {given}")
    return sorted(set(given))


def _batches(chunks: TokenChunks, batch_size: int, max_tokens: int) -> Any:
    """Batches of chunks (chunks, length), until so many tokens were read."""
    rows: list[list[int]] = []
    read = 0
    for chunk in chunks:
        rows.append(chunk)
        read += len(chunk)
        if len(rows) == batch_size or read >= max_tokens:
            yield torch.tensor(rows)
            rows = []
        if read >= max_tokens:
            return
    if rows:
        yield torch.tensor(rows)
