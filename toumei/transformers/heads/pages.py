"""A page with the attention of all heads, from the activations of a pass."""

from collections.abc import Sequence
from typing import Any

from ...core.checks import checked
from ...core.errors import ArgumentError, LayerError
from ...plots.attention_html import AttentionPage
from ...plots.attention_html import attention_page as page_of_weights
from ..model.activation_cache import ActivationCache
from ..model.point_names import full_name

Layers = int | Sequence[int] | None


@checked
def attention_page(
    cache: ActivationCache,
    layer: Layers = None,
    *,
    tokens: Sequence[str] | Sequence[Sequence[str]] | None = None,
    title: str = "Attention",
    most_tokens: int = 128,
) -> AttentionPage:
    """Returns a page on which the attention of all heads of some layers can be looked at.

    It is `toumei.plots.attention_page`, which takes weights and tokens of any origin, for the patterns and
    the tokens of a pass. Padding is left out.

    Args:
        cache: The activations, with ``"pattern"``.
        layer: The layer or the layers; by default all whose patterns are in the cache.
        tokens: The tokens of the text, or of each text, as strings; by default those of the pass.
        title: The title of the page.
        most_tokens: The most tokens on a side; longer texts are shown in blocks of tokens.

    Raises:
        LayerError: A layer whose pattern is not in the cache.
        ArgumentError: It is not known what the tokens are: the cache was loaded.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import HookedModel
        >>> model, tokenizer, world = facts_gpt()
        >>> _, cache = HookedModel(model, tokenizer).run_with_cache(world.facts[0].text, "pattern")
        >>> attention_page(cache, 2)
        AttentionPage(4 heads of 1 layer, 1 text, 0.02 MB)
    """
    layers: Any = [layer] if isinstance(layer, int) else layer
    if layers is None:
        layers = [place for place in range(cache.layers) if full_name(("pattern", place)) in cache]
        if not layers:
            raise LayerError('the cache has no pattern: name it, run_with_cache(texts, "pattern")')
    if not layers:
        raise ArgumentError("expected one or more layers, got none")
    patterns = {str(one % cache.layers): cache["pattern", one] for one in layers}
    if not cache.batched:
        patterns = {name: one[None] for name, one in patterns.items()}
    batch, _, length, _ = next(iter(patterns.values())).shape
    mask, texts = None, cache.texts
    if texts is not None and tuple(texts.ids.shape) == (batch, length):
        mask, tokens = texts.mask, texts.tokens() if tokens is None else tokens
    if tokens is None:
        raise ArgumentError(
            "the cache does not know the tokens of its texts: give them, attention_page(cache, tokens=[...])"
        )
    return page_of_weights(patterns, tokens, mask=mask, title=title, most_tokens=most_tokens)
