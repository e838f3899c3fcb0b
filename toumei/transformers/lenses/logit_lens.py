"""What a model would answer if it stopped after each of its layers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core.hooks import run
from ...core.modules import evaluating
from ...core.serialization import Saved
from ...core.stored_fields import Spec, specs
from ..model.blockwise import BlockwiseRunner
from ..model.families import anatomy
from ..model.tokens import continuation, tokenize

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False, eq=False)
class Probe(Saved):
    """How an answer comes up layer by layer, at the last token of a prompt.

    Attributes:
        prompt: The text.
        answer: What is looked for.
        probabilities: The probability of the answer's first token behind each layer, (layers,).
        ranks: How many tokens are likelier, (layers,).
        top: The likeliest tokens behind each layer.
        top_probabilities: Their probabilities, (layers, k).
    """

    prompt: str
    answer: str
    probabilities: Tensor
    ranks: Tensor
    top: tuple[tuple[str, ...], ...]
    top_probabilities: Tensor

    _specs = specs(
        probabilities="layers",
        ranks=Spec("layers", "integer"),
        top="layers",
        top_probabilities="layers k",
    )

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the answer's probability over the layers, and the likeliest token of each."""
        from matplotlib import pyplot

        ax = ax or pyplot.subplots(figsize=(7, 3.5))[1]
        layers = range(len(self.probabilities))
        ax.plot(layers, self.probabilities, marker="o", label=self.answer.strip())
        ax.plot(layers, self.top_probabilities[:, 0], color="0.7", linestyle="--", label="likeliest token")
        for layer in layers:
            ax.annotate(
                self.top[layer][0].strip(),
                (layer, float(self.top_probabilities[layer, 0])),
                xytext=(0, 5),
                textcoords="offset points",
                ha="center",
                fontsize="small",
            )
        ax.set_ylim(0, 1.12)
        ax.set_xlabel("read out behind layer")
        ax.set_ylabel("probability")
        ax.set_title(f"{self.prompt} ...", fontsize="medium")
        ax.legend(loc="center left", fontsize="small")
        return ax

    def __repr__(self) -> str:
        probability, rank = float(self.probabilities[-1]), int(self.ranks[-1])
        return f"Probe({self.prompt} -> {self.answer.strip()}: probability {probability:.3f}, rank {rank})"


def probe(model: nn.Module, tokenizer: Any, prompt: str, answer: str, *, top: int = 5) -> Probe:
    """Returns how likely an answer is if the model's own end is put behind each of its layers (logit lens).

    Args:
        model: A causal language model, as it is now.
        tokenizer: Its tokenizer.
        prompt: A text that the answer would continue.
        answer: What to look for; of several tokens the first.
        top: How many of the likeliest tokens to keep.

    Raises:
        ArchitectureError: The parts of the model cannot be found.
        ArgumentError: The prompt or the answer is empty.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> fact = world.facts[0]
        >>> found = probe(model, tokenizer, fact.text, fact.target)
        >>> int(found.ranks[-1]), found.top[-1][0] == fact.target
        (0, True)
    """
    parts = anatomy(model)
    ids = torch.tensor([tokenize(tokenizer, prompt).ids], device=parts.device)
    token = continuation(tokenizer, prompt, answer)[0]
    with torch.no_grad(), evaluating(model):
        found = run(model, ids, record=parts.blocks, detach=True)
        device = found[parts.blocks[-1]].device
        vectors = torch.stack([found[name][0, -1].to(device) for name in parts.blocks])
        probabilities = BlockwiseRunner(parts).logits(vectors, ids[:, :1]).float().softmax(1).cpu()
    likeliest = probabilities.topk(min(top, probabilities.shape[1]))
    return Probe(
        prompt,
        answer,
        probabilities[:, token],
        (probabilities > probabilities[:, token, None]).sum(1),
        tuple(tuple(tokenizer.decode([index]) for index in row) for row in likeliest.indices.tolist()),
        likeliest.values,
    )
