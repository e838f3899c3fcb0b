"""The inputs and outputs of modules at the last tokens of subjects: keys and states."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ....core.errors import ArchitectureError
from ....core.hooks import hooked, run
from ....core.modules import evaluating
from ....core.tensors import whole
from ...model.families import Anatomy
from ...model.tokens import padded
from ..weight_edits import registry
from .methods import Keys
from .requests import SubjectText


def read_keys(
    parts: Anatomy, layer: int, texts: Sequence[Sequence[SubjectText]], bare_weight: float, batch_size: int
) -> Keys:
    """Returns the keys of some facts in a layer: in the bare prompt, and averaged over the contexts.

    Args:
        parts: The model.
        layer: The layer; the keys are the inputs of its down-projection.
        texts: For each fact its texts, the bare prompt first.
        bare_weight: The weight of the bare prompt in the average; the other texts share the rest.
        batch_size: How many texts are run at once.
    """
    found = read_states(parts, parts.down(layer), texts, batch_size, inputs=True)
    bare, others = found[:, 0], found[:, 1:]
    mean = bare if not others.shape[1] else bare_weight * bare + (1 - bare_weight) * others.mean(1)
    earlier = registry.earlier_keys(parts.module(parts.down(layer)))
    return Keys.of(mean, bare, None if earlier is None else earlier.double())


def read_states(
    parts: Anatomy,
    name: str,
    texts: Sequence[Sequence[SubjectText]],
    batch_size: int,
    *,
    inputs: bool = False,
) -> Tensor:
    """Returns the outputs of a module at the subjects' last tokens, (facts, texts, size), float64 on the CPU.

    Args:
        parts: The model.
        name: The name of the module.
        texts: For each fact its texts; all facts have the same number of texts.
        batch_size: How many texts are run at once.
        inputs: Return the inputs of the module instead.
    """
    rows = [text for several in texts for text in several]
    found = []
    with torch.no_grad(), evaluating(parts.model):
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            tokens, _ = padded([text.ids[: text.subject + 1] for text in batch], parts.device)
            runs = parts.runs([name])
            with hooked(parts.model, runs, inputs=inputs, stop=True, detach=True) as activations:
                parts.model(tokens, use_cache=False)
            states = whole(activations[name]).reshape(*tokens.shape, -1)
            found.append(states[range(len(batch)), [text.subject for text in batch]].cpu().double())
    result: Tensor = torch.cat(found).unflatten(0, (len(texts), -1))
    return result


def check_unscaled(parts: Anatomy, layer: int) -> None:
    """Checks that the output of a down-projection is added to the residual stream without a change.

    Methods that spread a change of the residual stream over several layers need this.

    Raises:
        ArchitectureError: The model normalizes or scales the output first, as Gemma 2 and OLMo 2 do.
    """
    block, down = parts.block(layer), parts.down(layer)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad(), evaluating(parts.model):
        before = run(parts.model, parts.two_tokens, record=parts.runs([block, down]), detach=True)
        stream = before[block].float().abs().max().cpu()
        rounding = torch.finfo(before[block].dtype).eps * stream  # far below the step
        size = before[down].float().std().cpu() + 32 * rounding
        # A norm may give back a step of one size as it is, but not those of two sizes.
        step = torch.randn(parts.width, generator=draw) * (size if size > 0 else 1.0)
        steps = torch.stack([step, 3 * step])
        edit = {parts.runs([down])[down]: lambda output: output + steps.to(output).view_as(output)}
        with hooked(parts.model, parts.runs([block]), edit, stop=True) as after:
            parts.model(parts.two_tokens, use_cache=False)
        moved = (after[block].float() - before[block].float()).reshape(-1, parts.width).cpu()
    if bool(((moved - steps).norm(dim=1) > 0.1 * steps.norm(dim=1)).any()):
        raise ArchitectureError(
            f"layer {layer} of {type(parts.model).__name__} changes its MLP's output before it joins the "
            f"residual stream, so a change of the stream cannot be made by the MLP: take 'rome' or 'r-rome'"
        )
