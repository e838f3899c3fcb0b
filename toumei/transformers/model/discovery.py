"""Finds the parts of a language model of an unknown architecture by their names, types and sizes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

from torch import nn

from ...core.errors import ArchitectureError
from ...core.linear_layers import projection_sizes, without_adapter
from ...core.modules import find_module

MIXER = "it has a state-space mixer in that place"
NO_MLP = "it has attention only"
EXPERTS = "its feed-forward layer is a mixture of experts"
MLP_NAMES = ("mlp", "ffn", "feed_forward", "feedforward", "moe")


@dataclass(frozen=True)
class Family:
    """The names of the parts in one architecture; those of a block are relative to the block.

    Attributes:
        embedding: The module that turns token ids into vectors.
        blocks: The list of blocks.
        attention: The module whose output attention adds to the residual stream; None if there is none.
        mlp: The same for the feed-forward layer.
        down: The down-projection, whose inputs are the keys of the MLP as a memory; None if there is not
            exactly one.
        norm: The final norm; None if there is none, as in OPT-350m.
        head: The module that turns vectors into logits.
        missing: Why a part is None.
    """

    embedding: str
    blocks: str
    attention: str | None
    mlp: str | None
    down: str | None
    norm: str | None
    head: str = "lm_head"
    missing: str = ""


def search_family(model: nn.Module) -> tuple[Family, list[Family]]:
    """Returns the parts of a model outside of the blocks, and the parts of each block.

    Raises:
        ArchitectureError: A part is missing; the message says what was searched for and what was found.
    """
    blocks = search_blocks(model)
    outside = Family(
        embedding=_name_of(model, _call(model, "get_input_embeddings"), "embedding"),
        blocks=blocks,
        attention=None,
        mlp=None,
        down=None,
        norm=_search_norm(model, blocks),
        head=_name_of(model, _call(model, "get_output_embeddings"), "head"),
    )
    width = stream_width(model)
    return outside, [_search_block(block, outside, width) for block in find_module(model, blocks).children()]


def stream_width(model: nn.Module) -> int:
    """Returns the width of the residual stream."""
    width = getattr(_text_config(model), "hidden_size", None)
    if width is None:
        raise ArchitectureError(
            f"no width found in {type(model).__name__}: looked for config.hidden_size of a Hugging Face "
            f"causal language model"
        )
    return int(width)


def search_blocks(model: nn.Module) -> str:
    """Returns the name of the outermost list of modules with as many entries as the model has layers.

    Raises:
        ArchitectureError: There is none.
    """
    depth = getattr(_text_config(model), "num_hidden_layers", None)
    lists = {name: len(part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)}
    candidates = [name for name, length in lists.items() if length == depth]
    if not candidates:
        raise ArchitectureError(
            f"no blocks found in {type(model).__name__}: looked for a ModuleList of as many blocks as "
            f"config.num_hidden_layers={depth}, found {lists or 'no ModuleList'}; a row in "
            "toumei.transformers.model.families.FAMILIES says where they are"
        )
    result: str = min(candidates, key=lambda name: name.count("."))
    return result


def _search_block(block: nn.Module, outside: Family, width: int) -> Family:
    """The parts of one block, found by their names and output sizes."""
    children = {
        name: part
        for name, part in block.named_children()
        if any(True for _ in part.parameters()) and "norm" not in name
    }
    attention = _first(name for name in children if _is_attention(name))
    mlp = _first(name for name in children if any(word in name.lower() for word in MLP_NAMES))
    if attention is None and mlp is None:
        return replace(outside, missing=MIXER)
    if attention is not None and set(children) == {attention}:
        return replace(outside, attention=attention, missing=NO_MLP)
    adapted = [f"{name}." for name, part in block.named_modules() if without_adapter(part) is not part]
    downs = [
        name
        for name, part in block.named_modules()
        if not name.startswith(tuple(adapted))
        and (name.split(".")[0] == mlp if mlp else not _is_attention(name))
        and (sizes := projection_sizes(part))
        and sizes[1] == width
    ]
    missing = MIXER if attention is None else ""
    if len(downs) != 1 or (mlp and _has_experts(children[mlp])):
        several = (
            f"it has {len(downs)} maps to the residual stream ({', '.join(downs)})" if downs else EXPERTS
        )
        why = EXPERTS if mlp and _has_experts(children[mlp]) else several
        return replace(outside, attention=attention, mlp=mlp, missing=missing or why)
    if mlp is None or "residual" in signature(children[mlp].forward).parameters:
        mlp = downs[0]  # the block has no MLP module, or the module adds the residual stream to its output
    return replace(outside, attention=attention, mlp=mlp, down=downs[0], missing=missing)


def _has_experts(mlp: nn.Module) -> bool:
    """Whether the MLP is a mixture of experts, also one with an expert that all tokens share."""
    return any("expert" in f"{name} {type(part).__name__}".lower() for name, part in mlp.named_modules())


def _search_norm(model: nn.Module, blocks: str) -> str | None:
    """The last norm in the module that holds the list of blocks, if there is one."""
    parent = blocks.rpartition(".")[0]
    children = find_module(model, parent).named_children()
    norms = [name for name, part in children if "norm" in type(part).__name__.lower()]
    return ".".join(filter(None, (parent, norms[-1]))) if norms else None


def _text_config(model: nn.Module) -> Any:
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _call(model: nn.Module, getter: str) -> Any:
    try:
        return getattr(model, getter)()
    except (AttributeError, NotImplementedError):
        return None


def _name_of(model: nn.Module, wanted: nn.Module | None, what: str) -> str:
    name: str
    for name, module in model.named_modules():
        if module is wanted:
            return name
    raise ArchitectureError(
        f"no {what} found in {type(model).__name__}: expected a Hugging Face causal language model with "
        f"get_input_embeddings() and get_output_embeddings()"
    )


def _is_attention(name: str) -> bool:
    return "att" in name.lower()


def _first(names: Iterable[str]) -> str | None:
    return next(iter(names), None)
