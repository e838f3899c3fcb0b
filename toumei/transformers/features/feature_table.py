"""Features as one can read them: the texts that activate them, and the tokens that they make likelier."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.notebooks import escaped
from ...core.serialization import Saved
from ...core.summaries import counted, listed
from ...core.tensor_specs import specs
from ...plots.html import framed, page, save_page, token_spans
from ...plots.style import drawing
from ...plots.tokens import draw_tokens
from ..heads.vocabulary_weights import unembedding_weights
from ..model.hooked_model import HookedModel
from .dictionary import SparseAutoencoder
from .interventions import check_fits
from .token_batches import TokenBatches
from .top_texts import NO_TOKEN, TopTexts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Words = tuple[str, ...]

_DISPLAYED = 10  # features in a notebook
_STYLE = """
.feature { border-top: 1px solid var(--line); padding: 8px 0 14px; }
.text { margin: 5px 0; line-height: 1.9; font-family: ui-monospace, monospace; font-size: 13px; }
.text b { display: inline-block; width: 4.5em; font-weight: normal; opacity: 0.65; }
.chip { background: var(--chip); border-radius: 4px; padding: 1px 6px; margin-right: 4px;
  font-family: ui-monospace, monospace; font-size: 13px; }
.name { display: inline-block; width: 7em; opacity: 0.65; }
"""


@dataclass(frozen=True, repr=False, eq=False)
class FeatureTable(Saved):
    """Features with the texts that activate them most, and the tokens whose logits they change most.

    Attributes:
        features: Which features of the dictionary, (features).
        rates: In which share of the tokens each is active, (features,).
        values: The strongest activations, one of a piece of text, (features, texts); 0 where there is none.
        texts: The tokens around each of them, for each feature and text; none where there is none.
        activations: The feature's activations at these tokens, (features, texts, window); the tokens of a
            text are the first ones of its window.
        promoted: The tokens whose logits rise most, for each feature.
        promoted_logits: By how much, for an activation of 1, up to the divisor of the final norm,
            (features, k).
        suppressed: Those whose logits fall most.
        suppressed_logits: By how much, (features, k).
        reads: The name of the activation.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import HookedModel, SparseAutoencoder, show_features
        >>> model, tokenizer, world = facts_gpt()
        >>> hooked = HookedModel(model, tokenizer)
        >>> dictionary = SparseAutoencoder.of_directions(torch.eye(128), reads="blocks.2.hook_resid_post")
        >>> texts = [fact.text for fact in world.facts[:20]]
        >>> table = show_features(dictionary, hooked, texts, [3, 7], top=2)
        >>> table.features, table.values.shape
        ((3, 7), torch.Size([2, 2]))
    """

    features: tuple[int, ...]
    rates: Tensor
    values: Tensor
    texts: tuple[tuple[Words, ...], ...]
    activations: Tensor
    promoted: tuple[Words, ...]
    promoted_logits: Tensor
    suppressed: tuple[Words, ...]
    suppressed_logits: Tensor
    reads: str

    _specs = specs(
        features="features",
        rates="features",
        values="features texts",
        texts="features",
        activations="features texts window",
        promoted="features",
        promoted_logits="features k",
        suppressed="features",
        suppressed_logits="features k",
    )

    def page(self) -> str:
        """Returns a page of HTML with the texts of all features, in the colours of the activations."""
        return self._page(len(self.features))

    def _page(self, count: int) -> str:
        """The page of the first features."""
        parts = [self._section(row) for row in range(min(count, len(self.features)))]
        shown = (
            "" if len(parts) == len(self.features) else f" The first {len(parts)} of {len(self.features)}."
        )
        return page(
            f"Features of {self.reads}",
            "\n".join(parts),
            summary=f"The colour of a token is the activation of the feature at it.{shown}",
            style=_STYLE,
        )

    def _section(self, row: int) -> str:
        texts = "".join(
            f'<div class="text"><b>{value:.3g}</b>{self._spans(row, place)}</div>'
            for place, value in enumerate(self.values[row].tolist())
            if value > 0
        )
        chips = "".join(
            f'<div><span class="name">{name}</span>'
            + "".join(f'<span class="chip">{escaped(_shown(word))}</span>' for word in words[row])
            + "</div>"
            for name, words in (("promotes", self.promoted), ("suppresses", self.suppressed))
            if words[row]
        )
        return (
            f'<div class="feature"><h2>Feature {self.features[row]}</h2>'
            f"<div>active in {float(self.rates[row]):.3%} of the tokens</div>{chips}{texts}</div>"
        )

    def _spans(self, row: int, place: int) -> str:
        words = self.texts[row][place]
        return token_spans(
            [_shown(word) for word in words], self.activations[row, place, : len(words)], self._largest(row)
        )

    def _largest(self, row: int) -> float:
        """The magnitude with the full colour in all texts of a feature."""
        return float(self.activations[row].abs().max())

    @checked
    def save_page(self, path: str | Path) -> None:
        """Writes the page to a file, which needs no other file."""
        save_page(self.page(), path)

    @checked
    def plot(self, ax: "Axes | None" = None, feature: int | None = None, texts: int = 5) -> "Axes":
        """Returns axes with the strongest texts of a feature, in the colours of the activations.

        Args:
            ax: Where to draw.
            feature: Which; by default the first.
            texts: How many texts.

        Raises:
            ArgumentError: The table has no such feature, or no text activates it.
        """
        check_counts(1, texts=texts)
        feature = self.features[0] if feature is None else feature
        if feature not in self.features:
            raise ArgumentError(f"there are features {listed(self.features)}, got {feature}")
        row = self.features.index(feature)
        rows = [
            ("", [_shown(word) for word in self.texts[row][place]], self.activations[row, place])
            for place in range(min(texts, len(self.texts[row])))
            if float(self.values[row, place]) > 0
        ]
        if not rows:
            raise ArgumentError(f"no text activates feature {feature}")
        with drawing(ax, 8, 0.7 * len(rows) + 0.6) as ax:
            draw_tokens(ax, rows, self._largest(row))
            words = ", ".join(_shown(word).strip() for word in self.promoted[row][:5])
            ax.set_title(
                f"feature {feature}: promotes {words}" if words else f"feature {feature}", parse_math=False
            )
        return ax

    def __str__(self) -> str:
        lines = [repr(self)]
        for row, feature in enumerate(self.features):
            peaks = [
                words[int(self.activations[row, place, : len(words)].argmax())].strip()
                for place, words in enumerate(self.texts[row])
                if words
            ]
            promoted = " ".join(_shown(word).strip() for word in self.promoted[row][:6])
            where = f"at {' '.join(peaks[:6])[:70]}" if peaks else "never active"
            lines.append(f"{feature:>7}  {float(self.rates[row]):8.3%}  {where:73}  promotes {promoted[:80]}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"FeatureTable({counted(len(self.features), 'feature')} of {self.reads}: {listed(self.features)})"
        )

    def _repr_html_(self) -> str:
        return framed(self._page(_DISPLAYED))


@checked
@torch.no_grad()
def show_features(
    dictionary: SparseAutoencoder,
    model: HookedModel,
    corpus: object,
    features: Sequence[int] | None = None,
    *,
    top: int = 8,
    tokens: int = 8,
    before: int = 12,
    after: int = 5,
    length: int = 128,
    batch_size: int = 8,
    skip_first: int = 1,
    max_tokens: int | None = None,
) -> FeatureTable:
    """Returns features with the texts that activate them most, from one pass over a corpus.

    Memory does not grow with the corpus.

    Args:
        dictionary: The dictionary.
        model: The model, with its tokenizer.
        corpus: Texts, as for `ActivationSource`.
        features: Which features; by default all.
        top: How many texts of each feature.
        tokens: How many tokens with the largest, and with the smallest, direct logits.
        before: How many tokens before the strongest one are shown.
        after: How many after it.
        length: The most tokens that are read together.
        batch_size: Pieces in a forward pass.
        skip_first: How many tokens at the beginning of each piece are left out.
        max_tokens: How many tokens to read at most.

    Raises:
        ArgumentError: The dictionary does not fit the model, or has no such feature; the corpus is empty.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import HookedModel, SparseAutoencoder
        >>> model, tokenizer, world = facts_gpt()
        >>> hooked = HookedModel(model, tokenizer)
        >>> dictionary = SparseAutoencoder.of_directions(torch.eye(128), reads="blocks.2.hook_resid_post")
        >>> texts = [fact.text for fact in world.facts[:20]]
        >>> show_features(dictionary, hooked, texts, [3, 7], top=2)
        FeatureTable(2 features of blocks.2.hook_resid_post: 3, 7)
    """
    check_counts(1, top=top)
    check_counts(0, tokens=tokens, before=before, after=after)
    check_fits(dictionary, model)
    chosen = list(range(dictionary.features)) if features is None else list(features)
    dictionary.check_features(chosen)
    batches = TokenBatches(
        model, corpus, length=length, batch_size=batch_size, skip_first=skip_first, max_tokens=max_tokens
    )
    found = TopTexts(len(chosen), top, before, after)
    with evaluating(model.model):
        for batch in batches:
            read = model.activations(batch.inputs, [dictionary.reads])[dictionary.reads].flatten(2)
            active = dictionary.encode(read)[..., chosen].float().cpu()
            found.add(active * batch.counted[..., None], batch)
    promoted, suppressed = _extremes(dictionary, model, chosen, tokens)
    texts, activations = _texts(model, found)
    return FeatureTable(
        features=tuple(chosen),
        rates=(found.counts / found.seen).float(),
        values=found.values,
        texts=texts,
        activations=activations,
        promoted=promoted[0],
        promoted_logits=promoted[1],
        suppressed=suppressed[0],
        suppressed_logits=suppressed[1],
        reads=dictionary.reads,
    )


@checked
@torch.no_grad()
def direct_logits(dictionary: SparseAutoencoder, model: HookedModel, features: Sequence[int]) -> Tensor:
    """Returns what features add to the logits without any layer between, (features, tokens).

    The directions go through the gain of the final norm and the unembedding; the divisor of the norm, which
    depends on the text, is left out, and so is what is the same for all tokens.

    Args:
        dictionary: A dictionary of the residual stream, or of what writes into it.
        model: The model.
        features: Which features.

    Raises:
        ArgumentError: There is no such feature, or it does not write into the residual stream.
        ArchitectureError: The model has no logits of tokens.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import HookedModel, SparseAutoencoder
        >>> model, tokenizer, world = facts_gpt()
        >>> hooked = HookedModel(model, tokenizer)
        >>> dictionary = SparseAutoencoder.of_directions(torch.eye(128), reads="blocks.2.hook_resid_post")
        >>> direct_logits(dictionary, hooked, [3, 7]).shape
        torch.Size([2, 443])
    """
    chosen = list(features)
    dictionary.check_features(chosen)
    if dictionary.output_width != model.width:
        raise ArgumentError(
            f"{dictionary!r} does not write into the residual stream, whose width is {model.width}"
        )
    weights = unembedding_weights(model, fold_norm=True)
    logits = dictionary.W_dec[chosen].to(weights) @ weights
    return (logits - logits.mean(1, keepdim=True)).cpu()


def _extremes(
    dictionary: SparseAutoencoder, model: HookedModel, features: list[int], count: int
) -> tuple[tuple[tuple[Words, ...], Tensor], tuple[tuple[Words, ...], Tensor]]:
    """The tokens with the largest and with the smallest direct logits; none for heads and hidden neurons."""
    if not count or dictionary.output_width != model.width:
        nothing = tuple(() for _ in features), torch.zeros(len(features), 0)
        return nothing, nothing
    sides: list[list[Tensor]] = [[], []]
    for start in range(0, len(features), 256):
        logits = direct_logits(dictionary, model, features[start : start + 256])
        count = min(count, logits.shape[1])
        for side, largest in zip(sides, (True, False), strict=True):
            best = logits.topk(count, dim=1, largest=largest)
            side.append(torch.stack([best.values, best.indices.to(best.values)]))
    joined = [torch.cat(side, 1) for side in sides]
    words = [tuple(tuple(_words(model, row)) for row in ids.long().tolist()) for _, ids in joined]
    return (words[0], joined[0][0]), (words[1], joined[1][0])


def _texts(model: HookedModel, found: TopTexts) -> tuple[tuple[tuple[Words, ...], ...], Tensor]:
    """The words of each window, and its activations moved to the front of the window."""
    texts, activations = [], torch.zeros_like(found.activations)
    for row, windows in enumerate(found.tokens.tolist()):
        words = []
        for place, window in enumerate(windows):
            shown = bool(found.values[row, place])  # a text where the feature is not active says nothing
            there = [at for at, token in enumerate(window) if shown and token != NO_TOKEN]
            words.append(tuple(_words(model, [window[at] for at in there])))
            activations[row, place, : len(there)] = found.activations[row, place, there]
        texts.append(tuple(words))
    return tuple(texts), activations


def _words(model: HookedModel, ids: Sequence[int]) -> list[str]:
    if model.tokenizer is None:
        return [str(index) for index in ids]
    return [model.tokenizer.decode([index]) for index in ids]


def _shown(word: str) -> str:
    """A token with signs for what cannot be seen."""
    return word.replace("\n", "\\n").replace("\t", "\\t") or "_"
