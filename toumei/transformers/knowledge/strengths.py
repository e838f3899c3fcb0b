"""What a steering vector does at several strengths, and what it costs in the loss on other texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.progress import tqdm
from ...core.serialization import Saved
from ...core.summaries import counted, shortened
from ...core.tensor_specs import specs
from ...plots import style
from ...plots.style import drawing
from ..model.corpus import TokenChunks
from ..model.hooked_model import HookedModel
from ..patching.metrics import as_metric
from .steering import SteeringVector

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SteeringSweep(Saved):
    """A metric and the loss at several strengths of a steering vector.

    Attributes:
        strengths: The strengths, in order, (strengths,).
        values: The metric of each prompt, (strengths, prompts).
        losses: The mean next-token loss of each text in nats, (strengths, texts).
        metric: The name of the metric.
        name: The activation that is steered.

    Example:
        >>> found = SteeringSweep(
        ...     strengths=torch.tensor([0.0, 1.0]),
        ...     values=torch.tensor([[0.5], [2.0]]),
        ...     losses=torch.tensor([[3.0], [3.1]]),
        ...     metric="logit difference",
        ...     name="blocks.3.hook_resid_post",
        ... )
        >>> found.means
        tensor([0.5000, 2.0000])
    """

    strengths: Tensor
    values: Tensor
    losses: Tensor
    metric: str
    name: str

    _specs = specs(strengths="strengths", values="strengths prompts", losses="strengths texts")

    @property
    def means(self) -> Tensor:
        """The mean of the metric over prompts, (strengths,)."""
        return self.values.mean(1)

    @property
    def costs(self) -> Tensor:
        """How much the mean loss is above that without steering, in nats, (strengths,)."""
        mean = self.losses.mean(1)
        return mean - mean[int(self.strengths.abs().argmin())]

    @checked
    def within(self, cost: float) -> float:
        """Returns the strength with the highest metric of those that cost at most so much loss, in nats."""
        allowed = self.means.masked_fill(self.costs > max(cost, 0.0), -torch.inf)
        return float(self.strengths[int(allowed.argmax())])

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the metric over the strength, and beside it the loss with an axis on the right.

        Args:
            ax: Where to draw; a new figure by default.
        """
        with drawing(ax, 5.0, 3.4) as axes:
            axes.plot(self.strengths, self.means, "o-", markersize=4, color=style.BLUE)
            axes.set(xlabel=f"strength at {self.name}", title="What steering changes, and what it costs")
            axes.set_ylabel(self.metric, color=style.BLUE)
            right = axes.twinx()
            right.plot(self.strengths, self.losses.mean(1), "s--", markersize=3, color=style.RED)
            right.set_ylabel("loss on other texts, nats", color=style.RED, size=style.LABEL)
            right.tick_params(labelsize=style.LABEL)
            axes.axvline(0, color=style.GRAY, linewidth=0.8)
        return axes

    def __len__(self) -> int:
        return len(self.strengths)

    def __repr__(self) -> str:
        low, high = self.means.min(), self.means.max()
        return (
            f"SteeringSweep({counted(len(self), 'strength')} at {self.name[-40:]}: "
            f"{shortened(self.metric, 40)} {float(low):.3g} to {float(high):.3g}, loss up to "
            f"{float(self.costs.max()):.3g} above)"
        )

    def __str__(self) -> str:
        lines = [repr(self), f"{'strength':>10}  {shortened(self.metric, 24):>24}  loss above"]
        for row in zip(self.strengths.tolist(), self.means.tolist(), self.costs.tolist(), strict=True):
            lines.append(f"{row[0]:10.3g}  {row[1]:24.3f}  {row[2]:10.3f}")
        return "\n".join(lines)


@checked
def steering_sweep(
    model: HookedModel,
    vector: SteeringVector,
    prompts: Sequence[Any],
    metric: Any,
    texts: Any,
    *,
    strengths: Sequence[float] = (-2.0, -1.0, 0.0, 1.0, 2.0),
    length: int = 64,
    max_tokens: int = 4096,
    batch_size: int = 16,
    verbose: bool = False,
) -> SteeringSweep:
    """Returns what a steering vector does to a metric, and to the loss on texts about something else.

    Args:
        model: The model.
        vector: The vector.
        prompts: Texts of one length, or rows of token ids, after which the metric is read.
        metric: As for `activation_patching`.
        texts: A corpus for the loss; see `toumei.transformers.model.corpus.texts_in`.
        strengths: How often the vector is added; 0 is always among them.
        length: Tokens of the corpus that are read together.
        max_tokens: How many tokens of the corpus are read.
        batch_size: How many of them run at once.
        verbose: Show progress.

    Raises:
        ArgumentError: Prompts have several lengths, or the texts fill no chunk of `length` tokens.

    Example:
        >>> from itertools import islice
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import logit_difference
        >>> from toumei.transformers.knowledge import steering_vector
        >>> model, tokenizer, world = facts_gpt()
        >>> hooked = HookedModel(model, tokenizer)
        >>> vector = steering_vector(hooked, ["lives in"], ["plays the"], ("resid_post", 3))
        >>> texts = list(islice(world.texts(seed=1), 30))
        >>> found = steering_sweep(
        ...     hooked, vector, ["plays the"], logit_difference("Velmar", "banjo"), texts, strengths=[0, 2]
        ... )
        >>> bool(found.means[1] > found.means[0]), bool(found.costs[1] > 0)
        (True, True)
    """
    metric = as_metric(metric)
    check_counts(2, length=length)
    check_counts(1, max_tokens=max_tokens, batch_size=batch_size)
    if model.tokenizer is None:
        raise ArgumentError("the loss is measured on texts: give HookedModel(model, tokenizer)")
    inputs = model.inputs(list(prompts))
    if "attention_mask" in inputs and not bool(inputs["attention_mask"].all()):
        raise ArgumentError("a metric needs prompts of one length: it is read at the last token")
    chunks = _chunks(TokenChunks(texts, model.tokenizer, length), max_tokens)
    ordered = sorted({0.0, *map(float, strengths)})
    values, losses = [], []
    with torch.no_grad(), evaluating(model.model):
        read = metric.reading(model, inputs.get("input_ids"), model(inputs)[:, -1])
        for strength in tqdm(ordered, desc="strengths", disable=not verbose):
            with vector.steering(model, strength):
                values.append(read(model(inputs)[None, :, -1])[0].double().cpu())
                losses.append(torch.cat([_losses(model, batch) for batch in chunks.split(batch_size)]))
    return SteeringSweep(
        strengths=torch.tensor(ordered, dtype=torch.float64),
        values=torch.stack(values),
        losses=torch.stack(losses),
        metric=metric.name,
        name=vector.name,
    )


def _chunks(corpus: TokenChunks, max_tokens: int) -> Tensor:
    """Chunks (texts, length) of a corpus."""
    rows: list[list[int]] = []
    for chunk in corpus:
        rows.append(chunk)
        if sum(map(len, rows)) >= max_tokens:
            break
    if not rows:
        raise ArgumentError("the texts fill no chunk of length tokens: give more texts, or a smaller length")
    return torch.tensor(rows)


def _losses(model: HookedModel, tokens: Tensor) -> Tensor:
    """The mean next-token loss of each text (texts,)."""
    logits = model(tokens)[:, :-1]
    found = cross_entropy(
        logits.flatten(0, 1).float(), tokens[:, 1:].flatten().to(logits.device), reduction="none"
    )
    result: Tensor = found.unflatten(0, (len(tokens), -1)).mean(1).double().cpu()
    return result
