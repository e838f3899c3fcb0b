"""Calling the blocks of a model one by one, with the arguments that the model gives them.

A block needs masks, position embeddings and caches, which each architecture prepares in another way. The
blockwise runner copies the modules around the blocks and replaces the blocks by stand-ins. The code of the
model then prepares the arguments, and it turns the output of the last block into logits. The copy shares all
weights with the model and leaves the model as it is.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ...core.modules import without_wrapper
from ...core.outputs import main_tensor, with_main_tensor
from ...core.products import onednn_products
from .families import Anatomy
from .prefix_cache import cache_option

LOGITS_AT_ONCE = 2**23  # a CPU uses their memory again; that of more comes from the system each time


class _AllBlocksReached(Exception):
    """Ends a pass of the runner after its last block; never leaves this file."""


class BlockwiseRunner:
    """A model whose blocks are called from outside: arguments for the blocks, logits from their output.

    Args:
        parts: Where the parts of the model are.
    """

    def __init__(self, parts: Anatomy) -> None:
        self._blocks = [parts.module(name) for name in parts.blocks]
        self._calls: list[BlockCall] = []
        self._vectors: Tensor | None = None
        self._sample: Any = None
        stand_ins = nn.ModuleList(_StandIn(block, self) for block in self._blocks)
        self._model = with_module(parts.model, parts.blocks[0].split(".")[:-1], stand_ins)
        self.calls(parts.two_tokens)

    def calls(self, ids: Tensor, cache: Any = None) -> "list[BlockCall]":
        """Returns the arguments with which the model calls each block for these tokens.

        Args:
            ids: Token ids (N, T).
            cache: A Hugging Face cache of the preceding tokens, or None for a pass without a cache.
        """
        self._calls, self._vectors = [], None
        options = {} if cache is None else cache_option(self._model, cache)
        try:
            self._model(input_ids=ids, use_cache=cache is not None, **options)
        except _AllBlocksReached:
            pass
        finally:
            calls, self._calls = self._calls, []
        return calls

    def logits(self, vectors: Tensor, ids: Tensor) -> Tensor:
        """Returns the logits (N, tokens) for outputs of the last block at one position.

        Args:
            vectors: (N, width).
            ids: Any token (1, 1); the pass needs an input.
        """
        self._vectors = vectors[:, None]
        try:
            with onednn_products():
                output = self._model(input_ids=ids.expand(len(vectors), 1), use_cache=False)
        finally:
            self._vectors = None
        return main_tensor(output)[:, -1]

    def visit(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Stands in for a block: returns the given vectors, or stores the call and returns its input."""
        if self._sample is None:  # the first block shows the type of output that the model expects
            self._sample = block(*args, **kwargs)
        call = BlockCall(args, kwargs)
        if self._vectors is not None:
            return with_main_tensor(self._sample, self._vectors.to(call.vectors.device))
        self._calls.append(call)
        if len(self._calls) == len(self._blocks):
            raise _AllBlocksReached
        return with_main_tensor(self._sample, call.vectors)


class BlockCall:
    """The arguments of one call of a block, which can be used again for other rows.

    Attributes:
        vectors: The input of the block from the residual stream, (N, T, width).
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args, self._kwargs = args, kwargs
        self.vectors: Tensor = args[0] if args else kwargs["hidden_states"]

    def repeat(self, block: nn.Module, vectors: Tensor, cache: Any = None) -> Tensor:
        """Returns the block's output for other rows at the same positions.

        Args:
            block: The block.
            vectors: (N, T, width).
            cache: The cache to pass instead of the one in the arguments.
        """
        args, kwargs = _for_rows((self._args, self._kwargs), len(vectors), cache, "")
        if args:
            args = (vectors, *args[1:])
        else:
            kwargs["hidden_states"] = vectors
        with onednn_products():
            return main_tensor(block(*args, **kwargs))


def nearly_equal(found: Tensor, expected: Tensor) -> bool:
    """Returns whether two results differ by rounding only.

    The tolerance is the square root of the precision, relative to the largest expected value. Rounding is far
    below it; the effect of a wrong mask or position is far above it.
    """
    tolerance = torch.finfo(expected.dtype).eps ** 0.5 * float(expected.abs().max())
    return torch.allclose(found, expected.to(found).expand_as(found), rtol=0, atol=tolerance)


def with_module(module: nn.Module, path: list[str], replacement: nn.Module) -> nn.Module:
    """Returns a copy of a module, with the same weights, in which one submodule is replaced.

    Args:
        module: The module.
        path: The names of the submodules that lead to the one that is replaced.
        replacement: What stands in its place.
    """
    if not path:
        return replacement
    module = without_wrapper(module)
    copy = object.__new__(type(module))
    copy.__dict__.update(module.__dict__)
    # accelerate stores a `forward` there, and `torch.compile` a call; both are bound to the original
    copy.__dict__.pop("forward", None)
    copy.__dict__.pop("_compiled_call_impl", None)
    children = dict(module._modules)
    children[path[0]] = with_module(module.get_submodule(path[0]), path[1:], replacement)
    copy.__dict__["_modules"] = children
    return copy


class _StandIn(nn.Module):
    """Replaces a block in the runner; its attributes are those of the block."""

    def __init__(self, block: nn.Module, runner: BlockwiseRunner) -> None:
        super().__init__()
        self.__dict__["_block"], self.__dict__["_runner"] = block, runner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_block"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__["_runner"].visit(self.__dict__["_block"], args, kwargs)


def _for_rows(value: Any, rows: int, cache: Any, name: str) -> Any:
    """Arguments of a call with one row, expanded to several rows."""
    from transformers import Cache

    if isinstance(value, Tensor) and name == "alibi":
        return value.repeat(rows, *[1] * (value.dim() - 1))  # the first axis is rows times heads
    if isinstance(value, Tensor) and value.dim() > 1 and value.shape[0] == 1:
        return value.expand(rows, *value.shape[1:])
    if isinstance(value, Cache):
        return cache
    if isinstance(value, (tuple, list)):
        return type(value)(_for_rows(item, rows, cache, name) for item in value)
    if isinstance(value, dict):
        return {key: _for_rows(item, rows, cache, key) for key, item in value.items()}
    return value
