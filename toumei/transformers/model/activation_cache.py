"""The activations of a forward pass under the names of TransformerLens."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArchitectureError, ArgumentError, LayerError
from ...core.files import atomic_write
from ...core.serialization import write_safetensors
from ...core.summaries import listed
from ...instrument.search.patterns import source
from .hook_search import HookPoints

Key = str | tuple[str, int] | tuple[str, int, str]
Lazy = Callable[[], Tensor]


class ActivationCache(Mapping[str, Tensor]):
    """Activations by name: ``cache["blocks.5.attn.hook_pattern"]`` or ``cache["pattern", 5]``.

    Tensors are those of the pass, by reference; attention weights that the model does not keep are computed
    when they are asked for.

    Args:
        values: The tensors by name, or functions that compute them.
        points: The hook points of the model.
        batched: Whether the first axis is the batch.
        grads: The gradients of a metric by name.

    Attributes:
        grad: The gradients of the metric, as a cache of their own.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor | Lazy],
        points: HookPoints | None,
        batched: bool = True,
        grads: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._values, self._points, self.batched = dict(values), points, batched
        self._grads = grads

    @property
    def grad(self) -> "ActivationCache":
        """The gradients.

        Raises:
            ArgumentError: There is no metric.
        """
        if self._grads is None:
            raise ArgumentError(
                "there are no gradients: give run_with_cache(..., metric=function) of the logits"
            )
        return ActivationCache(self._grads, self._points, self.batched)

    def __getitem__(self, key: Key) -> Tensor:
        name = full_name(key)
        if name not in self._values:
            raise LayerError(self._unknown(name))
        value = self._values[name]
        if not isinstance(value, Tensor):
            value = value()
            self._values[name] = value
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return full_name(key) in self._values  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"ActivationCache({len(self)} activations: {listed(self, 3)})"

    @checked
    def remove_batch_dim(self) -> "ActivationCache":
        """Returns the activations of a batch of one text without the axis of the batch.

        Raises:
            ArgumentError: There are several texts.
        """
        if self.batched and len(self) and len(next(iter(self.values()))) != 1:
            raise ArgumentError(f"the batch has {len(next(iter(self.values())))} texts, not one")
        return self._changed(lambda tensor: tensor[0] if self.batched else tensor, batched=False)

    @checked
    def rows(self, rows: slice) -> "ActivationCache":
        """Returns the activations of some texts of the batch.

        Raises:
            ArgumentError: There is no batch.
        """
        if not self.batched:
            raise ArgumentError("the cache has no axis of the batch any more")
        return self._changed(lambda tensor: tensor[rows])

    @checked
    def to(self, device: str | torch.device) -> "ActivationCache":
        """Returns the activations on a device."""
        return self._changed(lambda tensor: tensor.to(device))

    @checked
    def save(self, path: str | Path) -> None:
        """Writes all activations as ``.safetensors``, whole or not at all."""
        with atomic_write(path) as partial:
            write_safetensors(
                {name: self[name].detach() for name in self}, partial, {"batched": str(self.batched)}
            )

    @staticmethod
    @checked
    def load(path: str | Path) -> "ActivationCache":
        """Returns saved activations; what takes the streams apart needs the model and is not there.

        Raises:
            ArgumentError: The file is damaged or is something else.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                batched = (file.metadata() or {}).get("batched") != "False"
                names = list(file.keys())
                return ActivationCache({name: file.get_tensor(name) for name in names}, None, batched)
        except (SafetensorError, OSError) as error:
            raise ArgumentError(f"{str(path)!r} cannot be read as activations: {error}") from error

    @checked
    def stack_activation(self, name: str) -> Tensor:
        """Returns an activation of all layers, (layers, ...), such as ``"resid_post"`` or ``"pattern"``."""
        return torch.stack([self[name, layer] for layer in range(self._layers)])

    @checked
    def accumulated_resid(
        self, layer: int | None = None, *, incl_mid: bool = False
    ) -> "tuple[Tensor, tuple[str, ...]]":
        """Returns the residual stream before each layer up to one, and labels.

        Args:
            layer: The layer before which it ends; by default after the last one.
            incl_mid: Also between attention and feed-forward layer.

        Returns:
            (streams, batch, position, width) and a label for each.
        """
        last = self._layers if layer is None else layer
        names = []
        for number in range(last + (layer is not None)):
            names.append((f"{number}_pre", f"blocks.{number}.hook_resid_pre"))
            if incl_mid and number < last:
                names.append((f"{number}_mid", f"blocks.{number}.hook_resid_mid"))
        if layer is None:
            names.append(("final_post", f"blocks.{last - 1}.hook_resid_post"))
        return torch.stack([self[name] for _, name in names]), tuple(label for label, _ in names)

    @checked
    def decompose_resid(
        self, layer: int | None = None, *, mode: str = "all"
    ) -> "tuple[Tensor, tuple[str, ...]]":
        """Returns what was added to the residual stream before a layer, and labels; it sums to the stream.

        Args:
            layer: The layer before which the sum ends; by default after the last one.
            mode: ``"all"``, or ``"attn"`` or ``"mlp"`` for these parts and the embeddings alone.

        Returns:
            (parts, batch, position, width) and a label for each.

        Raises:
            ArchitectureError: The stream goes through norms, as in BERT, and is no sum of all parts.
        """
        segments = self._known.segments
        if len(segments) > 1:
            raise ArchitectureError(
                "the residual stream goes through a norm after each sum and is no sum of all parts: within a "
                "block, resid_mid is resid_pre and attn_out"
            )
        kinds = {"all": ("attn", "mlp"), "attn": ("attn",), "mlp": ("mlp",)}
        if mode not in kinds:
            raise ArgumentError(f"mode is one of {', '.join(kinds)}, got {mode!r}")
        parts = [("embed", "blocks.0.hook_resid_pre")]
        if "hook_pos_embed" in self and "hook_embed" in self:
            parts = [("embed", "hook_embed"), ("pos_embed", "hook_pos_embed")]
        last = self._layers if layer is None else layer
        for kind, number in segments[0].parts:
            if number < last and kind in kinds[mode]:
                parts.append((f"{number}_{kind}_out", f"blocks.{number}.hook_{kind}_out"))
        tensors = torch.broadcast_tensors(*(self[name] for _, name in parts))
        return torch.stack(tensors), tuple(label for label, _ in parts)

    @checked
    def stack_head_results(
        self, layer: int | None = None, *, biases: bool = True
    ) -> "tuple[Tensor, tuple[str, ...]]":
        """Returns what each head before a layer adds to the stream, and labels.

        Args:
            layer: The layer before which it ends; by default after the last one.
            biases: With the bias of each attention output as a part of its own, so that a layer's parts sum
                to its ``attn_out``.

        Returns:
            (heads, batch, position, width) and a label for each, such as ``L3H1``.

        Raises:
            ArchitectureError: Something is between the heads and the stream, such as a norm of its own.
        """
        stacked, labels = [], []
        graph = self._known.graph
        for number in range(self._layers if layer is None else layer):
            added = self._known.segments[0].parts.get(("attn", number))
            written = self._known.outputs[number].output
            if added is not None and source(graph, added) is not source(graph, written):
                raise ArchitectureError(
                    f"between the heads of layer {number} and the stream there is more than a linear map, a "
                    f"norm or a scale: {added.name!r} is added, not {written.name!r}"
                )
            result = self["result", number]
            stacked += list(result.unbind(-2))
            labels += [f"L{number}H{head}" for head in range(result.shape[-2])]
            bias = self._known.outputs[number].bias
            if biases and bias is not None:
                value = graph.memory.model.get_parameter(bias.name)
                stacked.append(value.detach().expand_as(stacked[-1]))
                labels.append(f"L{number}bias")
        return torch.stack(stacked), tuple(labels)

    @cached_property
    def _layers(self) -> int:
        return self._known.layers

    @property
    def _known(self) -> HookPoints:
        if self._points is None:
            raise ArgumentError("a loaded cache knows no model: take the stream apart before it is saved")
        return self._points

    def _changed(self, change: Callable[[Tensor], Tensor], batched: bool | None = None) -> "ActivationCache":
        batched = self.batched if batched is None else batched
        grads = None
        if self._grads is not None:
            grads = {name: change(one) for name, one in self._grads.items()}
        values: dict[str, Tensor | Lazy] = {}
        for name, value in self._values.items():
            if isinstance(value, Tensor):
                values[name] = change(value)
            else:
                values[name] = lambda name=name: change(self[name])  # type: ignore[misc]
        return ActivationCache(values, self._points, batched, grads)

    def _unknown(self, name: str) -> str:
        if self._points is not None and name in self._points.points:
            return f"{name!r} is not in the cache, name it in run_with_cache: there is {listed(self, 6)}"
        return unknown_point(name, self._points, self)


def full_name(key: Key) -> str:
    """Returns the name of a hook point for a short form, ``("pattern", 5)`` or ``("resid_pre", 0)``.

    Example:
        >>> full_name(("q", 3)), full_name(("post", 0, "mlp")), full_name("hook_embed")
        ('blocks.3.attn.hook_q', 'blocks.0.mlp.hook_post', 'hook_embed')
    """
    if isinstance(key, str):
        return {"embed": "hook_embed", "pos_embed": "hook_pos_embed"}.get(key, key)
    if not isinstance(key, tuple) or not 2 <= len(key) <= 3:
        raise ArgumentError(f"expected the name of an activation, or a short name and a layer, got {key!r}")
    name, layer = key[0].removeprefix("hook_"), key[1]
    if name in _ATTENTION:
        return f"blocks.{layer}.attn.hook_{_ATTENTION[name]}"
    if name in _MLP or (len(key) > 2 and key[2] == "mlp"):
        return f"blocks.{layer}.mlp.hook_{_MLP.get(name, name)}"
    return f"blocks.{layer}.hook_{name}"


_ATTENTION = {
    name: name for name in ("q", "k", "v", "z", "pattern", "attn_scores", "result", "rot_q", "rot_k")
}
_ATTENTION |= {"attn": "pattern", "scores": "attn_scores"}
_MLP = {"pre": "pre", "post": "post", "pre_linear": "pre_linear", "mlp_pre": "pre", "mlp_post": "post"}


def unknown_point(name: str, points: HookPoints | None, others: Iterable[str] = ()) -> str:
    """Returns why there is no point of a name, and what there is."""
    known = [*([] if points is None else points.points), *others]
    if points is not None and name in points.missing:
        return f"this model has no {name!r}: {points.missing[name]}"
    near = get_close_matches(str(name), known, n=6, cutoff=0.6)
    hint = f"did you mean {', '.join(near)}?" if near else f"there is {', '.join(known[:6])}, ..."
    return f"there is no activation {name!r}: {hint}"
