"""How well a lens predicts, layer by layer, on texts that it was not trained on."""

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.progress import tqdm
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import specs
from ...plots import style
from ...plots.style import drawing
from ..model.corpus import TokenChunks
from ..model.families import Anatomy
from .read_out import ReadOut, Translate, divergence, streams_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False, eq=False)
class LensEvaluation(Saved):
    """The losses of a tuned lens and of the logit lens at each layer; the last row is the model itself.

    Attributes:
        layers: ``"embedding"``, then the layers.
        cross_entropies: Of the next token, in nats, (layers, 2): tuned lens, logit lens.
        divergences: KL(model || lens) in nats, (layers, 2).
        tokens: How many tokens were predicted.
        bytes_per_token: How many bytes of text a token has on average.

    Example:
        >>> bits = torch.tensor([[3.0, 5.0], [2.0, 2.0]])
        >>> found = LensEvaluation(("0", "1"), bits, bits - 2, tokens=100, bytes_per_token=4.0)
        >>> found.layers, found.bits_per_byte.shape
        (('0', '1'), torch.Size([2, 2]))
    """

    layers: tuple[str, ...]
    cross_entropies: Tensor
    divergences: Tensor
    tokens: int
    bytes_per_token: float

    _specs = specs(layers="layers", cross_entropies="layers 2", divergences="layers 2")

    @property
    def bits_per_byte(self) -> Tensor:
        """The cross-entropies in bits for each byte of text, (layers, 2)."""
        return self.cross_entropies / log(2) / self.bytes_per_token

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the bits per byte of both lenses over the layers."""
        with drawing(ax, 5, 3.2) as ax:
            places = range(len(self.layers))
            for column, (name, color) in enumerate(
                (("tuned lens", style.BLUE), ("logit lens", style.ORANGE))
            ):
                ax.plot(
                    places, self.bits_per_byte[:, column], marker="o", markersize=4, color=color, label=name
                )
            ax.axhline(
                float(self.bits_per_byte[-1, 0]), color=style.GRAY, linestyle="--", linewidth=1, label="model"
            )
            step = -(-len(self.layers) // 12)
            ax.set_xticks(places[::step], self.layers[::step])
            ax.set_ylim(bottom=0)
            ax.set_xlabel("read out after layer")
            ax.set_ylabel("bits per byte")
            ax.set_title("The next token read from each layer")
            ax.legend()
        return ax

    def __str__(self) -> str:
        lines = [repr(self), f"{'layer':>10}  bits per byte: tuned  logit   KL: tuned  logit"]
        for layer, bits, far in zip(
            self.layers, self.bits_per_byte.tolist(), self.divergences.tolist(), strict=True
        ):
            lines.append(f"{layer:>10}  {bits[0]:20.3f} {bits[1]:6.3f}  {far[0]:10.3f} {far[1]:6.3f}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        tuned, plain = self.bits_per_byte[:-1].mean(0).tolist()
        return (
            f"LensEvaluation({counted(len(self.layers), 'layer')}, {counted(self.tokens, 'token')}: bits per "
            f"byte on average tuned {tuned:.3f}, logit lens {plain:.3f}, model "
            f"{float(self.bits_per_byte[-1, 0]):.3f})"
        )


@torch.no_grad()
def evaluate_lens(
    parts: Anatomy,
    corpus: TokenChunks,
    translate: Translate,
    *,
    batch_size: int,
    max_tokens: int,
    verbose: bool,
) -> LensEvaluation:
    """Returns the losses of a lens and of the logit lens; see `TunedLens.evaluate`."""
    totals, seen, read = torch.zeros(0), 0, 0
    with evaluating(parts.model), tqdm(total=max_tokens, desc="lenses", disable=not verbose) as progress:
        read_out = ReadOut(parts)
        layers: tuple[str, ...] = ()
        for ids in _batches(corpus, batch_size, parts):
            streams = streams_of(parts, ids, embedding=True)
            layers = tuple(streams)
            sums = _losses(read_out, streams, ids, translate)
            totals = sums if not len(totals) else totals + sums
            seen += ids.numel() - len(ids)
            progress.update(ids.numel())
            read += ids.numel()
            if read >= max_tokens:
                break
    if not seen:
        raise ArgumentError(
            f"the texts have {counted(corpus.tokens, 'token', form=',')}, which fill no chunk: give more "
            "texts"
        )
    return LensEvaluation(
        layers=layers,
        cross_entropies=totals[0] / seen,
        divergences=totals[1] / seen,
        tokens=seen,
        bytes_per_token=corpus.bytes / corpus.tokens,
    )


def _batches(corpus: TokenChunks, batch_size: int, parts: Anatomy) -> Any:
    rows: list[Any] = []
    for chunk in corpus:
        rows.append(chunk)
        if len(rows) == batch_size:
            yield torch.tensor(rows, device=parts.device)
            rows = []
    if rows:
        yield torch.tensor(rows, device=parts.device)


def _losses(read_out: ReadOut, streams: dict[str, Tensor], ids: Tensor, translate: Translate) -> Tensor:
    """The sums of cross-entropies and of divergences, (2, layers, 2), of tokens that have a next one."""
    flat = {layer: stream[:, :-1].reshape(-1, stream.shape[-1]) for layer, stream in streams.items()}
    *_, last = flat.values()
    following = ids[:, 1:].reshape(-1, 1).to(last.device)
    sums = torch.zeros(2, len(flat), 2, dtype=torch.float64)
    for start in range(0, len(last), read_out.at_once):
        chunk = slice(start, start + read_out.at_once)
        final = read_out(last[chunk])
        for row, (layer, vectors) in enumerate(flat.items()):
            for column, given in enumerate((translate(layer, vectors[chunk]), vectors[chunk])):
                predicted = final if vectors is last else read_out(given)
                sums[0, row, column] -= predicted.gather(1, following[chunk]).double().sum().cpu()
                sums[1, row, column] += divergence(final, predicted).double().sum().cpu()
    return sums
