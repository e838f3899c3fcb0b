"""A model without its blocks, which says how the model calls them and what it makes of their result.

A block cannot be called alone without the masks, position embeddings and caches that the model prepares for
it, and no two architectures prepare the same. The skeleton is a copy of the model's outer modules in which
stand-ins take the places of the blocks, so the model's own code prepares the arguments and turns the last
vectors into logits. It shares all weights with the model and leaves the model as it is.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ...core.outputs import main_tensor, with_main_tensor
from .families import Anatomy


class _Stop(Exception):
    """Ends a pass of the skeleton behind its last block; never leaves this file."""


class BlockwiseRunner:
    """The outside of a model: arguments for its blocks, logits from their result.

    Args:
        parts: Where the parts of the model are.
    """

    def __init__(self, parts: Anatomy) -> None:
        self._blocks = [parts.module(name) for name in parts.blocks]
        self._calls: list[Call] = []
        self._vectors: Tensor | None = None
        self._sample: Any = None
        stand_ins = nn.ModuleList(_StandIn(block, self) for block in self._blocks)
        self._model = _with_module(parts.model, parts.blocks[0].split(".")[:-1], stand_ins)
        self.calls(parts.two_tokens)

    def calls(self, ids: Tensor, cache: Any = None) -> "list[Call]":
        """Returns how the model calls each of its blocks for these tokens behind a cache.

        Args:
            ids: Token ids (N, T).
            cache: A Hugging Face cache of the tokens before, or None for a model that should use none.
        """
        self._calls, self._vectors = [], None
        options = {"use_cache": False} if cache is None else {"use_cache": True, "past_key_values": cache}
        try:
            self._model(input_ids=ids, **options)
        except _Stop:
            pass
        finally:
            calls, self._calls = self._calls, []
        return calls

    def logits(self, vectors: Tensor, ids: Tensor) -> Tensor:
        """Returns the logits (N, tokens) that the model makes of the last block's output at one position.

        Args:
            vectors: (N, width).
            ids: Any token (1, 1), to start the pass with.
        """
        self._vectors = vectors[:, None]
        try:
            output = self._model(input_ids=ids.expand(len(vectors), 1), use_cache=False)
        finally:
            self._vectors = None
        return main_tensor(output)[:, -1]

    def visit(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answers for a block: with the given vectors, or with its own input after keeping its arguments."""
        if self._sample is None:  # what kind of output the model expects, shown by its first block
            self._sample = block(*args, **kwargs)
        call = Call(args, kwargs)
        if self._vectors is not None:
            return with_main_tensor(self._sample, self._vectors.to(call.vectors.device))
        self._calls.append(call)
        if len(self._calls) == len(self._blocks):
            raise _Stop
        return with_main_tensor(self._sample, call.vectors)


class Call:
    """The arguments of one call of a block, which can be used again for other rows.

    Attributes:
        vectors: The residual stream (N, T, width) that the block was given.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args, self._kwargs = args, kwargs
        self.vectors: Tensor = args[0] if args else kwargs["hidden_states"]

    def repeat(self, block: nn.Module, vectors: Tensor, cache: Any = None) -> Tensor:
        """Returns the block's output for other rows at the same positions.

        Args:
            block: The block.
            vectors: (N, T, width).
            cache: What takes the place of the cache in the arguments.
        """
        args, kwargs = _for_rows((self._args, self._kwargs), len(vectors), cache, "")
        if args:
            args = (vectors, *args[1:])
        else:
            kwargs["hidden_states"] = vectors
        return main_tensor(block(*args, **kwargs))


def same(found: Tensor, expected: Tensor) -> bool:
    """Returns whether blocks that are called one by one compute what they compute in the model.

    Rounding is far below, a wrong mask or position far above, the square root of the precision.
    """
    tolerance = torch.finfo(expected.dtype).eps ** 0.5 * float(expected.abs().max())
    return torch.allclose(found, expected.to(found).expand_as(found), rtol=0, atol=tolerance)


class _StandIn(nn.Module):
    """Takes the place of a block, and passes for it when the model looks at its attributes."""

    def __init__(self, block: nn.Module, skeleton: BlockwiseRunner) -> None:
        super().__init__()
        self.__dict__["_block"], self.__dict__["_skeleton"] = block, skeleton

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_block"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__["_skeleton"].visit(self.__dict__["_block"], args, kwargs)


def _with_module(module: nn.Module, path: list[str], replacement: nn.Module) -> nn.Module:
    """A copy of a module, and of the modules on the path, with another module at the end of the path."""
    if not path:
        return replacement
    copy = object.__new__(type(module))
    copy.__dict__.update(module.__dict__)
    copy.__dict__.pop("forward", None)  # libraries that spread a model over devices bind it to the original
    children = dict(module._modules)
    children[path[0]] = _with_module(module.get_submodule(path[0]), path[1:], replacement)
    copy.__dict__["_modules"] = children
    return copy


def _for_rows(value: Any, rows: int, cache: Any, name: str) -> Any:
    """Arguments that were made for one row, for several."""
    from transformers import Cache

    if isinstance(value, Tensor) and name == "alibi":
        return value.repeat(rows, *[1] * (value.dim() - 1))  # its first axis is rows times heads
    if isinstance(value, Tensor) and value.dim() > 1 and value.shape[0] == 1:
        return value.expand(rows, *value.shape[1:])
    if isinstance(value, Cache):
        return cache
    if isinstance(value, (tuple, list)):
        return type(value)(_for_rows(item, rows, cache, name) for item in value)
    if isinstance(value, dict):
        return {key: _for_rows(item, rows, cache, key) for key, item in value.items()}
    return value
