"""All attention heads on one page: thumbnails, one head enlarged, and the text."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import Tensor

from ..core.checks import check_counts, checked
from ..core.errors import ArgumentError
from ..core.summaries import counted
from .attention_data import Layers, Tokens, listed_tokens, named_layers, real_places, text_data, text_name
from .html import framed, page, save_page

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, repr=False)
class AttentionPage:
    """A page of HTML that shows attention weights; a notebook shows it in a frame.

    Attributes:
        html: The whole page, which needs no other file and no network.
        layers: How many layers it shows.
        heads: How many heads all of them have.
        texts: How many texts.
        height: Pixels that it takes in a notebook; it scrolls where it needs more.

    Example:
        >>> import torch
        >>> from toumei.plots import attention_page
        >>> page = attention_page([torch.eye(3).expand(1, 2, 3, 3)], [["the", "cat", "sat"]])
        >>> isinstance(page, AttentionPage)
        True
    """

    html: str
    layers: int
    heads: int
    texts: int
    height: int

    @checked
    def save(self, path: str | Path) -> None:
        """Writes the page as a file, whole or not at all.

        Args:
            path: The file.
        """
        save_page(self.html, path)

    def __repr__(self) -> str:
        size = len(self.html) / 1e6
        return (
            f"AttentionPage({counted(self.heads, 'head')} of {counted(self.layers, 'layer')}, "
            f"{counted(self.texts, 'text')}, {size:.2f} MB)"
        )

    def _repr_html_(self) -> str:
        return framed(self.html, self.height)


@checked
def attention_page(
    attentions: Layers,
    tokens: Tokens,
    *,
    keys: Tokens | None = None,
    mask: Tensor | None = None,
    key_mask: Tensor | None = None,
    title: str = "Attention",
    head: tuple[int, int] = (0, 0),
    most_tokens: int = 128,
) -> AttentionPage:
    """Returns a page on which all heads can be looked at.

    Thumbnails show the weights of all heads, a row for each layer; the pointer on one shows that head, a
    click keeps it. The pointer on a token shows what it attends to and what attends to it, a click keeps it.

    A text of more than `most_tokens` tokens is shown in blocks of as few tokens as are needed. The weight
    between two blocks is the mean over the queries and the sum over the keys, so that rows keep their sums;
    the page says so. To see a passage token by token, give its part of the weights and of the tokens. Weights
    are stored as bytes, with an error of at most 0.004.

    Args:
        attentions: Of each layer (batch, heads, query, key), after the softmax: a tensor of all layers, a
            sequence such as the ``attentions`` of Hugging Face, or by the names of the layers. Any mask will
            do, and any weights from 0 to 1, such as those of attention rollout.
        tokens: The tokens of the text, or of each text of the batch, as strings; those of the queries in
            cross-attention.
        keys: The tokens of the keys in cross-attention; None for self-attention.
        mask: (batch, query), 1 for tokens and 0 for padding, which is left out; None without padding.
        key_mask: The same for the keys in cross-attention.
        title: The title of the page.
        head: Layer and head that are enlarged at first, as places from 0 on.
        most_tokens: The most tokens on a side.

    Raises:
        ArgumentError: A weight is below 0 or above 1, or there is no such head.
        NonFiniteError: A weight is not finite.
        ShapeError: Layers have other shapes, or there are other numbers of texts or tokens.

    Example:
        >>> import torch
        >>> weights = torch.eye(3).expand(2, 1, 4, 3, 3)  # two layers, one text, four heads
        >>> attention_page(weights, ["The", " cat", " sat"])
        AttentionPage(8 heads of 2 layers, 1 text, 0.02 MB)
    """
    check_counts(2, most_tokens=most_tokens)
    layers = named_layers(attentions)
    batch, _, length, key_length = next(iter(layers.values())).shape
    heads = [weights.shape[1] for weights in layers.values()]
    if not (0 <= head[0] < len(heads) and 0 <= head[1] < heads[head[0]]):
        raise ArgumentError(f"there is no head {head[1]} in layer {head[0]}: the layers have {heads} heads")
    queries = listed_tokens(tokens, mask, batch, length, "tokens")
    rows = columns = real_places(mask, batch, length, "tokens")
    others = None
    if keys is not None:
        others = listed_tokens(keys, key_mask, batch, key_length, "keys")
        columns = real_places(key_mask, batch, key_length, "keys")
    elif length != key_length:
        raise ArgumentError(
            f"queries and keys are different tokens, {length} and {key_length}: give the keys, too"
        )
    texts = []
    for index, text in enumerate(queries):
        of_text = [layer[index][:, rows[index]][:, :, columns[index]] for layer in layers.values()]
        found = text_data(of_text, text, None if others is None else others[index], most_tokens)
        texts.append({"name": text_name(index, text), **found})
    shown = [{"name": name, "heads": count} for name, count in zip(layers, heads, strict=True)]
    html = page(
        title,
        _file("attention.html"),
        style=_file("attention.css"),
        script=_file("attention.js"),
        data={"layers": shown, "head": head, "texts": texts},
    )
    longest = max(len(side) for text in texts for side in (text["queries"], text["keys"] or ()))
    height = 230 + max(240, 40 * len(layers), 90 + 22 * longest)
    return AttentionPage(html, len(layers), sum(heads), batch, min(height, 780))


@cache
def _file(name: str) -> str:
    return _FOLDER.joinpath(name).read_text(encoding="utf-8")
