"""The training of a tuned lens (Belrose et al., 2023, arXiv:2303.08112), with the recipe of their code."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import ArgumentError, NonFiniteError
from ...core.interrupts import uninterrupted
from ...core.progress import tqdm
from ...core.summaries import counted
from ..model.corpus import TokenChunks, shuffled
from ..model.families import Anatomy
from .read_out import ReadOut, divergence, streams_of

Optimizer = Literal["sgd", "adam"]
Loss = Literal["kl", "cross_entropy"]
_MOMENTUM = 0.9
_LARGEST_GRADIENT = 1.0  # norm of that of all layers together; larger ones are shortened


@dataclass(frozen=True)
class LensRecipe:
    """How a tuned lens is trained.

    Attributes:
        steps: Steps of the optimizer.
        tokens_per_step: Tokens whose losses are averaged in a step.
        length: Tokens of a chunk of text, which are read together.
        batch_size: Chunks in a forward pass.
        optimizer: ``"sgd"`` with Nesterov momentum 0.9, or ``"adam"`` (AMSGrad) with a warm-up of a fifth of
            the steps, at most 1000. The learning rate falls linearly to 0.
        learning_rate: That at the beginning; for SGD it is multiplied by 1 - 0.9, because momentum adds up.
        weight_decay: Added to the gradients, times the parameters.
        loss: ``"kl"``, KL(model || lens), or ``"cross_entropy"`` of the next token.
        bias_only: Whether only the biases are trained.
        seed: Of the order of the chunks.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import TunedLens
        >>> model, tokenizer, world = facts_gpt()
        >>> texts = [fact.text for fact in world.facts[:50]]
        >>> size = {"tokens_per_step": 64, "length": 32, "steps": 2}
        >>> TunedLens.train(model, tokenizer, texts, **size, verbose=False).recipe.steps
        2
    """

    steps: int
    tokens_per_step: int
    length: int
    batch_size: int
    optimizer: Optimizer
    learning_rate: float
    weight_decay: float
    loss: Loss
    bias_only: bool
    seed: int

    def make_optimizer(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """Returns the optimizer."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                parameters,
                lr=self.learning_rate * (1 - _MOMENTUM),
                momentum=_MOMENTUM,
                nesterov=True,
                weight_decay=self.weight_decay,
            )
        return torch.optim.Adam(
            parameters,
            lr=self.learning_rate,
            betas=(_MOMENTUM, 0.999),
            weight_decay=self.weight_decay,
            amsgrad=True,
        )

    def rate(self, step: int) -> float:
        """Returns the share of the learning rate in a step: up during a warm-up, then down.

        Example:
            >>> recipe = LensRecipe(10, 64, 8, 1, "adam", 1e-3, 0.0, "kl", False, 0)
            >>> [recipe.rate(step) for step in (0, 1, 2, 6)]
            [0.5, 1.0, 1.0, 0.5]
        """
        warm_up = min(1000, self.steps // 5) if self.optimizer == "adam" else 0
        return (step + 1) / warm_up if step < warm_up else (self.steps - step) / (self.steps - warm_up)


class LensTraining:
    """The training of the maps of all layers together.

    Args:
        parts: The model; its weights need no gradients while it runs.
        recipe: How.
        layers: The rows of the stream that have a map.

    Attributes:
        weights: The matrix (width, width) of each layer, float32 on the device of the last block.
        biases: The bias (width,) of each layer.
        losses: The mean loss of each layer in each finished step.
    """

    def __init__(self, parts: Anatomy, recipe: LensRecipe, layers: tuple[str, ...]) -> None:
        self._parts, self._recipe, self._layers = parts, recipe, layers
        self._read_out = ReadOut(parts)
        with torch.no_grad():
            device = streams_of(parts, parts.two_tokens)[str(parts.layers - 1)].device
        options: Any = {"device": device, "dtype": torch.float32}
        size = parts.width
        self.weights = [
            torch.zeros(size, size, requires_grad=not recipe.bias_only, **options) for _ in layers
        ]
        self.biases = [torch.zeros(size, requires_grad=True, **options) for _ in layers]
        self.losses: list[Tensor] = []

    def run(self, corpus: TokenChunks, verbose: bool) -> None:
        """Takes all steps, or those for which there are texts.

        Raises:
            ArgumentError: The texts do not fill a step.
            NonFiniteError: The loss is not finite.
        """
        recipe, trained = self._recipe, [one for one in (*self.weights, *self.biases) if one.requires_grad]
        optimizer = recipe.make_optimizer(trained)
        chunks = self._chunks(corpus)
        with tqdm(total=recipe.steps, desc="tuned lens", disable=not verbose) as progress:
            for step in range(recipe.steps):
                rows = list(islice(chunks, -(-recipe.tokens_per_step // recipe.length)))
                if len(rows) * recipe.length < recipe.tokens_per_step:  # the texts end
                    break
                losses = self._gradients(rows)
                if not losses.isfinite().all():
                    raise NonFiniteError(
                        f"the loss of step {step} is not finite: give a learning_rate below "
                        f"{recipe.learning_rate}"
                    )
                nn.utils.clip_grad_norm_(trained, _LARGEST_GRADIENT)
                for group in optimizer.param_groups:
                    group["lr"] = optimizer.defaults["lr"] * recipe.rate(step)
                with uninterrupted():
                    optimizer.step()
                    self.losses.append(losses)
                optimizer.zero_grad()
                progress.update()
                progress.set_postfix(loss=f"{float(losses.mean()):.3f}")
        if not self.losses:
            raise ArgumentError(
                f"the texts have {counted(corpus.tokens, 'token', form=',')}, a step takes "
                f"{recipe.tokens_per_step:,} in chunks of {recipe.length}: give more texts, or a smaller "
                "tokens_per_step or length"
            )

    def _chunks(self, corpus: TokenChunks) -> Iterator[Sequence[int]]:
        """The chunks in a random order; a corpus that can be read again begins again."""
        for epoch in count():
            empty = True
            for chunk in shuffled(corpus, self._recipe.seed + epoch):
                empty = False
                yield chunk
            if empty or not corpus.can_repeat:
                return

    def _gradients(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Computes the gradients of a step; returns the mean losses (layers,)."""
        losses = torch.zeros(len(self._layers))
        batch, kl = self._recipe.batch_size, self._recipe.loss == "kl"
        predicted = len(rows) * (self._recipe.length - (not kl))  # the last token of a chunk has no next one
        for start in range(0, len(rows), batch):
            ids = torch.tensor(rows[start : start + batch], device=self._parts.device)
            with torch.no_grad():
                streams = streams_of(self._parts, ids, embedding=True)
            if not kl:
                streams = {layer: stream[:, :-1] for layer, stream in streams.items()}
            flat = {layer: stream.reshape(-1, stream.shape[-1]) for layer, stream in streams.items()}
            losses += self._add_gradients(flat, ids[:, 1:].reshape(-1), 1 / predicted)
        return losses

    def _add_gradients(self, streams: Mapping[str, Tensor], following: Tensor, share: float) -> Tensor:
        """Adds the gradients of vectors (N, width), a few at a time; returns the losses times their share."""
        *_, last = streams.values()
        following = following.to(last.device)
        losses = torch.zeros(len(self._layers))
        for start in range(0, len(last), self._read_out.at_once):
            chunk = slice(start, start + self._read_out.at_once)
            final = None
            if self._recipe.loss == "kl":
                with torch.no_grad():
                    final = self._read_out(last[chunk])
            for index, layer in enumerate(self._layers):
                vectors = translated(streams[layer][chunk], self.weights[index], self.biases[index])
                predicted = self._read_out(vectors)
                loss = (
                    F.nll_loss(predicted, following[chunk], reduction="sum")
                    if final is None
                    else divergence(final, predicted).sum()
                ) * share
                loss.backward()
                losses[index] += loss.detach().cpu()
        return losses


def translated(vectors: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Returns h + A h + b of vectors h (N, width), in their precision; computed in that of A.

    Example:
        >>> translated(torch.ones(1, 2), torch.eye(2), torch.zeros(2))
        tensor([[2., 2.]])
    """
    exact = vectors.to(weight.dtype)
    return (exact + F.linear(exact, weight, bias)).to(vectors.dtype)


def translator(weights: Tensor, biases: Tensor, layers: tuple[str, ...]) -> Any:
    """Returns a function from a layer and vectors to the translated ones; other layers stay as they are."""
    places: Mapping[str, int] = {layer: index for index, layer in enumerate(layers)}

    def translate(layer: str, vectors: Tensor) -> Tensor:
        if layer not in places:
            return vectors
        at = places[layer]
        return translated(vectors, weights[at].to(vectors.device), biases[at].to(vectors.device))

    return translate
