"""The activations of a forward pass under the names of TransformerLens."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...core.checks import check_choice, checked
from ...core.checksums import tensors_of
from ...core.devices import as_device
from ...core.errors import ArchitectureError, ArgumentError, LayerError
from ...core.files import atomic_write
from ...core.kinds import shown
from ...core.serialization import write_safetensors
from ...core.summaries import counted, listed
from ...core.tensors import whole
from .cached_texts import CachedTexts
from .head_outputs import after_heads
from .hook_search import HookPoints
from .point_names import Key, full_name, unknown_point

Lazy = Callable[[], Tensor]


class ActivationCache(Mapping[str, Tensor]):
    """Activations by name: ``cache["blocks.5.attn.hook_pattern"]`` or ``cache["pattern", 5]``.

    Tensors are those of the pass, by reference; attention weights that the model does not keep, and what each
    head writes, are computed when they are asked for. ``hook_pos_embed`` has a first axis of length 1 where
    it is the same for all texts.

    Args:
        values: The tensors by name, or functions that compute them.
        points: The hook points of the model.
        batched: Whether the first axis is the batch.
        grads: The gradients of a metric by name.
        batch: How many texts there are; by default as many as the first axis of the first tensor has.
        texts: Their tokens, where they are known.

    Attributes:
        texts: The tokens of the texts; None for pictures and in loaded caches.
        grad: The gradients of the metric, as a cache of their own.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import HookedModel
        >>> model, tokenizer, world = facts_gpt()
        >>> logits, cache = HookedModel(model, tokenizer).run_with_cache(world.facts[0].text, ["pattern"])
        >>> list(cache)[:2], cache["pattern", -1].shape[:2]
        (['blocks.0.attn.hook_pattern', 'blocks.1.attn.hook_pattern'], torch.Size([1, 4]))
    """

    def __init__(
        self,
        values: Mapping[str, Tensor | Lazy],
        points: HookPoints | None,
        batched: bool = True,
        grads: Mapping[str, Tensor] | None = None,
        batch: int | None = None,
        texts: CachedTexts | None = None,
    ) -> None:
        self._values, self._points, self.batched = dict(values), points, batched
        self._grads, self._given_batch, self.texts = grads, batch, texts

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
        return _Gradients(self._grads, self._points, self.batched, batch=self._batch)

    @property
    def layers(self) -> int:
        """How many layers the model has; of a loaded cache, up to the last one with an activation."""
        if self._points is not None:
            return self._points.layers
        numbers = [name.split(".")[1] for name in self if name.startswith("blocks.")]
        return 1 + max(map(int, filter(str.isdigit, numbers)), default=-1)

    def __getitem__(self, key: Key) -> Tensor:
        name = self._name(key)
        if name not in self._values:
            raise LayerError(self._unknown(name))
        value = self._values[name]
        if not isinstance(value, Tensor):
            value = value()
            self._values[name] = value
        return value

    def _name(self, key: Key) -> str:
        return full_name(key, 0 if isinstance(key, str) else self.layers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str | tuple) and self._name(key) in self._values

    def __repr__(self) -> str:
        return f"ActivationCache({counted(len(self), 'activation')}: {listed(self, 3)})"

    @checked
    def remove_batch_dim(self) -> "ActivationCache":
        """Returns the activations of a batch of one text without the axis of the batch.

        Raises:
            ArgumentError: There are several texts.
        """
        if not self.batched:
            return self
        if self._batch != 1:
            raise ArgumentError(f"the batch has {self._batch} texts, not one: take one, rows(slice(0, 1))")
        return self._changed(lambda tensor: tensor[0] if self._has_rows(tensor) else tensor, batched=False)

    @checked
    def rows(self, rows: slice) -> "ActivationCache":
        """Returns the activations of some texts of the batch.

        Raises:
            ArgumentError: There is no batch, or it is no slice.
        """
        if not self.batched:
            raise ArgumentError("the cache has no axis of the batch any more")
        if not isinstance(rows, slice):
            raise ArgumentError(f"expected a slice of the texts, such as slice(0, 2), got {shown(rows)}")
        try:
            count = len(range(*rows.indices(self._batch)))
        except TypeError as error:
            raise ArgumentError(f"{rows} is no slice of whole numbers") from error
        found = self._changed(lambda tensor: tensor[rows] if self._has_rows(tensor) else tensor, batch=count)
        found.texts = None if self.texts is None else self.texts.rows(rows)
        return found

    @property
    def _batch(self) -> int:
        """How many texts there are."""
        if self._given_batch is None:
            return len(next(iter(self.values()))) if len(self) else 0
        return self._given_batch

    def _has_rows(self, tensor: Tensor) -> bool:
        """Whether the first axis is the batch, not an axis of length 1 for all texts or something else."""
        return tensor.dim() > 0 and len(tensor) == self._batch

    @checked
    def to(self, device: str | torch.device) -> "ActivationCache":
        """Returns the activations on a device.

        Raises:
            ArgumentError: There is no such device.
        """
        place = as_device(device)
        return self._changed(lambda tensor: tensor.to(place))

    @checked
    def save(self, path: str | Path) -> None:
        """Writes all activations as ``.safetensors``, whole or not at all."""
        with atomic_write(path) as partial:
            write_safetensors(
                {name: self[name].detach().contiguous() for name in self},
                partial,
                {"batched": str(self.batched), "batch": str(self._batch)},
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
                known = file.metadata() or {}
                values = tensors_of(file, copied=False)
        except (SafetensorError, OSError) as error:
            raise ArgumentError(f"{str(path)!r} cannot be read as activations: {error}") from error
        if not str(known.get("batch")).isdigit():
            raise ArgumentError(f"{str(path)!r} holds tensors, but no activations that a cache saved")
        return ActivationCache(values, None, known.get("batched") != "False", batch=int(known["batch"]))

    @checked
    def stack_activation(self, name: str) -> Tensor:
        """Returns an activation of all layers, (layers, ...), such as ``"resid_post"`` or ``"pattern"``.

        Raises:
            LayerError: A layer lacks it, or it is not in the cache.
        """
        return torch.stack([self[name, layer] for layer in range(self._known.layers)])

    @checked
    def accumulated_resid(
        self, layer: int | None = None, *, incl_mid: bool = False
    ) -> "tuple[Tensor, tuple[str, ...]]":
        """Returns the residual stream before each layer up to one, and labels.

        Args:
            layer: The layer before which it ends; by default after the last one.
            incl_mid: Also between attention and feed-forward layer.

        Returns:
            (streams, batch, position, width) and a label for each, such as ``2_pre``; the last one is
            ``final_post`` after the last layer.

        Raises:
            LayerError: A layer lacks such a stream, or it is not in the cache.
            ArgumentError: There are not so many layers.
        """
        last, layers = self._before(layer), self._known.layers
        names = []
        for number in range(min(last + 1, layers)):
            names.append((f"{number}_pre", f"blocks.{number}.hook_resid_pre"))
            if incl_mid and number < last:
                names.append((f"{number}_mid", f"blocks.{number}.hook_resid_mid"))
        if last == layers:
            names.append(("final_post", f"blocks.{last - 1}.hook_resid_post"))
        return torch.stack([self[name] for _, name in names]), tuple(label for label, _ in names)

    @checked
    def decompose_resid(
        self, layer: int | None = None, *, mode: str = "all"
    ) -> "tuple[Tensor, tuple[str, ...]]":
        """Returns what was added to the residual stream before a layer, and labels; it sums to the stream.

        Args:
            layer: The layer before which the sum ends; by default after the last one.
            mode: ``"all"``, or ``"attn"`` or ``"mlp"`` for these parts and the embeddings alone. What other
                layers add, such as those of a state space model, is there with ``"all"``, under the names of
                their modules.

        Returns:
            (parts, batch, position, width) and a label for each.

        Raises:
            ArchitectureError: The stream goes through norms, as in BERT, and is no sum of all parts.
        """
        segments, last = self._known.segments, self._before(layer)
        if len(segments) > 1:
            raise ArchitectureError(
                "the residual stream goes through a norm after each sum and is no sum of all parts: within a "
                "block, resid_mid is resid_pre and attn_out"
            )
        if segments[0].others:
            added = listed(one.name for one in segments[0].others)
            raise ArchitectureError(
                f"the residual stream has other parts than attention and feed-forward layers: {added}"
            )
        check_choice("mode", mode, ("all", "attn", "mlp"))
        parts = [("embed", "blocks.0.hook_resid_pre")]
        if "hook_pos_embed" in self and "hook_embed" in self:
            parts = [("embed", "hook_embed"), ("pos_embed", "hook_pos_embed")]
        for kind, number in segments[0].parts:
            if number < last and mode in ("all", kind):
                parts.append((f"{number}_{kind}_out", f"blocks.{number}.hook_{kind}_out"))
        tensors = torch.broadcast_tensors(*(self[name] for _, name in parts))
        return torch.stack(tensors), tuple(label for label, _ in parts)

    @checked
    def stack_head_results(
        self, layer: int | None = None, *, biases: bool = True
    ) -> "tuple[Tensor, tuple[str, ...]]":
        """Returns what each head before a layer adds to the stream, and labels.

        Where a norm stands between the heads and the stream, as in Gemma 2 and OLMo 2, its scale is kept; the
        factors of scaled residuals count.

        Args:
            layer: The layer before which it ends; by default after the last one.
            biases: With the biases of each attention output as parts of their own, so that the parts of a
                layer sum to its ``attn_out``.

        Returns:
            (heads, batch, position, width) and a label for each, such as ``L3H1``.

        Raises:
            ArchitectureError: No layer before has such heads, or something else is between them and the
                stream.
        """
        stacked, labels = list[Tensor](), list[str]()
        for number in range(self._before(layer)):
            if number in self._known.outputs:
                parts, names = self._head_parts(number, biases)
                stacked.append(parts)
                labels += names
        if not stacked:
            raise ArchitectureError(
                "no linear map takes the outputs of heads to the stream"
                + (f" before layer {layer}" if self._known.outputs else "")
            )
        return torch.cat(stacked), tuple(labels)

    def _head_parts(self, layer: int, biases: bool) -> tuple[Tensor, list[str]]:
        """What the heads of a layer, and the biases after them, add to the stream, with labels."""
        graph, linear = self._known.graph, self._known.outputs[layer]
        after = after_heads(self._known, layer)
        parts = self["result", layer].movedim(-2, 0)
        labels = [f"L{layer}H{head}" for head in range(len(parts))]
        if linear.bias is not None:
            bias = whole(graph.memory.weight(linear.bias)).detach().to(parts)
            parts = torch.cat([parts, bias.expand_as(parts[:1])])
            labels.append(f"L{layer}bias")
        parts = after(parts, parts.sum(0))
        if linear.bias is not None and not biases:
            parts, labels = parts[:-1], labels[:-1]
        if biases and after.bias is not None:
            bias = (after.bias * after.factor.to(after.bias)).to(parts)
            parts = torch.cat([parts, bias.expand_as(parts[:1])])
            labels.append(f"L{layer}norm_bias")
        return parts, labels

    def _before(self, layer: int | None) -> int:
        """The layer before which something ends; the number of layers for all of them."""
        layers = self._known.layers
        if layer is not None and not 0 <= layer <= layers:
            raise ArgumentError(f"layer is from 0 to {layers}, before which the sum ends, got {layer}")
        return layers if layer is None else layer

    @property
    def _known(self) -> HookPoints:
        if self._points is None:
            raise ArgumentError("a loaded cache knows no model: take the stream apart before it is saved")
        return self._points

    def _changed(
        self, change: Callable[[Tensor], Tensor], *, batched: bool | None = None, batch: int | None = None
    ) -> "ActivationCache":
        values: dict[str, Tensor | Lazy] = {}
        for name, value in self._values.items():
            if isinstance(value, Tensor):
                values[name] = change(value)
            else:
                values[name] = lambda name=name: change(self[name])  # type: ignore[misc]
        return ActivationCache(
            values,
            self._points,
            self.batched if batched is None else batched,
            None if self._grads is None else {name: change(one) for name, one in self._grads.items()},
            self._batch if batch is None else batch,
            self.texts,
        )

    def _unknown(self, name: str) -> str:
        if self._points is not None and name in self._points.names:
            return f"{name!r} is not in the cache, name it in run_with_cache: there is {listed(self, 6)}"
        return unknown_point(name, self._points, self)


class _Gradients(ActivationCache):
    """The gradients of a metric by name."""

    def _unknown(self, name: str) -> str:
        if name.endswith("attn.hook_result"):
            return f"there is no gradient of {name!r} apart: it is that of attn_out for each head"
        if self._points is not None and name in self._points.names:
            return (
                f"there is no gradient of {name!r}: it is not in the cache, or is computed apart from the "
                f"pass; there is {listed(self, 6)}"
            )
        return super()._unknown(name)
