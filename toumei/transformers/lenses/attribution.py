"""Direct logit attribution: how much each part of a model adds to a logit directly (Elhage et al., 2021).

The residual stream before the final norm is a sum of parts. Where the scale of the norm is kept constant, a
logit is a linear function of it, so that it is a sum over the same parts:

    logit_a - logit_b = sum over parts p of (s * gain * (p - mean(p))) . (W_a - W_b) + norm bias + head bias
"""

from typing import Any

import torch
from torch import Tensor, nn

from ...core.checks import checked
from ...core.errors import ArgumentError, ShapeError
from ...core.finite import check_finite
from ...core.modules import evaluating
from ..model.families import anatomy
from ..model.final_stream import residual_stream
from ..model.frozen_norms import FrozenNorm
from ..model.tokens import as_prompt, continuation, tokenize
from .attribution_result import LogitAttribution
from .contributions import Contributions, vectors_of


@checked
def direct_logit_attribution(
    model: nn.Module,
    tokenizer: Any,
    prompt: Any,
    answer: str,
    against: str | None = None,
    *,
    heads: bool = False,
    neurons: bool = False,
    sources: bool = False,
) -> LogitAttribution:
    """Returns what each part of a model adds to the logit of an answer at the end of a prompt.

    The scale of the final norm, and of norms after attention and MLP, is kept as it is in this pass. The
    contributions then sum to the logit of the model exactly, which is checked. A soft cap of the logits, as
    in Gemma 2, is left out: the sum is the logit before it. Edits of the weights count, and those of `hooked`
    blocks around the call, which see a pass of two tokens, too.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        prompt: A text that the answer would continue, or the ids of its tokens.
        answer: The answer; its first token is used.
        against: Another answer, whose logit is subtracted.
        heads: Whether to split attention by heads.
        neurons: Whether to split MLPs by neurons.
        sources: Whether to split attention by the tokens that it takes values from.

    Raises:
        ArchitectureError: The stream is no sum of parts, or the logits are no linear function of it; heads or
            neurons of a model that has none.
        ArgumentError: The prompt or an answer is empty, both answers begin with the same token, or the model
            reads no text of this length.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> fact = world.facts[0]
        >>> found = direct_logit_attribution(model, tokenizer, fact.text, fact.target, heads=True)
        >>> abs(float(found.contributions.sum()) - found.logit) < 1e-4, tuple(found.heads.shape)
        (True, (6, 4))
    """
    parts = anatomy(model)
    text = as_prompt(tokenizer, prompt)
    tokens = tokenize(tokenizer, text).ids
    parts.check_length(len(tokens), str(text))
    wanted = [continuation(tokenizer, text, one)[0] for one in (answer, against) if one is not None]
    if len(set(wanted)) < len(wanted):
        raise ArgumentError(f"the answers {answer!r} and {against!r} begin with the same token")
    with torch.no_grad(), evaluating(parts.model):
        stream = residual_stream(parts)
        ids = torch.tensor([tokens], device=parts.device)
        found = Contributions(parts, stream, vectors_of(parts, stream, ids, values=sources), wanted)
        summands = found.summands()
        added = linear_contributions(torch.stack(list(summands.values())), found.direction, found.norm)
        named = dict(zip(summands, added, strict=True)) | found.constants()
        contributions = torch.stack(list(named.values()))
        found.check_sum(contributions)
        return LogitAttribution(
            prompt=str(text),
            answer=answer,
            against=against,
            labels=tuple(named),
            contributions=contributions,
            logit=found.logit,
            capped=stream.capped,
            heads=found.heads() if heads else None,
            neurons=found.neurons() if neurons else None,
            sources=found.sources() if sources else None,
            tokens=tuple(tokenizer.decode([token]) for token in tokens),
        )


@checked
def linear_contributions(summands: Tensor, direction: Tensor, norm: FrozenNorm | None = None) -> Tensor:
    """Returns what each summand of a vector adds to the product of its norm with a direction, (parts,).

    Args:
        summands: (parts, width).
        direction: (width,), a row of the unembedding or the difference of two.
        norm: The norm before it, with the scale of the whole vector; None for none.

    Raises:
        ShapeError: The sizes do not fit.

    Example:
        >>> from toumei.transformers.model.frozen_norms import freeze_norm
        >>> summands, direction = torch.randn(3, 8).double(), torch.randn(8).double()
        >>> norm = freeze_norm(module := nn.LayerNorm(8).double(), summands.sum(0))
        >>> found = linear_contributions(summands, direction, norm)
        >>> torch.allclose(found.sum() + direction @ norm.bias, direction @ module(summands.sum(0)))
        True
    """
    if summands.dim() != 2 or direction.shape != summands.shape[1:]:
        raise ShapeError(
            f"expected summands (parts, width) and a direction (width,), got {tuple(summands.shape)} and "
            f"{tuple(direction.shape)}"
        )
    check_finite(summands, "summands")
    direction = direction.double()
    return summands.double() @ (direction if norm is None else norm.pull(direction))
