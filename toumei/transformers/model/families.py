"""Where the parts of a language model are: a row for each known architecture, a search for the others.

`anatomy(model)` finds embedding, blocks, attention, MLP, down-projection, final norm and head of any Hugging
Face causal language model. It checks them, and says what is missing and why. A new architecture is one row in
`FAMILIES`; without a row the parts are searched for by their names, types and sizes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from ...core.checks import checked
from ...core.conversions import MISFIT, as_whole
from ...core.errors import ArchitectureError, ArgumentError, LayerError
from ...core.hooks import hooked
from ...core.linear_layers import is_conv1d, projection_sizes
from ...core.modules import evaluating, find_module
from ...core.outputs import main_tensor
from ...core.repeats import always_repeats, repeat_gap, warn_of_gap
from ...core.summaries import counted
from ...core.tensors import in_place, whole
from .discovery import EXPERTS, MIXER, Family, search_family, stream_width
from .wrappers import check_wrapper, language_model

_TRIED = 64  # tokens among which those of trial passes are chosen
_GPT2 = Family("transformer.wte", "transformer.h", "attn", "mlp", "mlp.c_proj", "transformer.ln_f")
_LLAMA = Family("model.embed_tokens", "model.layers", "self_attn", "mlp", "mlp.down_proj", "model.norm")
_EXPERTS = replace(_LLAMA, down=None, missing=EXPERTS)
# In Bloom (attention, MLP) and MPT (MLP) these modules return the sum with the residual stream. A module
# inside of them returns what is added.
_BLOOM = Family(
    "transformer.word_embeddings",
    "transformer.h",
    "self_attention.dense",
    "mlp.dense_4h_to_h",
    "mlp.dense_4h_to_h",
    "transformer.ln_f",
)
_OPT = Family(
    "model.decoder.embed_tokens",
    "model.decoder.layers",
    "self_attn",
    "fc2",
    "fc2",
    "model.decoder.final_layer_norm",
)
_NEOX = Family(
    "gpt_neox.embed_in",
    "gpt_neox.layers",
    "attention",
    "mlp",
    "mlp.dense_4h_to_h",
    "gpt_neox.final_layer_norm",
)
_MAMBA = Family("backbone.embeddings", "backbone.layers", None, None, None, "backbone.norm_f", missing=MIXER)

FAMILIES: dict[str, Family] = {
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neo": _GPT2,
    "gptj": replace(_GPT2, down="mlp.fc_out"),
    "codegen": replace(_GPT2, down="mlp.fc_out"),
    "gpt_neox": _NEOX,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "stablelm": _LLAMA,
    "cohere": _LLAMA,
    "olmo2": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3_text": _LLAMA,
    "phi3": _LLAMA,
    "phi": replace(_LLAMA, down="mlp.fc2", norm="model.final_layernorm"),
    "starcoder2": replace(_LLAMA, down="mlp.c_proj"),
    "opt": _OPT,
    "bloom": _BLOOM,
    "falcon": replace(_BLOOM, attention="self_attention", mlp="mlp"),
    "mpt": Family(
        "transformer.wte",
        "transformer.blocks",
        "attn",
        "ffn.down_proj",
        "ffn.down_proj",
        "transformer.norm_f",
    ),
    "mamba": _MAMBA,
    "mixtral": _EXPERTS,
    "qwen3_moe": _EXPERTS,
    "gpt_oss": _EXPERTS,
}


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Anatomy:
    """The parts of one model, by their full names. All names work with `hooked` and `find_module`.

    Attributes:
        model: The model, without what wraps it.
        kind: Its `config.model_type`.
        known: Whether the parts come from a row of `FAMILIES`, not from a search.
        embedding: Name of the token embedding.
        blocks: Names of the blocks, first to last.
        attentions: For each block the module whose output attention adds to the residual stream, or None.
        mlps: The same for the feed-forward layer.
        downs: For each block the down-projection of the MLP, or None.
        norm: Name of the final norm; None without one, as in OPT-350m.
        head: Name of the module that turns vectors into logits.
        width: Width of the residual stream.
        missing: For each block why a part is None.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import anatomy
        >>> parts = anatomy(facts_gpt()[0])
        >>> parts.blocks[:2], parts.head
        (('transformer.h.0', 'transformer.h.1'), 'lm_head')
    """

    model: nn.Module
    kind: str
    known: bool
    embedding: str
    blocks: tuple[str, ...]
    attentions: tuple[str | None, ...]
    mlps: tuple[str | None, ...]
    downs: tuple[str | None, ...]
    norm: str | None
    head: str
    width: int
    missing: tuple[str, ...]

    @property
    def layers(self) -> int:
        """How many blocks there are."""
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """The device for token ids: that of the embedding.

        Weights that are offloaded to a disk have no device. Modules that load them when they are needed
        accept tokens from any device, so the device is the CPU then.
        """
        device = torch.device(self.module(self.embedding).weight.device)  # type: ignore[arg-type]
        return torch.device("cpu") if device.type == "meta" else device

    @property
    def vocabulary(self) -> int:
        """How many tokens have an embedding."""
        return len(self.module(self.embedding).weight)  # type: ignore[arg-type]

    @property
    def positions(self) -> int | None:
        """The largest number of tokens in one pass; None if the config does not say."""
        config = getattr(self.model, "config", None)
        names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
        return next((int(count) for name in names if (count := getattr(config, name, None))), None)

    @property
    def two_tokens(self) -> Tensor:
        """Two tokens (1, 2) for a trial pass.

        They are not the padding token, and their embeddings are not zero: vectors of zeros hide what a model
        does with them.
        """
        padding = getattr(getattr(self.model, "config", None), "pad_token_id", None)
        weight: Any = self.module(self.embedding).weight
        known: Sequence[int] = range(min(self.vocabulary, _TRIED))
        if in_place(weight) and not weight.is_meta:
            used = whole(weight[:_TRIED]).any(1).tolist()
            known = [token for token in known if used[token] and token != padding] or known
        else:
            known = [token for token in known if token != padding] or known
        return torch.tensor([[known[0], known[-1]]], device=self.device)

    def block(self, layer: SupportsIndex) -> str:
        """Returns the name of a block; layers count from 0.

        Raises:
            ArgumentError: There is no such layer.
        """
        return self.blocks[self.check_layer(layer)]

    def attention(self, layer: SupportsIndex) -> str:
        """Returns the name of the module whose output attention adds to the residual stream.

        Raises:
            ArgumentError: There is no such layer.
            ArchitectureError: The block has no attention; the message says why.
        """
        return self._part("attention", self.attentions, layer)

    def mlp(self, layer: SupportsIndex) -> str:
        """Returns the name of the module whose output the feed-forward layer adds to the residual stream.

        Raises:
            ArgumentError: There is no such layer.
            ArchitectureError: The block has no MLP; the message says why.
        """
        return self._part("MLP", self.mlps, layer)

    def down(self, layer: SupportsIndex) -> str:
        """Returns the name of the down-projection, the matrix that rank-one editing changes.

        Raises:
            ArgumentError: There is no such layer.
            ArchitectureError: The block has no single down-projection; the message says why.
        """
        return self._part("single down-projection", self.downs, layer)

    def module(self, name: str) -> nn.Module:
        """Returns the module of this name."""
        return find_module(self.model, name)

    def runs(self, names: Iterable[str]) -> dict[str, str]:
        """Returns for `hooked` the name of the one run of each module, so that a pass can end after it.

        `anatomy` checks that the parts of blocks run once in a pass.
        """
        return {name: f"{name}#0" for name in names}

    def keys_first(self, layer: SupportsIndex) -> bool:
        """Returns whether the weight of the down-projection is (keys, values), as in GPT-2's `Conv1D`.

        The weight of an `nn.Linear` is (values, keys). The type of the module decides, because the weight may
        be square.
        """
        return is_conv1d(self.module(self.down(layer)))

    def check_layer(self, layer: SupportsIndex) -> int:
        """Returns a layer, given as any type of whole number, as an int.

        Raises:
            ArgumentError: The model has no such layer.
        """
        number = as_whole(layer)
        if number is MISFIT or not 0 <= number < self.layers:
            raise ArgumentError(
                f"no layer {layer!r} in {type(self.model).__name__}: it has {counted(self.layers, 'layer')}, "
                f"0 to {self.layers - 1}"
            )
        return int(number)

    def check_length(self, count: int, what: str) -> None:
        """Checks that the model has enough positions for a text.

        Raises:
            ArgumentError: The model learned fewer positions. (Computed position embeddings have no limit.)
        """
        learned = sum(isinstance(part, nn.Embedding) for part in self.model.modules()) > 1
        if learned and self.positions is not None and count > self.positions:
            raise ArgumentError(
                f"{what!r} is {count} tokens long, {type(self.model).__name__} reads at most {self.positions}"
            )

    def _part(self, what: str, names: tuple[str | None, ...], layer: SupportsIndex) -> str:
        layer = self.check_layer(layer)
        name = names[layer]
        if name is None:
            raise ArchitectureError(
                f"layer {layer} of {type(self.model).__name__} ({self.kind}) has no {what}: "
                f"{self.missing[layer]}"
            )
        return name

    def __repr__(self) -> str:
        origin = "known" if self.known else "searched"
        return f"Anatomy({self.kind}, {origin}: {counted(self.layers, 'layer')} of width {self.width})"


@checked
def anatomy(model: nn.Module) -> Anatomy:
    """Returns where the parts of a causal language model are, after checking them on its modules.

    Args:
        model: A Hugging Face causal language model (`AutoModelForCausalLM`), in any precision and on any
            devices. It may be wrapped, by PEFT, `torch.compile`, DistributedDataParallel or a module that
            gives its logits; the parts are those of the model inside.

    Raises:
        ArchitectureError: A part cannot be found or has the wrong shape; the message says what was searched
            for and what the model has. Or a wrapper gives other logits than the model inside, or is
            `nn.DataParallel`.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_embd=8, n_layer=2, n_head=2))
        >>> parts = anatomy(model)
        >>> parts.down(1), parts.keys_first(1)
        ('transformer.h.1.mlp.c_proj', True)
    """
    given, model = model, language_model(model)
    kind = str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))
    if kind in FAMILIES:
        outside = FAMILIES[kind]
        blocks = _look_up(model, kind, outside.blocks)
        rows = [outside] * len(list(blocks.children()))
    else:
        outside, rows = search_family(model)

    def names(part: str) -> tuple[str | None, ...]:
        found = [getattr(row, part) for row in rows]
        return tuple(name and f"{outside.blocks}.{index}.{name}" for index, name in enumerate(found))

    parts = Anatomy(
        model=model,
        kind=kind,
        known=kind in FAMILIES,
        embedding=outside.embedding,
        blocks=tuple(f"{outside.blocks}.{index}" for index in range(len(rows))),
        attentions=names("attention"),
        mlps=names("mlp"),
        downs=names("down"),
        norm=outside.norm if _has(model, outside.norm) else None,
        head=_head(model, outside.head),
        width=stream_width(model),
        missing=tuple(row.missing for row in rows),
    )
    _check_modules(parts)
    _check_outputs(parts)
    check_wrapper(given, model, parts.two_tokens)
    return parts


def _head(model: nn.Module, name: str) -> str:
    """The name of the head, which versions of transformers change: 5.12 has `embed_out` in gpt_neox."""
    output = getattr(model, "get_output_embeddings", lambda: None)()
    if output is None or _has(model, name):
        return name
    return next((found for found, module in model.named_modules() if module is output), name)


def _check_modules(parts: Anatomy) -> None:
    """Checks that every part exists, and that embedding and down-projections have the stream's width."""
    names = [parts.head, *parts.attentions, *parts.mlps, *parts.downs]
    for name in dict.fromkeys(name for name in names if name):
        _look_up(parts.model, parts.kind, name)
    weight = getattr(_look_up(parts.model, parts.kind, parts.embedding), "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise ArchitectureError(
            f"{parts.kind}: the embedding {parts.embedding!r} has no weight (tokens, width)"
        )
    for name in filter(None, parts.downs):
        sizes = projection_sizes(parts.module(name))
        if sizes is None or sizes[1] != parts.width:
            raise ArchitectureError(
                f"{parts.kind}: the down-projection {name!r} should map to {counted(parts.width, 'value')}, "
                f"it is {parts.module(name)}"
            )


def _check_outputs(parts: Anatomy) -> None:
    """Runs two tokens, and checks that each part runs once and returns vectors of the stream's width."""
    names = [name for name in (*parts.blocks, *parts.attentions, *parts.mlps, *parts.downs) if name]
    with torch.no_grad(), evaluating(parts.model):
        known = always_repeats(parts.model)
        with hooked(parts.model, names) as activations:
            said = main_tensor(parts.model(parts.two_tokens))
        again = said if known else main_tensor(parts.model(parts.two_tokens))
    warn_of_gap(repeat_gap(said, again))
    for name in names:
        if activations.runs(name) != 1:
            raise ArchitectureError(
                f"{parts.kind}: {name!r} runs {activations.runs(name)} times in one pass; modules that are "
                f"shared between layers cannot be told apart"
            )
        # OPT runs its feed-forward layer on (tokens, width), others run it on (batch, tokens, width).
        # XLNet has the tokens first, (tokens, batch, width).
        if activations[name].shape not in ((1, 2, parts.width), (2, parts.width)):
            raise ArchitectureError(
                f"{parts.kind}: {name!r} should return (1, 2, {parts.width}) for two tokens, "
                f"it returns {tuple(activations[name].shape)}"
            )


def _has(model: nn.Module, name: str | None) -> bool:
    try:
        return name is not None and find_module(model, name) is not None
    except LayerError:
        return False


def _look_up(model: nn.Module, kind: str, name: str) -> nn.Module:
    try:
        return find_module(model, name)
    except LayerError as error:
        raise ArchitectureError(f"the row of {kind!r} in FAMILIES does not fit: {error}") from None
