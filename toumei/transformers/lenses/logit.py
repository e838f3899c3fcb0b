"""The logit lens: what the head of a model predicts from the output of each layer (nostalgebraist, 2020)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.serialization import Saved
from ...core.summaries import shortened
from ...core.tensor_specs import Spec, specs
from ...plots import style
from ...plots.style import LABEL, drawing
from ..model.blockwise import BlockwiseRunner
from ..model.families import anatomy
from ..model.tokens import as_prompt, continuation, tokenize
from .read_out import lens_table, streams_of
from .table import LensTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False, eq=False)
class LogitLens(Saved):
    """The predictions after each layer, at the last token of a prompt.

    Attributes:
        prompt: The text.
        answer: The answer whose probability is shown.
        probabilities: The probability of the answer's first token after each layer, (layers,).
        ranks: How many tokens are likelier than that, (layers,).
        top: The likeliest tokens after each layer.
        top_probabilities: Their probabilities, (layers, k).

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import logit_lens
        >>> model, tokenizer, world = facts_gpt()
        >>> fact = world.facts[0]
        >>> lens = logit_lens(model, tokenizer, fact.text, fact.target)
        >>> lens.probabilities.shape, int(lens.ranks[-1])
        (torch.Size([6]), 0)
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

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the answer's probability over the layers, and the likeliest token of each."""
        layers = range(len(self.probabilities))
        likeliest = self.top_probabilities[:, 0]
        with drawing(ax, 7, 3.5) as ax:
            ax.plot(layers, self.probabilities, marker="o", color=style.BLUE, label=self.answer.strip())
            ax.plot(layers, likeliest, color=style.GRAY, linestyle="--", label="likeliest token")
            for layer, height in zip(layers, likeliest.tolist(), strict=True):
                word = self.top[layer][0].strip()
                ax.annotate(
                    word, (layer, height), (0, 5), textcoords="offset points", ha="center", size=LABEL
                )
            ax.set_ylim(0, 1.12)
            ax.set_xlabel("read out after layer")
            ax.set_ylabel("probability")
            ax.set_title(f"{shortened(self.prompt)} ...")
            ax.legend(loc="center left")
        return ax

    def __repr__(self) -> str:
        probability, rank = float(self.probabilities[-1]), int(self.ranks[-1])
        return (
            f"LogitLens({shortened(self.prompt)} -> {shortened(self.answer.strip())}: "
            f"probability {probability:.3f}, rank {rank})"
        )


@overload
def logit_lens(model: nn.Module, tokenizer: Any, prompt: Any, answer: str, *, top: int = 5) -> LogitLens: ...


@overload
def logit_lens(
    model: nn.Module,
    tokenizer: Any,
    prompt: Any,
    answer: None = None,
    *,
    top: int = 5,
    embedding: bool = False,
    middles: bool = False,
) -> LensTable: ...


@checked
def logit_lens(
    model: nn.Module,
    tokenizer: Any,
    prompt: Any,
    answer: str | None = None,
    *,
    top: int = 5,
    embedding: bool = False,
    middles: bool = False,
) -> LogitLens | LensTable:
    """Returns what is predicted when final norm and head are applied to the output of each layer.

    With an answer it is how likely that is at the end of the prompt; without one it is a table of all layers
    and tokens. Edits of the weights count, and those of `hooked` blocks around the call, which see the trial
    passes of two tokens, too. Memory does not grow with the size of the table times that of the vocabulary.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        prompt: A text that the answer would continue, or the ids of its tokens.
        answer: The answer; its first token is used.
        top: How many of the likeliest tokens to keep.
        embedding: Whether the table begins with what the first layer takes.
        middles: Whether the table has the stream between attention and MLP of each layer, too.

    Raises:
        ArchitectureError: The parts of the model cannot be found, or there is no stream between them.
        ArgumentError: The prompt or the answer is empty, or the model reads no text of this length; an answer
            together with rows of a table.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> fact = world.facts[0]
        >>> lens = logit_lens(model, tokenizer, fact.text, fact.target)
        >>> int(lens.ranks[-1]), lens.top[-1][0] == fact.target
        (0, True)
        >>> logit_lens(model, tokenizer, fact.text, embedding=True).entropies.shape
        torch.Size([7, 7])
    """
    check_counts(1, top=top)
    if answer is not None and (embedding or middles):
        raise ArgumentError("embedding and middles are rows of the table: leave out the answer")
    parts = anatomy(model)
    text = as_prompt(tokenizer, prompt)
    tokens = tokenize(tokenizer, text).ids
    parts.check_length(len(tokens), str(text))
    ids = torch.tensor([tokens], device=parts.device)
    if answer is None:
        with torch.no_grad(), evaluating(parts.model):
            streams = streams_of(parts, ids, embedding=embedding, middles=middles)
        return lens_table(parts, tokenizer, str(text), tokens, streams, lens="logit lens", top=top)
    token = continuation(tokenizer, text, answer)[0]
    with torch.no_grad(), evaluating(parts.model):
        vectors = torch.stack([stream[0, -1] for stream in streams_of(parts, ids).values()])
        probabilities = BlockwiseRunner(parts).logits(vectors, ids[:, :1]).float().softmax(1).cpu()
    likeliest = probabilities.topk(min(top, probabilities.shape[1]))
    return LogitLens(
        prompt=str(text),
        answer=answer,
        probabilities=probabilities[:, token],
        ranks=(probabilities > probabilities[:, token, None]).sum(1),
        top=tuple(tuple(tokenizer.decode([index]) for index in row) for row in likeliest.indices.tolist()),
        top_probabilities=likeliest.values,
    )
