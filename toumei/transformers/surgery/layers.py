"""Layers deleted, repeated, moved, replaced, and transplanted from another model."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from torch import nn

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError, EditError
from ...core.modules import device_and_dtype
from ...core.summaries import counted, listed
from .blocks import Blocks, blocks_of
from .surgery import Surgery


@checked
def arrange_layers(model: nn.Module, order: Sequence[int]) -> Surgery:
    """Returns the surgery after which a model runs its layers in any order, some several times or never.

    Args:
        model: A transformer of Hugging Face.
        order: For each new layer the number of the layer that runs there. A layer that comes again has the
            same weights, and other keys and values in a cache.

    Raises:
        ArgumentError: There is no such layer, or the order is empty.
        ArchitectureError: No list of blocks was found.
        EditError: The config does not say the kinds of layers, and these would change places.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> blocks = list(model.transformer.h)
        >>> with arrange_layers(model, [0, 1, 2, 1, 2]):
        ...     [blocks.index(block) if block in blocks else "copy" for block in model.transformer.h]
        [0, 1, 2, 'copy', 'copy']
    """
    order = list(order)

    def rearranged(blocks: Blocks) -> list[int]:
        blocks.check(order)
        if not order:
            raise ArgumentError("expected an order with at least one layer, got none")
        return order

    return _surgery(model, f"layers in the order {listed(order, 12)}", rearranged)


@checked
def delete_layers(model: nn.Module, layers: Sequence[int]) -> Surgery:
    """Returns the surgery after which a model runs without some layers.

    The residual stream after the layer before is what the next one reads, so that the network is the one with
    fewer layers. Layers after a deleted one get smaller numbers.

    Args:
        model: A transformer of Hugging Face.
        layers: Which layers, from 0 on.

    Raises:
        ArgumentError: There is no such layer, one is given twice, or none would be left.
        ArchitectureError: No list of blocks was found.
        EditError: The config does not say the kinds of layers, and those left would change places.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> tokens = tokenizer(world.facts[0].text, return_tensors="pt")
        >>> with delete_layers(model, [3, 4]):
        ...     model(**tokens, output_hidden_states=True).hidden_states.__len__()
        5
    """
    layers = list(layers)

    def left(blocks: Blocks) -> list[int]:
        blocks.check_once(layers)
        if len(layers) == len(blocks):
            raise ArgumentError(f"all layers ({len(blocks)}) would be deleted: leave one")
        return [layer for layer in range(len(blocks)) if layer not in layers]

    return _surgery(model, f"delete {_words(layers)}", left)


@checked
def permute_layers(model: nn.Module, order: Sequence[int]) -> Surgery:
    """Returns the surgery after which a model runs its layers in another order, each once.

    Args:
        model: A transformer of Hugging Face.
        order: For each new layer the number of the layer that runs there, all layers.

    Raises:
        ArgumentError: There is no such layer, or one is missing or given twice.
        ArchitectureError: No list of blocks was found.
        EditError: The config does not say the kinds of layers, and these would change places.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> first = model.transformer.h[0]
        >>> with permute_layers(model, [5, 1, 2, 3, 4, 0]):
        ...     model.transformer.h[5] is first
        True
    """
    order = list(order)

    def permuted(blocks: Blocks) -> list[int]:
        blocks.check_once(order)
        missing = [layer for layer in range(len(blocks)) if layer not in order]
        if missing:
            raise ArgumentError(f"expected an order of all layers ({len(blocks)}), {_words(missing)} missing")
        return order

    return _surgery(model, f"layers in the order {listed(order, 12)}", permuted)


@checked
def repeat_layers(model: nn.Module, layers: Sequence[int], times: int = 2) -> Surgery:
    """Returns the surgery after which some layers run several times in a row, with the same weights.

    Args:
        model: A transformer of Hugging Face.
        layers: Which layers, from 0 on.
        times: How often each of them runs.

    Raises:
        ArgumentError: There is no such layer, or one is given twice.
        ArchitectureError: No list of blocks was found.
        EditError: The config does not say the kinds of layers, and these would change places.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> with repeat_layers(model, [2], times=3):
        ...     blocks = model.transformer.h
        ...     len(blocks), blocks[4].ln_1.weight is blocks[2].ln_1.weight
        (8, True)
    """
    check_counts(1, times=times)
    layers = list(layers)

    def repeated(blocks: Blocks) -> list[int]:
        blocks.check_once(layers)
        counts = [times if layer in layers else 1 for layer in range(len(blocks))]
        return [layer for layer, count in enumerate(counts) for _ in range(count)]

    return _surgery(model, f"repeat {_words(layers)} {counted(times, 'time')}", repeated)


@checked
def replace_layers(model: nn.Module, replacements: Mapping[int, Any]) -> Surgery:
    """Returns the surgery after which other modules, or other layers of the model, take the places of layers.

    Args:
        model: A transformer of Hugging Face.
        replacements: For each layer, from 0 on, a module that is called as the layer is and returns what it
            returns, or the number of another layer, which then runs there too with the same weights.

    Raises:
        ArgumentError: There is no such layer, or nothing that can replace one.
        ArchitectureError: No list of blocks was found.
        EditError: The config does not say the kinds of layers, and these would change places.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> with replace_layers(model, {5: 4}):
        ...     model.transformer.h[5].mlp.c_fc.weight is model.transformer.h[4].mlp.c_fc.weight
        True
    """
    given = dict(replacements)
    if not given:
        raise ArgumentError("expected replacements of layers, got none")
    for layer, one in given.items():
        if not isinstance(one, nn.Module) and type(one) is not int:
            raise ArgumentError(f"layer {layer} is replaced by a module or another layer, got {one!r}")
    modules = {layer: one for layer, one in given.items() if isinstance(one, nn.Module)}

    def replaced(blocks: Blocks) -> list[int]:
        blocks.check([*given, *(one for one in given.values() if not isinstance(one, nn.Module))])
        order = list(range(len(blocks)))
        for layer, one in given.items():
            order[layer] = layer if layer in modules else one
        return order

    return _surgery(model, f"replace {_words(list(given))}", replaced, modules)


@checked
def transplant_layers(model: nn.Module, donor: nn.Module, layers: Mapping[int, int]) -> Surgery:
    """Returns the surgery after which layers of another model take the places of layers of a model.

    They are copies of the donor's, in the precision and on the device of the model. Positions, masks and what
    else comes from outside of the layers are the model's.

    Args:
        model: A transformer of Hugging Face.
        donor: Another one of the same architecture.
        layers: For each layer of the model the layer of the donor that takes its place.

    Raises:
        ArgumentError: There is no such layer in one of them.
        ArchitectureError: No list of blocks was found in one of them.
        EditError: The layers do not fit: their class, the shape of a weight, the size of their heads or their
            kind of attention differ.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, donor = facts_gpt()[0], facts_gpt(pretrained=False)[0]
        >>> with transplant_layers(model, donor, {0: 3}):
        ...     moved, source = model.transformer.h[0].mlp.c_fc, donor.transformer.h[3].mlp.c_fc
        ...     bool((moved.weight == source.weight).all())
        True
    """
    pairs = dict(layers)
    if not pairs:
        raise ArgumentError("expected layers to transplant, got none")
    blocks, others = blocks_of(model), blocks_of(donor)
    others.check(list(pairs.values()))
    device, dtype = device_and_dtype(model)
    copies: dict[int, nn.Module] = {}

    def in_place(blocks: Blocks) -> list[int]:
        blocks.check(list(pairs))
        for layer, other in pairs.items():
            _check_fit(blocks, layer, others, other)
            if layer not in copies:
                copies[layer] = deepcopy(others.modules[other]).to(device, dtype)
                for part in copies[layer].modules():
                    if part.__dict__.get("config") is not None:
                        part.__dict__["config"] = blocks.config
        return list(range(len(blocks)))

    blocks.check(list(pairs))
    return _surgery(model, f"transplant {_words(list(pairs))}", in_place, copies)


def _surgery(
    model: nn.Module,
    description: str,
    order: Callable[[Blocks], list[int]],
    instead: Mapping[int, nn.Module] | None = None,
) -> Surgery:
    """A surgery that puts the blocks of a model, as they are when it is applied, into an order."""

    def plan() -> Any:
        blocks = blocks_of(model)
        return blocks.rearranged(order(blocks), instead)

    return Surgery(model, description, plan)


def _check_fit(blocks: Blocks, layer: int, others: Blocks, other: int) -> None:
    """Raises an error for layers of two models that do not fit."""
    mine, theirs = blocks.modules[layer], others.modules[other]
    names = f"layer {layer} of this {type(blocks.model).__name__}", f"layer {other} of the donor"
    if type(mine) is not type(theirs):
        raise EditError(f"{names[0]} is a {type(mine).__name__}, {names[1]} a {type(theirs).__name__}")
    shapes = [{name: tuple(one.shape) for name, one in each.state_dict().items()} for each in (mine, theirs)]
    for name in {**shapes[0], **shapes[1]}:
        sizes = [each.get(name, "missing") for each in shapes]
        if sizes[0] != sizes[1]:
            raise EditError(f"{name}: {names[0]} has {sizes[0]}, {names[1]} {sizes[1]}")
    for part, twin in zip(mine.modules(), theirs.modules(), strict=True):
        for name in ("head_dim", "head_size", "attention_head_size", "sliding_window"):
            one, two = getattr(part, name, None), getattr(twin, name, None)
            if one != two:
                raise EditError(f"{name}: {names[0]} has {one}, {names[1]} has {two}")
    for name in blocks.lists.keys() & others.lists.keys():
        one, two = blocks.lists[name][layer], others.lists[name][other]
        if one != two:
            raise EditError(f"{name}: {names[0]} is {one!r}, {names[1]} is {two!r}")


def _words(layers: Sequence[int]) -> str:
    return f"layer{'s' if len(layers) > 1 else ''} {listed(layers, 12)}"
