"""The panels of each type of plot: what is read from a pass, and how it is shown."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..core.errors import ArgumentError, LayerError
from ..transformers.heads.score_table import HeadScores
from ..transformers.heads.scores import head_scores, repeated_tokens
from ..transformers.model.activation_cache import ActivationCache
from ..transformers.model.hooked_model import HookedModel
from .plot_specs import Panel, PlotSpec

_FEWEST = 4  # tokens that are repeated


@dataclass(frozen=True)
class View:
    """A model, and the text that it is looked at on.

    Attributes:
        model: The model.
        ids: The tokens of all texts (batch, positions).
        spec: What is drawn.
    """

    model: HookedModel
    ids: Any
    spec: PlotSpec

    def cache(self, names: Sequence[Any]) -> ActivationCache:
        """Returns activations of all texts."""
        with torch.no_grad():
            return self.model.run_with_cache(self.ids, list(names))[1]

    def of_text(self, name: Any) -> Tensor:
        """Returns one activation of the text that is drawn.

        Raises:
            ArgumentError: There is no such text.
        """
        values = self.cache([name])[name]
        if not 0 <= self.spec.text < len(values):
            raise ArgumentError(f"text is from 0 to {len(values) - 1}, got {self.spec.text}")
        return values[self.spec.text]

    def tokens(self, count: int) -> tuple[str, ...]:
        """Returns the tokens of the text, or numbers of positions where there is no tokenizer."""
        if self.model.tokenizer is None or not isinstance(self.ids, Tensor) or self.ids.is_floating_point():
            return tuple(map(str, range(count)))
        return tuple(self.model.to_str_tokens(self.ids[self.spec.text]))[:count]

    @property
    def layers(self) -> list[int]:
        """The layers with attention."""
        return sorted(self.model.points.attentions)


def panels_of(model: HookedModel, given: Any, spec: PlotSpec) -> list[Panel]:
    """Returns the panels of a plot.

    Args:
        model: The model.
        given: Texts or tokens.
        spec: What to draw.

    Raises:
        ArgumentError: There is no such text, or the plot needs a layer.
        LayerError: The model has no such layer or activation.
    """
    ids = model.to_tokens(given)
    keys: Any = spec.data_keys if spec.plot_type in _OF_KEYS else ()
    specs = [replace(spec, data_keys=(key,)) for key in keys] or [spec]
    return [panel for one in specs for panel in _PANELS[spec.plot_type](View(model, ids, one))]


def _by_head(view: View, name: str, label: str, limits: tuple[float, float] | None) -> list[Panel]:
    layer = view.spec.layer(view.model.layers)
    weights = view.of_text((name, layer))
    tokens = view.tokens(weights.shape[-1])
    return [
        Panel(
            kind="heat",
            values=head,
            rows=tokens,
            columns=tokens,
            title=f"head {layer}.{number}",
            axes=("key", "query"),
            label=label,
            limits=limits,
        )
        for number, head in enumerate(weights)
    ]


def _attention(view: View) -> list[Panel]:
    return _by_head(view, "pattern", "attention", (0.0, 1.0))


def _products(view: View) -> list[Panel]:
    return _by_head(view, "attn_scores", "query times key", None)


def _scores(view: View, ids: Any, repeated: bool) -> HeadScores:
    patterns = View(view.model, ids, view.spec).cache([("pattern", layer) for layer in view.layers])
    attentions = {str(layer): patterns["pattern", layer].cpu() for layer in view.layers}
    return head_scores(attentions, ids.cpu() if repeated else None)


def _heat_of_heads(scores: HeadScores, name: Any, title: str, limits: tuple[float, float] | None) -> Panel:
    values = scores[name]
    heads = tuple(map(str, range(values.shape[1])))
    return Panel("heat", values, scores.layer_names, heads, title, ("head", "layer"), name, limits)


def _statistics(view: View) -> list[Panel]:
    scores = _scores(view, view.ids, repeated=False)
    return [
        _heat_of_heads(scores, "entropy", "entropy (nats)", None),
        _heat_of_heads(scores, "distance", "tokens to what is attended to", None),
        _heat_of_heads(scores, "first", "weight on the first token", (0.0, 1.0)),
    ]


def _induction(view: View) -> list[Panel]:
    """Scores on random tokens that are repeated, as long as the text, so that positions suffice."""
    with torch.no_grad():
        words = view.model(view.ids).shape[-1]
    length = max(_FEWEST, view.ids.shape[1] // 2)
    scores = _scores(view, repeated_tokens(8, length, 0, words).to(view.ids.device), repeated=True)
    titles = {"induction": "to what came after the same token", "previous": "to the token before"}
    return [_heat_of_heads(scores, name, title, (0.0, 1.0)) for name, title in titles.items()]


def _neurons(view: View) -> tuple[Tensor, Tensor, str]:
    """The strongest neurons, their activations (neurons, positions), and where they are."""
    key: Any = view.spec.data_keys[0] if view.spec.data_keys else None  # type: ignore[index]
    try:
        if key is None or isinstance(key, int):
            raise LayerError("a layer")
        values = view.of_text(key)
    except LayerError:
        layer = view.spec.layer(view.model.layers)
        if not isinstance(key, int) and not re.fullmatch(r"(.*\.)?\d+", str(key)):
            raise
        key = f"blocks.{layer}.mlp.hook_post"
        values = view.of_text(key)
    values = values.flatten(1).float()
    strongest = values.abs().mean(0).topk(min(view.spec.count, values.shape[1])).indices
    return strongest, values[:, strongest].T, str(key)


def _activations(view: View) -> list[Panel]:
    neurons, values, place = _neurons(view)
    rows = tuple(str(neuron) for neuron in neurons.tolist())
    return [Panel("spread", values, rows, title=place, axes=("neuron", "activation"))]


def _trajectories(view: View) -> list[Panel]:
    neurons, values, place = _neurons(view)
    rows = tuple(f"neuron {neuron}" for neuron in neurons.tolist())
    return [Panel("lines", values, rows, view.tokens(values.shape[1]), place, ("token", "activation"))]


def _stream(view: View) -> list[Panel]:
    parts = {"resid_post": "stream", "attn_out": "attention adds", "mlp_out": "MLP adds"}
    names = {title: f"blocks.{{}}.hook_{part}" for part, title in parts.items()}
    return [_of_layers(view, names, "norm of the residual stream", "norm, mean of tokens")]


def _norms(view: View) -> list[Panel]:
    parts = {"ln1": "before attention", "ln2": "before the MLP"}
    names = {title: f"blocks.{{}}.{part}.hook_scale" for part, title in parts.items()}
    return [_of_layers(view, names, "what the norms divide by", "scale, mean of tokens")]


def _of_layers(view: View, names: dict[str, str], title: str, label: str) -> Panel:
    """A line for each activation that the model has: the mean length of its vectors, by layer."""
    layers = range(view.model.layers)
    known = set(view.model.points.names)
    there = {row: [(layer, name.format(layer)) for layer in layers] for row, name in names.items()}
    there = {row: [pair for pair in pairs if pair[1] in known] for row, pairs in there.items()}
    there = {row: pairs for row, pairs in there.items() if pairs}
    if not there:
        raise LayerError(f"this model has none of {', '.join(name.format(0) for name in names.values())}")
    cache = view.cache([name for pairs in there.values() for _, name in pairs])
    lines = torch.full((len(there), len(layers)), torch.nan)
    for line, pairs in zip(lines, there.values(), strict=True):
        for layer, name in pairs:
            line[layer] = cache[name][view.spec.text].float().norm(dim=-1).mean()
    return Panel("lines", lines, tuple(there), tuple(map(str, layers)), title, ("layer", label))


_OF_KEYS = {"attention", "qk_dot_product", "neuron_activation", "neuron_activation_trajectories"}
_PANELS: dict[str, Callable[[View], list[Panel]]] = {
    "attention": _attention,
    "neuron_activation": _activations,
    "attention_stats": _statistics,
    "induction_heads": _induction,
    "neuron_activation_trajectories": _trajectories,
    "qk_dot_product": _products,
    "residual_stream": _stream,
    "layer_norms": _norms,
}
