"""Any Hugging Face transformer under the names of TransformerLens: read, write and generate with hooks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...core.blocks import block
from ...core.checks import check_counts, check_gradients_on, checked
from ...core.errors import ArchitectureError, ArgumentError
from ...core.forward import raise_forward_error
from ...core.hooks import hooked
from ...core.kinds import shown
from ...core.modules import check_model, frozen, without_wrapper
from ...core.outputs import main_tensor
from ...core.summaries import counted
from .activation_cache import ActivationCache
from .families import Anatomy, anatomy
from .hook_points import Point
from .hook_search import HookPoints
from .model_inputs import ModelInputs
from .pass_state import PassState
from .point_edits import Change, NamedChange, check_written, engine_edit, named
from .point_names import Names, wanted_names
from .recording import Recording, output_weight
from .surgeries import surgeries_of
from .trial import hook_points_of

__all__ = ["HookedModel", "output_weight"]

_Kind = tuple[str, tuple[int, ...]]

# Models of Hugging Face take any keyword and say nothing of it.
_OF_TRANSFORMER_LENS = {
    "return_type": "is not needed: logits are returned, and cross_entropy of torch makes a loss of them",
    "names_filter": "is names=, the second argument of run_with_cache",
    "prepend_bos": "is not needed: tokens are what the tokenizer makes of a text; others are given as ids",
    "stop_at_layer": "is activations(given, names), which ends the pass after the last name",
    "start_at_layer": "has no counterpart: edit(...) writes a state of the residual stream",
    "loss_per_token": "is not needed: logits are returned, and cross_entropy of torch makes losses of them",
    "padding_side": "is an attribute of the tokenizer",
}


class HookedModel:
    """A transformer whose activations are read and written by name.

    The model is the user's and stays as it is; its logits are those of the plain pass bit for bit. Names are
    those of TransformerLens, found in the graph of a pass, whatever the architecture; native names of modules
    and operations work beside them. What layers of another kind add to the stream has the name of their
    module, such as ``blocks.0.hook_mamba_out`` in Jamba.

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
        self._found: dict[_Kind, HookPoints] = {}
        self._parts: dict[_Kind, Anatomy] = {}
        self._state = PassState()
        self.points  # noqa: B018, an error of the architecture comes at once

    @classmethod
    @checked
    def from_pretrained(cls, name_or_path: str, **options: Any) -> "HookedModel":
        """Returns a model and its tokenizer from a folder or the Hugging Face hub.

        The model is of the class that its configuration names.

        Args:
            name_or_path: The folder, or the name on the hub.
            **options: Those of ``from_pretrained`` of transformers, such as ``dtype``.

        Raises:
            ArgumentError: There is no such model, or transformers cannot load it.
            ArchitectureError: It is no transformer with one residual stream.
        """
        import transformers

        try:
            config = transformers.AutoConfig.from_pretrained(name_or_path, **_files(options))
            named = getattr(transformers, next(iter(config.architectures or []), ""), None)
            model = (named or auto_class(config)).from_pretrained(name_or_path, **options)
        except (OSError, ValueError) as error:
            raise ArgumentError(f"transformers loads no model from {name_or_path!r}: {error}") from error
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(name_or_path, **_files(options))
        except (OSError, ValueError, KeyError):  # vision transformers have none
            tokenizer = None
        return cls(model.eval(), tokenizer)

    def __repr__(self) -> str:
        first = next(iter(self.points.attentions.values()))
        pre = self.points.points.get("blocks.0.hook_resid_pre")
        width = "" if pre is None else f", width {self.width}"
        return (
            f"{type(self).__name__}({type(self.model).__name__}, {counted(self.layers, 'layer')}, "
            f"{counted(first.num_heads, 'head')}{width})"
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
        """The hook points, as the attention of the model is computed now, with the surgeries that it has."""
        state = self._kind()
        if state not in self._found:
            self._found[state] = hook_points_of(without_wrapper(self.model))
        return self._found[state]

    @property
    def parts(self) -> Anatomy:
        """Where embedding, blocks and head of a language model are, as `anatomy` finds them once."""
        state = self._kind()
        if state not in self._parts:
            self._parts[state] = anatomy(self.model)
        return self._parts[state]

    def _kind(self) -> _Kind:
        """What hook points depend on: how attention is computed, and the surgeries of the model."""
        inner = without_wrapper(self.model)
        kind = str(getattr(getattr(inner, "config", None), "_attn_implementation", ""))
        return kind, surgeries_of(inner)

    def to_tokens(self, given: Any) -> Tensor:
        """Returns the token ids (batch, position) of texts, chats or ids; see `ModelInputs`."""
        return self.inputs.tokens(given)

    def to_str_tokens(self, given: Any) -> list[str]:
        """Returns the texts of the tokens of one text."""
        return self.inputs.token_texts(given)

    @checked
    def __call__(self, given: Any, **options: Any) -> Tensor:
        """Returns the logits (batch, position, tokens) of the model, or its last hidden states.

        Args:
            given: A text, several texts, a chat, token ids, or what the tokenizer or image processor returns.
            **options: Other inputs of the model.

        Raises:
            ArgumentError: An option of TransformerLens; the message says what does the same.
        """
        return self._run({**self.inputs(given), **options})

    def _run(self, inputs: Mapping[str, Any]) -> Tensor:
        """The logits of a pass."""
        if other := sorted(_OF_TRANSFORMER_LENS.keys() & inputs.keys()):
            ways = "; ".join(f"{name}= {_OF_TRANSFORMER_LENS[name]}" for name in other)
            raise ArgumentError(f"an option of TransformerLens that the model would not read: {ways}")
        if inputs.get("encoder_hidden_states") is not None:
            raise ArgumentError(
                f"hook points are those of a pass without an encoder, where cross-attention does not run: "
                f"with encoder_hidden_states, hooked() and instrument() read the "
                f"{type(without_wrapper(self.model)).__name__} under native names"
            )
        with self._errors(inputs):
            return main_tensor(self.model(**inputs))

    @contextmanager
    def _errors(self, inputs: Mapping[str, Any]) -> Iterator[None]:
        """Errors of a pass say what went in, but those of functions that edit it are as they are."""
        try:
            yield
        except Exception as error:
            if self._state.edits:
                raise
            raise_forward_error(error, self.model, inputs.values())

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
        wanted = wanted_names(self.model, names, points)
        inputs = {**self.inputs(given), **options}
        recording = Recording(self.model, points, wanted, self._state, gradients=metric is not None)
        if metric is None:
            with recording.active():
                logits = self._run(inputs)
            cache = recording.cache()
        else:
            logits, cache = self._with_gradients(recording, inputs, metric)
        cache.texts = self.inputs.texts(inputs)
        return logits, cache.remove_batch_dim() if remove_batch_dim else cache

    @checked
    def activations(self, given: Any, names: Names, **options: Any) -> ActivationCache:
        """Returns the activations that are named; the pass ends as soon as the model has computed them.

        Native names without a number, such as ``model.layers.0.mlp``, mean the last run, and need the whole
        pass; with one, ``model.layers.0.mlp#0``, they do not.

        Args:
            given: See `__call__`.
            names: See `run_with_cache`.
            **options: Other inputs of the model.

        Raises:
            LayerError: A name that the model does not have.

        Example:
            >>> from toumei.models import InductionTransformer
            >>> hooked = HookedModel(InductionTransformer(vocabulary=8, positions=16))
            >>> hooked.activations([0, 3, 1], ("resid_post", 0))["resid_post", 0].shape[:2]
            torch.Size([1, 3])
        """
        points = self.points
        wanted = wanted_names(self.model, names, points)
        inputs = {**self.inputs(given), **options}
        recording = Recording(self.model, points, wanted, self._state, gradients=False, stop=True)
        with recording.active():
            self._run(inputs)
        cache = recording.cache()
        cache.texts = self.inputs.texts(inputs)
        return cache

    def _with_gradients(
        self, recording: Recording, inputs: Mapping[str, Any], metric: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, ActivationCache]:
        check_gradients_on()
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(frozen(self.model))
            with recording.active():
                logits = self._run(inputs)
            return logits.detach(), recording.gradients(metric(logits))

    @block
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
        if not isinstance(edits, Mapping):
            raise ArgumentError(
                f"expected a dictionary of functions by the names of activations, got {shown(edits)}"
            )
        with self._editing(list(edits.items())):
            yield self

    @checked
    def run_with_hooks(
        self, given: Any, fwd_hooks: Sequence[tuple[Any, Change]] = (), **options: Any
    ) -> Tensor:
        """Returns the logits of a pass with some activations changed, given as (name, function) pairs.

        Names may come several times; their functions are called in their order. See `edit`.
        """
        if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in fwd_hooks):
            raise ArgumentError(f"expected pairs of names and functions, got {shown(fwd_hooks)}")
        with self._editing(fwd_hooks):
            return self(given, **options)

    @contextmanager
    def _editing(self, pairs: Sequence[tuple[Any, Change]]) -> Iterator[None]:
        points = self.points
        changes: dict[str, list[tuple[Point | str, NamedChange]]] = {}
        for key, change in pairs:
            for name in wanted_names(self.model, key, points, edited=True):
                point = points.points.get(name, name)
                check_written(name, point)
                layer = point if isinstance(point, str) else point.layer
                changes.setdefault(layer, []).append((point, named(name, change)))
        edits = {layer: engine_edit(listed, self._state) for layer, listed in changes.items()}
        with hooked(self.model, edit=edits), self._state.noting(without_wrapper(self.model), edits=True):
            yield

    @checked
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
        check_counts(1, max_new_tokens=max_new_tokens)
        inner: Any = without_wrapper(self.model)
        if not getattr(inner, "can_generate", bool)():
            raise ArchitectureError(f"{type(inner).__name__} generates no text")
        inputs = self.inputs(given, left=True)
        options = {"do_sample": False, "pad_token_id": self.inputs.padding, **options}
        if "input_ids" not in inputs:
            raise ArgumentError(f"expected tokens to continue, got {shown(given)}")
        inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))
        with self._errors(inputs):
            found = inner.generate(**inputs, max_new_tokens=max_new_tokens, **options)
        new = found[:, inputs["input_ids"].shape[1] :]
        if self.tokenizer is None:
            return new
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts[0] if len(texts) == 1 else texts


def auto_class(config: Any) -> Any:
    """Returns the class of transformers that makes the model of a configuration, with a head for tokens."""
    from transformers import AutoModel, AutoModelForCausalLM

    return AutoModelForCausalLM if type(config) in AutoModelForCausalLM._model_mapping else AutoModel


def _files(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say which files are meant."""
    names = ("gguf_file", "revision", "cache_dir", "subfolder", "local_files_only", "token")
    return {name: options[name] for name in names if name in options}
