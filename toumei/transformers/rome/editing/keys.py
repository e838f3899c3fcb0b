"""What a model's layers are given and return where subjects are complete."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ....core.errors import ArchitectureError
from ....core.hooks import hooked, run
from ....core.modules import evaluating
from ....core.tensors import whole
from ...model.families import Anatomy
from ..weight_edits import registry as applied
from .methods import Keys
from .requests import Row, padded


def read_keys(
    parts: Anatomy, layer: int, texts: Sequence[Sequence[Row]], bare_weight: float, batch_size: int
) -> Keys:
    """Returns the keys of some facts in a layer: in the bare prompt, and averaged over the contexts.

    Args:
        parts: The model.
        layer: The layer whose down-projection is given the keys.
        texts: For each fact its texts, the bare prompt first.
        bare_weight: What the bare prompt counts in the average; the others share the rest.
        batch_size: How many texts are run at once.
    """
    found = read_states(parts, parts.down(layer), texts, batch_size, inputs=True)
    bare, others = found[:, 0], found[:, 1:]
    mean = bare if not others.shape[1] else bare_weight * bare + (1 - bare_weight) * others.mean(1)
    earlier = applied.earlier_keys(parts.module(parts.down(layer)))
    return Keys.of(mean, bare, None if earlier is None else earlier.double())


def read_states(
    parts: Anatomy, name: str, texts: Sequence[Sequence[Row]], batch_size: int, *, inputs: bool = False
) -> Tensor:
    """Returns what a module returns at the subjects' last tokens: (facts, texts, size) in float64 on the CPU.

    Args:
        parts: The model.
        name: The module.
        texts: For each fact its texts, as many as for every other.
        batch_size: How many texts are run at once.
        inputs: Read what the module is given instead.
    """
    rows = [text for several in texts for text in several]
    found = []
    with torch.no_grad(), evaluating(parts.model):
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            tokens, _ = padded([text.ids[: text.subject + 1] for text in batch], parts.device)
            with hooked(parts.model, [name], inputs=inputs, stop=True, detach=True) as activations:
                parts.model(tokens, use_cache=False)
            states = whole(activations[name]).reshape(*tokens.shape, -1)
            found.append(states[range(len(batch)), [text.subject for text in batch]].cpu().double())
    return torch.cat(found).unflatten(0, (len(texts), -1))


def check_straight(parts: Anatomy, layer: int) -> None:
    """Makes sure that what a down-projection returns joins the residual stream as it is.

    Methods that spread a change of the stream over several layers take that for granted.

    Raises:
        ArchitectureError: The model normalizes or scales it on the way, as Gemma 2 and OLMo 2 do.
    """
    tokens = torch.zeros(1, 1, dtype=torch.long, device=parts.device)
    block, down = parts.block(layer), parts.down(layer)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad(), evaluating(parts.model):
        before = run(parts.model, tokens, record=[block, down], detach=True, stop={block: 1})
        stream = before[block].float().abs().max().cpu()
        rounding = torch.finfo(before[block].dtype).eps * stream  # far below the step
        step = torch.randn(parts.width, generator=draw) * (before[down].float().std().cpu() + 32 * rounding)
        with hooked(
            parts.model, [block], {down: lambda output: output + step.to(output)}, stop=True
        ) as after:
            parts.model(tokens, use_cache=False)
        moved = (after[block].float() - before[block].float()).flatten().cpu()
    if float((moved - step).norm()) > 0.1 * float(step.norm()):
        raise ArchitectureError(
            f"layer {layer} of {type(parts.model).__name__} changes what its MLP returns before it joins the "
            f"residual stream, so a change of the stream cannot be made by the MLP: take 'rome' or 'r-rome'"
        )
