"""Any Hugging Face transformer under the names of TransformerLens: read, write and generate with hooks."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ...core.activations import Activations
from ...core.checks import checked
from ...core.errors import ArchitectureError, ArgumentError, LayerError, ToumeiError
from ...core.hooks import hooked
from ...core.modules import check_model, evaluating, frozen, without_wrapper, wrapped_forward
from ...core.outputs import main_tensor
from ...core.targets import CallEdit, Edit, resolve
from ...instrument import instrument
from .activation_cache import ActivationCache, Key, Lazy, full_name, unknown_point
from .hook_points import ComputedPoint, HookPoint, Point
from .hook_search import HookPoints, find_hook_points
from .model_inputs import ModelInputs, trial_inputs

Names = str | Key | Iterable[str | Key] | Callable[[str], bool] | None
Change = Callable[..., Any]
_TRANSPOSES = ("T", "t", "mT", "transpose", "permute")


class HookedModel:
    """A transformer whose activations are read and written by name.

    The model is the user's and stays as it is; its logits are those of the plain pass bit for bit. Names are
    those of TransformerLens, found in the graph of a pass, whatever the architecture; native names of modules
    and operations work beside them.

    Args:
        model: A Hugging Face model: decoder, encoder or vision transformer.
        tokenizer: Its tokenizer; without one, inputs are token ids or tensors.

    Raises:
        ArgumentError: It is no `nn.Module`.
        ArchitectureError: No attention or no residual stream was found in it.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> hooked = HookedModel(model, tokenizer)
        >>> hooked
        HookedModel(GPT2LMHeadModel, 6 layers, 4 heads, width 128)
        >>> logits, cache = hooked.run_with_cache(world.facts[0].text, ["pattern", "resid_post"])
        >>> cache["pattern", 0].shape[:2], "blocks.5.hook_resid_post" in cache
        (torch.Size([1, 4]), True)
    """

    @checked
    def __init__(self, model: nn.Module, tokenizer: Any = None) -> None:
        check_model(model)
        self.model, self.tokenizer = model, tokenizer
        self.inputs = ModelInputs(without_wrapper(model), tokenizer)
        self._found: dict[str, HookPoints] = {}
        self.points  # noqa: B018, an error of the architecture comes at once

    @classmethod
    @checked
    def from_pretrained(cls, name_or_path: str, **options: Any) -> "HookedModel":
        """Returns a model and its tokenizer from a folder or the Hugging Face hub.

        Args:
            name_or_path: The folder, or the name on the hub.
            **options: Those of `AutoModel.from_pretrained`.
        """
        from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

        try:
            model = AutoModelForCausalLM.from_pretrained(name_or_path, **options)
        except ValueError:  # no causal language model
            model = AutoModel.from_pretrained(name_or_path, **options)
        try:
            tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        except (OSError, ValueError, KeyError):  # vision transformers have none
            tokenizer = None
        return cls(model.eval(), tokenizer)

    def __repr__(self) -> str:
        first = next(iter(self.points.attentions.values()))
        pre = self.points.points.get("blocks.0.hook_resid_pre")
        width = "" if pre is None else f", width {self.width}"
        return (
            f"HookedModel({type(self.model).__name__}, {self.layers} layers, {first.num_heads} heads{width})"
        )

    @property
    def layers(self) -> int:
        """How many blocks there are."""
        return self.points.layers

    @property
    def heads(self) -> int:
        """How many heads the attention of the first block has."""
        return next(iter(self.points.attentions.values())).num_heads

    @property
    def width(self) -> int:
        """The width of the residual stream."""
        return self.points.segments[0].start[0].shape[-1]

    @property
    def points(self) -> HookPoints:
        """The hook points, as the attention of the model is computed now."""
        inner = without_wrapper(self.model)
        kind = str(getattr(getattr(inner, "config", None), "_attn_implementation", ""))
        if kind not in self._found:
            args, kwargs = trial_inputs(inner)
            probing = instrument(inner)
            with torch.no_grad(), evaluating(inner), probing as probe, probe.track([]) as tracker:
                inner(*args, **kwargs)
            self._found[kind] = find_hook_points(tracker.build_graph())
        return self._found[kind]

    def to_tokens(self, given: Any) -> Tensor:
        """Returns the token ids (batch, position) of texts, chats or ids; see `ModelInputs`."""
        return self.inputs.tokens(given)

    def to_str_tokens(self, given: Any) -> list[str]:
        """Returns the texts of the tokens of one text."""
        return self.inputs.token_texts(given)

    def __call__(self, given: Any, **options: Any) -> Tensor:
        """Returns the logits (batch, position, tokens) of the model, or its last hidden states.

        Args:
            given: A text, several texts, a chat, token ids, or what the tokenizer or image processor returns.
            **options: Other inputs of the model.
        """
        return main_tensor(self.model(**self.inputs(given), **options))

    @checked
    def run_with_cache(
        self,
        given: Any,
        names: Names = None,
        *,
        remove_batch_dim: bool = False,
        metric: Callable[[Tensor], Tensor] | None = None,
        **options: Any,
    ) -> tuple[Tensor, ActivationCache]:
        """Returns the logits, and the activations that are named.

        Args:
            given: See `__call__`.
            names: Names of activations, ``"blocks.3.attn.hook_z"``, ``("z", 3)``, ``"z"`` for all layers,
                patterns with ``*``, native names of modules and operations, or a function of the name. None
                keeps all by reference; attention weights are then computed when they are asked for.
            remove_batch_dim: Leave out the axis of the batch, which has one text.
            metric: A scalar function of the logits, whose gradients are then in ``cache.grad``.
            **options: Other inputs of the model.

        Raises:
            LayerError: A name that the model does not have; the message says why, or what is near.
            ArgumentError: Gradients are asked for in inference mode, or the metric is no scalar.
        """
        points = self.points
        wanted = self._wanted(names, points)
        inputs = {**self.inputs(given), **options}
        with ExitStack() as stack:
            if metric is not None:
                _check_gradients()
                stack.enter_context(torch.enable_grad())
                stack.enter_context(frozen(self.model))
            recording = stack.enter_context(_Recording(self, wanted, metric is not None).active())
            logits = main_tensor(self.model(**inputs))
        cache = recording.cache(points)
        if metric is not None:
            cache = recording.with_gradients(cache, points, metric(logits))
            logits = logits.detach()
        return logits, cache.remove_batch_dim() if remove_batch_dim else cache

    @contextmanager
    def edit(self, edits: Mapping[Any, Change]) -> Iterator["HookedModel"]:
        """Changes activations in all passes of the model in the block.

        Args:
            edits: Functions by names of activations, as for `run_with_cache`. A function gets the tensor, or
                the tensor and its name, and returns another one, or None if it changed the tensor itself.

        Raises:
            LayerError: A name that the model does not have.
            ArgumentError: An activation that cannot be written.
            ShapeError: A function returned a tensor of another shape.

        Example:
            >>> from toumei.models import facts_gpt
            >>> model, tokenizer, world = facts_gpt()
            >>> hooked = HookedModel(model, tokenizer)
            >>> with hooked.edit({("z", 0): torch.zeros_like}):
            ...     ablated = hooked(world.facts[0].text)
            >>> torch.equal(ablated, hooked(world.facts[0].text))
            False
        """
        points = self.points
        changes: dict[str, list[tuple[Point | str, Change]]] = {}
        for key, change in edits.items():
            for name in self._wanted(key, points):
                point = points.points.get(name, name)
                layer = point if isinstance(point, str) else point.layer
                if isinstance(point, ComputedPoint) and point.replace is None:
                    raise ArgumentError(
                        f"{name!r} is not computed by the model apart and cannot be written: load the model "
                        f'with attn_implementation="eager"'
                    )
                changes.setdefault(layer, []).append((point, change))
        batch: list[int] = []
        calls: dict[str, Edit] = {layer: _changing(listed, batch) for layer, listed in changes.items()}
        inner = without_wrapper(self.model)
        with hooked(self.model, edit=calls), wrapped_forward(inner, _noting(batch)):
            yield self

    def run_with_hooks(
        self, given: Any, fwd_hooks: Sequence[tuple[Any, Change]] = (), **options: Any
    ) -> Tensor:
        """Returns the logits of a pass with some activations changed, given as (name, function) pairs.

        Names may come several times; their functions are called in their order. See `edit`.
        """
        edits: dict[Any, list[Change]] = {}
        for name, change in fwd_hooks:
            edits.setdefault(name, []).append(change)
        with self.edit({name: _one_by_one(changes) for name, changes in edits.items()}):
            return self(given, **options)

    def generate(self, given: Any, max_new_tokens: int = 20, **options: Any) -> Any:
        """Returns a text that the model continues a text with, the tokens if there is no tokenizer.

        Edits of `edit` apply in every step. It uses the model's cache of keys and values.

        Args:
            given: See `__call__`.
            max_new_tokens: The number of tokens.
            **options: Other options of `generate` of Hugging Face, such as ``do_sample``.

        Raises:
            ArchitectureError: The model generates no text.
        """
        inner: Any = without_wrapper(self.model)
        if not hasattr(inner, "generate"):
            raise ArchitectureError(f"{type(inner).__name__} generates no text")
        inputs = self.inputs(given)
        options = {"do_sample": False, "pad_token_id": self.inputs.padding, **options}
        found = inner.generate(**inputs, max_new_tokens=max_new_tokens, **options)
        new = found[:, inputs["input_ids"].shape[1] :]
        if self.tokenizer is None:
            return new
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts[0] if len(texts) == 1 else texts

    def _wanted(self, names: Any, points: HookPoints) -> list[str]:
        """The full names of what is asked for."""
        known = [*points.points, *(f"blocks.{layer}.attn.hook_result" for layer in points.outputs)]
        if names is None:
            return known
        if callable(names):
            return [name for name in known if names(name)]
        single = isinstance(names, str) or (
            isinstance(names, tuple) and any(isinstance(n, int) for n in names)
        )
        found: dict[str, None] = {}
        for key in [names] if single else names:
            found |= dict.fromkeys(self._matching(key, known, points))
        return list(found)

    def _matching(self, key: Any, known: list[str], points: HookPoints) -> list[str]:
        name = full_name(key)
        if name in known:
            return [name]
        if "*" in name or "?" in name:
            matching = [one for one in known if fnmatchcase(one, name)]
        else:  # a short name means all layers
            layered = {full_name((name, layer)) for layer in range(points.layers)}
            matching = [one for one in known if one in layered]
        if matching:
            return matching
        try:
            resolve(without_wrapper(self.model), [name])
        except ToumeiError:
            short = full_name((name, 0)) if "." not in name else name
            raise LayerError(unknown_point(short if short in points.missing else name, points)) from None
        return [name]


class _Recording:
    """What is recorded of a pass."""

    def __init__(self, hooked_model: HookedModel, names: list[str], gradients: bool) -> None:
        self._hooked, self._names, self._gradients = hooked_model, names, gradients
        points = hooked_model.points.points
        self._computed: dict[str, tuple[Any, Any]] = {}
        self._batch: list[int] = []
        self._activations: Activations | None = None
        needed = {self._needed(name) for name in names}
        self._record: dict[str, str] = {}
        self._edits: dict[str, Edit] = {}
        for name in needed:
            point = points.get(name, name)
            if isinstance(point, ComputedPoint):
                self._edits[point.layer] = CallEdit(self._storing(point.layer))
            else:
                layer = point if isinstance(point, str) else point.layer
                self._record[layer] = layer
        self._clone = any(points[name].overwritten for name in needed if name in points)
        if gradients:
            self._begin_gradients()

    def _needed(self, name: str) -> str:
        """What a point is computed from: the results of heads from their outputs."""
        return name.replace("hook_result", "hook_z") if name.endswith("attn.hook_result") else name

    def _begin_gradients(self) -> None:
        """The stream is a leaf of the graph, so that gradients need no parameters."""
        start = self._hooked.points.points["blocks.0.hook_resid_pre"]
        before = self._edits.get(start.layer)
        assert before is None
        self._edits[start.layer] = lambda tensor: tensor.detach().requires_grad_()

    def _storing(self, layer: str) -> Callable[[Tensor, Any, Any], Tensor]:
        def store(tensor: Tensor, args: Any, kwargs: Any) -> Tensor:
            self._computed[layer] = args, kwargs
            return tensor

        return store

    @contextmanager
    def active(self) -> Iterator["_Recording"]:
        """Records the pass in the block."""
        model = self._hooked.model
        options = {"detach": not self._gradients, "clone": self._clone}
        noting = wrapped_forward(without_wrapper(model), _noting(self._batch))
        with hooked(model, self._record, self._edits, **options) as self._activations, noting:
            yield self

    def cache(self, points: HookPoints) -> ActivationCache:
        """The activations."""
        values = {name: self._value(name, points, self._layer_tensor) for name in self._names}
        return ActivationCache(values, points)

    def with_gradients(self, cache: ActivationCache, points: HookPoints, score: Tensor) -> ActivationCache:
        """The cache with the gradients of a score."""
        if not isinstance(score, Tensor) or score.numel() != 1:
            raise ArgumentError(f"the metric returns a number for all logits, got {score!r}")
        layers = {name: self._layer_of(name, points) for name in self._names}
        recorded = [layer for layer in dict.fromkeys(layers.values()) if layer is not None]
        tensors = [self._layer_tensor(layer) for layer in recorded]
        with_grad = [place for place, one in enumerate(tensors) if one.requires_grad]
        found = torch.autograd.grad(score, [tensors[place] for place in with_grad], allow_unused=True)
        by_layer: dict[str, Tensor] = {}
        for place, gradient in zip(with_grad, found, strict=True):
            by_layer[recorded[place]] = torch.zeros_like(tensors[place]) if gradient is None else gradient
        grads: dict[str, Tensor] = {}
        for name, layer in layers.items():
            if layer in by_layer and not name.endswith("hook_result"):
                value = self._value(name, points, by_layer.__getitem__)
                grads[name] = value if isinstance(value, Tensor) else value()
        values = {name: cache[name].detach() for name in cache}
        return ActivationCache(values, points, grads=grads)

    def _layer_of(self, name: str, points: HookPoints) -> str | None:
        point = points.points.get(self._needed(name), name)
        if isinstance(point, ComputedPoint):
            return None
        return point if isinstance(point, str) else point.layer

    def _layer_tensor(self, layer: str) -> Tensor:
        assert self._activations is not None
        return self._activations[layer]

    def _value(self, name: str, points: HookPoints, tensor_of: Callable[[str], Tensor]) -> Tensor | Lazy:
        if name.endswith("attn.hook_result"):
            return lambda: self._result(name, points, tensor_of)
        point = points.points.get(name, name)
        if isinstance(point, str):
            return tensor_of(point)
        if isinstance(point, ComputedPoint):
            args, kwargs = self._computed[point.layer]
            return lambda: point.compute(args, kwargs)
        return point.read(tensor_of(point.layer), self._batch[-1])

    def _result(self, name: str, points: HookPoints, tensor_of: Callable[[str], Tensor]) -> Tensor:
        layer = int(name.split(".")[1])
        z = self._value(self._needed(name), points, tensor_of)
        assert isinstance(z, Tensor)
        weight = output_weight(points, layer).to(z)
        with torch.no_grad():
            return torch.einsum("bphd,hdw->bphw", z, weight)


def output_weight(points: HookPoints, layer: int) -> Tensor:
    """Returns the weights (heads, head width, width) by which a layer's heads write into the stream.

    Raises:
        ArchitectureError: The linear map after the heads is not found, or goes through something else.
    """
    linear = points.outputs[layer]
    model = points.graph.memory.model
    weight = model.get_parameter(linear.weight.name).detach()
    used = points.graph.producer(linear.operation.args[-1]) if linear.operation.function == "matmul" else None
    if linear.operation.function == "linear" or (used is not None and used.function in _TRANSPOSES):
        weight = weight.T
    return weight.unflatten(0, (points.attentions[layer].num_heads, -1))


def _changing(changes: list[tuple[Point | str, Change]], batch: list[int]) -> Edit:
    """An edit of the engine that makes the changes of all points in one tensor."""
    computed = [(one, change) for one, change in changes if isinstance(one, ComputedPoint)]
    others = [(one, change) for one, change in changes if not isinstance(one, ComputedPoint)]
    if len(computed) > 1:
        names = ", ".join(one.name for one, _ in computed)
        raise ArgumentError(f"{names} are computed from each other: change one of them")

    def edit(tensor: Tensor, args: Any, kwargs: Any) -> Tensor:
        for point, change in computed:
            assert point.replace is not None
            tensor = point.replace(_changed(change, point.compute(args, kwargs), point.name), args, kwargs)
        for place, change in others:
            if isinstance(place, HookPoint):
                value = _changed(change, place.read(tensor, batch[-1]).clone(), place.name)
                tensor = place.write(tensor, value, batch[-1])
            else:
                tensor = _changed(change, tensor, str(place))
        return tensor

    return CallEdit(edit)


def _changed(change: Change, tensor: Tensor, name: str) -> Tensor:
    """What a function makes of a tensor; None means that it changed the tensor itself."""
    try:
        positional = [
            one
            for one in signature(change).parameters.values()
            if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) and one.default is one.empty
        ]
    except (TypeError, ValueError):  # functions of torch have no signature
        positional = []
    value = change(tensor, name) if len(positional) > 1 else change(tensor)
    if value is not None and not isinstance(value, Tensor):
        raise ArgumentError(f"the edit of {name!r} must return a tensor, got {type(value).__name__}")
    return tensor if value is None else value


def _one_by_one(changes: list[Change]) -> Change:
    def change(tensor: Tensor, name: str) -> Tensor:
        for one in changes:
            tensor = _changed(one, tensor, name)
        return tensor

    return change


def _noting(batch: list[int]) -> Callable[..., Any]:
    """Notes how many rows a pass has."""

    def note(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor) and one.dim()]
        batch[:] = [len(tensors[0]) if tensors else 1]
        return forward(*args, **kwargs)

    return note


def _check_gradients() -> None:
    if torch.is_inference_mode_enabled():
        raise ArgumentError("there are no gradients in torch.inference_mode(): call it outside of that block")
