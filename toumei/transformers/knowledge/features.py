"""Activations of texts at one position each, or at all of them, as rows for a probe."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.conversions import has_values
from ...core.errors import ArgumentError
from ...core.kinds import shown
from ...core.modules import evaluating
from ...core.progress import tqdm
from ...core.summaries import counted
from ..model.hooked_model import HookedModel
from ..model.point_names import wanted_names

_WORDS = "'last', 'mean', 'token', a position, or a position for each text"


@dataclass(frozen=True, eq=False, repr=False)
class Features:
    """Activations of texts.

    Attributes:
        names: The names of the activations.
        values: For each of them (rows, numbers), float32 on the CPU.
        texts: Which text each row comes from, (rows,).
        tokens: The token id of each row, (rows,); that of the last token where a row is a mean.
    """

    names: tuple[str, ...]
    values: tuple[Tensor, ...]
    texts: Tensor
    tokens: Tensor


def read_features(
    model: HookedModel,
    texts: Sequence[Any],
    names: Any,
    position: Any = "last",
    *,
    batch_size: int = 32,
    verbose: bool = False,
) -> Features:
    """Returns activations of texts at some positions.

    Args:
        model: The model.
        texts: Texts, or rows of token ids.
        names: Names of activations, see `HookedModel.run_with_cache`.
        position: ``"last"``, the last token; ``"mean"``, over all tokens; ``"token"``, a row for each token;
            a position from the start or, if negative, the end; or one for each text.
        batch_size: How many texts run at once.
        verbose: Show progress.

    Raises:
        ArgumentError: There are no texts, or no such position.
        LayerError: An activation that the model does not have.
    """
    given: Any = texts
    several = not isinstance(given, Tensor) or (has_values(given) and given.dim() == 2)
    if isinstance(given, str) or not several or not len(given):
        raise ArgumentError(f"expected several texts, or token ids (texts, positions), got {shown(texts)}")
    places = _places(position, len(texts))
    wanted = [name for name in wanted_names(model.model, names, model.points)]
    found: dict[str, list[Tensor]] = {name: [] for name in wanted}
    owners, tokens = [], []
    starts = range(0, len(texts), batch_size)
    with torch.no_grad(), evaluating(model.model):
        for start in tqdm(starts, desc="activations", disable=not verbose):
            batch = list(texts[start : start + batch_size])
            inputs = model.inputs(batch)
            ids = inputs.get("input_ids")
            if ids is None:
                raise ArgumentError("probes read texts or token ids")
            if len(ids) != len(batch):
                raise ArgumentError(f"expected several texts, or token ids of each, got {shown(texts)}")
            weights = _weights(inputs, places[start : start + len(batch)])
            cache = model.run_with_cache(inputs, wanted)[1]
            rows = weights.nonzero()[:, 0] if is_each_token(position) else torch.arange(len(batch))
            for name in wanted:
                found[name].append(_read(cache[name], weights, is_each_token(position)))
            owners.append(start + rows)
            last = torch.stack([row.nonzero()[-1, 0] for row in weights])
            tokens.append(
                ids.cpu()[weights.bool()]
                if is_each_token(position)
                else ids.cpu()[torch.arange(len(batch)), last]
            )
    return Features(
        names=tuple(wanted),
        values=tuple(torch.cat(parts) for parts in found.values()),
        texts=torch.cat(owners),
        tokens=torch.cat(tokens),
    )


def is_each_token(position: Any) -> bool:
    """Returns whether each token of a text is read; a position may also be an array, one for each text."""
    return isinstance(position, str) and position == "token"


def _places(position: Any, count: int) -> list[Any]:
    """The position of each text."""
    if isinstance(position, str) or type(position) is int:
        if isinstance(position, str) and position not in ("last", "mean", "token"):
            raise ArgumentError(f"position is {_WORDS}, got {position!r}")
        return [position] * count
    usable = not isinstance(position, Tensor) or has_values(position)
    given = position.tolist() if usable and hasattr(position, "tolist") else position
    if not isinstance(given, Sequence) or len(given) != count or any(type(one) is not int for one in given):
        raise ArgumentError(f"position is {_WORDS} ({counted(count, 'text')}), got {shown(position)}")
    return list(given)


def _weights(inputs: dict[str, Any], places: Sequence[Any]) -> Tensor:
    """What each position counts in a row, (texts, positions): all in a mean, one else."""
    ids = inputs["input_ids"]
    mask = inputs.get("attention_mask")
    mask = (torch.ones_like(ids) if mask is None else mask).cpu().float()
    weights = torch.zeros_like(mask)
    for row, (place, real) in enumerate(zip(places, mask, strict=True)):
        known = real.nonzero()[:, 0]
        if place in ("mean", "token"):
            weights[row] = real
            continue
        index = -1 if place == "last" else place
        if not -len(known) <= index < len(known):
            raise ArgumentError(f"a text of {counted(len(known), 'token')} has no position {place}")
        weights[row, known[index]] = 1
    return weights


def _read(tensor: Tensor, weights: Tensor, by_token: bool) -> Tensor:
    """The rows of one activation (texts, positions, ...)."""
    if tensor.shape[:2] != weights.shape:
        raise ArgumentError(
            f"expected an activation (texts, positions, ...) with {tuple(weights.shape)}, got "
            f"{tuple(tensor.shape)}"
        )
    vectors = tensor.float().cpu().flatten(2)
    if by_token:
        return vectors[weights.bool()]
    return torch.einsum("bp,bpw->bw", weights / weights.sum(1, keepdim=True), vectors)
