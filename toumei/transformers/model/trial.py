"""A trial pass of a transformer, in whose graph its hook points are found."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import ArchitectureError
from ...core.modules import device_and_dtype, evaluating
from ...core.offloading import has_offloaded
from ...core.outputs import main_tensor
from ...core.repeats import always_repeats, repeat_gap, warn_of_gap
from ...core.user_warnings import warn
from ...instrument import instrument
from .hook_search import HookPoints, find_hook_points
from .model_inputs import input_table


def hook_points_of(model: nn.Module) -> HookPoints:
    """Returns the hook points of a model, from a pass over two short rows in evaluation mode.

    Raises:
        ArchitectureError: It has none, or cannot be run on tokens or pictures alone.
    """
    name, config = type(model).__name__, getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False) and hasattr(model, "get_encoder"):
        inner: Any = model
        if inner.get_encoder() not in (None, model) and hasattr(model, "get_decoder"):
            raise ArchitectureError(
                f"{name} has an encoder and a decoder, two residual streams: give one of them, such as "
                f"HookedModel(model.get_encoder(), tokenizer); hooked() and instrument() read both under "
                f"native names"
            )
    towers = [
        part for part in ("vision_model", "text_model") if isinstance(getattr(model, part, None), nn.Module)
    ]
    if len(towers) == 2:
        raise ArchitectureError(
            f"{name} has two towers, two residual streams: give one of them, "
            f"HookedModel(model.vision_model) or HookedModel(model.text_model, tokenizer)"
        )
    if any(weight.is_meta for weight in model.parameters()) and not has_offloaded(model):
        raise ArchitectureError(f"weights of {name} are on the meta device, without numbers: load them")
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    if capped and getattr(config, "_attn_implementation", "") == "sdpa":
        warn(
            f"the sdpa attention of transformers leaves the soft caps of {name} out, so that it computes "
            f'something else than what was trained: load it with attn_implementation="eager"'
        )
    args, kwargs = trial_inputs(model)
    try:
        with torch.no_grad(), evaluating(model):
            known = always_repeats(model)
            with instrument(model) as probe, probe.track([]) as tracker:
                said = main_tensor(model(*args, **kwargs)).clone()
            again = said if known else main_tensor(model(*args, **kwargs))
    except Exception as error:
        if type(error).__module__ != "builtins":  # ours, one of the user's code, or that of a full device
            raise
        given = ", ".join(kwargs)
        raise ArchitectureError(f"{name} cannot be run on {given} alone: {error}") from error
    warn_of_gap(repeat_gap(said, again))
    return find_hook_points(tracker.build_graph())


def trial_inputs(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Tensor]]:
    """Returns inputs of two short rows for a trial pass, which tell the axes of heads and positions apart.

    Raises:
        ArchitectureError: It is not known what the model is given.
    """
    device, dtype = device_and_dtype(model)
    config: Any = getattr(model, "config", None)
    name = getattr(model, "main_input_name", None)
    generator = torch.Generator().manual_seed(0)
    size = getattr(config, "image_size", None)
    if name == "pixel_values" and size is not None:
        height, width = size if isinstance(size, Sequence) else (size, size)
        pixels = torch.rand(2, getattr(config, "num_channels", 3), height, width, generator=generator)
        return (), {"pixel_values": pixels.to(device, dtype)}
    bins, positions = (getattr(config, key, None) for key in ("num_mel_bins", "max_source_positions"))
    if name == "input_features" and bins and positions:  # speech, two frames for each position
        frames = torch.rand(2, bins, 2 * positions, generator=generator)
        return (), {"input_features": frames.to(device, dtype)}
    weight = None if config is None else input_table(model)
    if weight is None or name == "pixel_values":
        raise ArchitectureError(
            f"it is not known what {type(model).__name__} is given: expected a Hugging Face transformer of "
            f"tokens (input_ids), pictures (pixel_values) or speech (input_features)"
        )
    numbers = {value for value in vars(config).values() if isinstance(value, int)}
    most = getattr(config, "max_position_embeddings", None) or 20
    most = most if most > 0 else 20  # XLNet has -1 there, for any number of positions
    lengths = (one for one in (7, 11, 13, 5, 17, 19) if one not in numbers and one <= most)
    length = next(lengths, most)
    padding = getattr(config, "pad_token_id", None)
    known = [token for token in range(min(len(weight), 64)) if token != padding]
    picks = torch.randint(len(known), (2, length), generator=generator)
    return (), {"input_ids": torch.tensor(known)[picks].to(device)}
