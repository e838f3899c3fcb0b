"""The list of blocks of a transformer, and what changes with it: numbers of layers, caches, the config."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...core.errors import ArchitectureError, ArgumentError, EditError
from ...core.modules import check_model, find_module, without_wrapper
from ...core.summaries import counted
from ..model.discovery import search_blocks
from .changes import Replacement, attribute, sharing_copy

_NUMBERS = ("layer_idx", "layer_id")  # of a layer in the cache of keys and values


@dataclass(frozen=True, eq=False, repr=False)
class Blocks:
    """The blocks of a transformer.

    Attributes:
        model: The model.
        holder: The list that holds them.
        config: The config that counts them.
    """

    model: nn.Module
    holder: nn.ModuleList
    config: Any

    @property
    def modules(self) -> list[nn.Module]:
        """The blocks, first to last."""
        return list(self.holder)

    def __len__(self) -> int:
        return len(self.holder)

    def check(self, layers: Sequence[int]) -> None:
        """Raises an error for layers that the model does not have.

        Raises:
            ArgumentError: The message names the first one.
        """
        for layer in layers:
            if type(layer) is not int or not 0 <= layer < len(self):
                raise ArgumentError(
                    f"no layer {layer!r} in {type(self.model).__name__}: it has "
                    f"{counted(len(self), 'layer')}, 0 to {len(self) - 1}"
                )

    def check_once(self, layers: Sequence[int]) -> None:
        """Raises an error for layers that the model does not have, or that are given twice.

        Raises:
            ArgumentError: The message names the first one.
        """
        self.check(layers)
        if not layers:
            raise ArgumentError("expected layers, got none")
        twice = [layer for layer in layers if list(layers).count(layer) > 1]
        if twice:
            raise ArgumentError(f"layer {twice[0]} is given twice: {list(layers)}")

    @property
    def lists(self) -> dict[str, Sequence[Any]]:
        """What the config says of each layer, such as `layer_types`, by name."""
        return {
            name: value
            for name, value in vars(self.config).items()
            if "layer" in name and isinstance(value, list | tuple) and len(value) == len(self)
        }

    def rearranged(
        self, order: Sequence[int], instead: Mapping[int, nn.Module] | None = None
    ) -> list[Replacement]:
        """Returns the changes after which the model runs its blocks in another order.

        Args:
            order: For each new layer the number of the layer that runs there; one that comes again is a copy
                with the same weights.
            instead: Modules that take the places of new layers, by their numbers in the new order.
        """
        instead, modules, seen = instead or {}, self.modules, set[int]()
        if len({type(module) for module in modules}) > 1 and not self.lists:
            self._check_kinds(order)
        found: list[nn.Module] = []
        for place, layer in enumerate(order):
            module = instead.get(place)
            if module is None:
                module = sharing_copy(modules[layer]) if layer in seen else modules[layer]
                seen.add(layer)
            found.append(module)
        named = {str(place): module for place, module in enumerate(found)}
        return [
            attribute(self.holder, "_modules", named),
            *_numbered(found),
            *self._config_changes(order, found),
        ]

    def _check_kinds(self, order: Sequence[int]) -> None:
        """Raises an error where the kind of a layer follows from its number alone."""
        kinds = [type(module) for module in self.modules]
        if [kinds[layer] for layer in order] != kinds[: len(order)]:
            raise EditError(
                f"the layers of {type(self.model).__name__} are of several kinds, and its config does not "
                f"list them: only layers of one kind can change places"
            )

    def _config_changes(self, order: Sequence[int], modules: Sequence[nn.Module]) -> list[Replacement]:
        """Copies of the config that count and list the new layers, for all modules that hold it.

        Another model may share the config, so that it stays as it is.
        """
        new = copy(self.config)
        count = getattr(new, "attribute_map", {}).get("num_hidden_layers", "num_hidden_layers")
        new.__dict__[count] = len(order)
        for name, value in self.lists.items():
            listed = [value[layer] for layer in order]
            new.__dict__[name] = tuple(listed) if isinstance(value, tuple) else listed
        pairs = {id(self.config): new}
        outer = getattr(self.model, "config", self.config)
        if outer is not self.config:
            pairs[id(outer)] = copy(outer)
            for name, value in vars(outer).items():
                if value is self.config:
                    pairs[id(outer)].__dict__[name] = new
        changes = {}
        inside = [part for module in modules for part in module.modules()]
        for module in (*self.model.modules(), *inside):
            config = module.__dict__.get("config")
            if id(config) in pairs:
                changes[id(module)] = attribute(module, "config", pairs[id(config)])
        return list(changes.values())


def blocks_of(model: nn.Module) -> Blocks:
    """Returns the blocks of a transformer of Hugging Face: decoder, encoder or vision transformer.

    Raises:
        ArgumentError: It is no module.
        ArchitectureError: It is compiled, or no list of blocks was found.
    """
    check_model(model)
    if without_wrapper(model) is not model:
        raise ArchitectureError(
            "the model is compiled for the layers that it has: give the model that was compiled, "
            "model._orig_mod, and compile it again"
        )
    name = search_blocks(model)
    holder: Any = find_module(model, name)
    config: Any = model.config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    return Blocks(model, holder, config)


def _numbered(modules: Sequence[nn.Module]) -> list[Replacement]:
    """Gives layers their new numbers, by which they find their keys and values in a cache."""
    return [
        attribute(part, name, place)
        for place, module in enumerate(modules)
        for part in module.modules()
        for name in _NUMBERS
        if part.__dict__.get(name) not in (None, place)
    ]
