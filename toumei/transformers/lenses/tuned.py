"""The tuned lens: an affine map for each layer, before the model's final norm and head."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ...core.checks import check_choice, check_counts, check_seed, checked
from ...core.errors import ArgumentError
from ...core.fingerprint import fingerprint_of
from ...core.modules import evaluating, frozen
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import Spec, specs
from ..model.corpus import TokenChunks
from ..model.families import Anatomy, anatomy
from ..model.tokens import as_prompt, tokenize
from ..model.wrappers import language_model
from .evaluation import LensEvaluation, evaluate_lens
from .read_out import lens_table, streams_of
from .table import LensTable
from .training import LensRecipe, LensTraining, Loss, Optimizer, translator


@dataclass(frozen=True, repr=False, eq=False)
class TunedLens(Saved):
    """Predictions from each layer, after an affine map that was trained for it (Belrose et al., 2023).

    h + A h + b takes the place of the output h of a layer; the model's final norm and head read it out.
    With A = 0 and b = 0 this is the logit lens.

    Attributes:
        layers: What has a map: the embedding, and all layers but the last.
        weights: The matrices A, (layers, width, width), float32.
        biases: The vectors b, (layers, width).
        losses: The mean loss of each layer in each step of the training, (steps, layers).
        recipe: How it was trained.
        model: The fingerprint of the model's weights.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> texts = [fact.text for fact in world.facts[:200]]
        >>> size = {"tokens_per_step": 256, "length": 32, "steps": 5}
        >>> lens = TunedLens.train(model, tokenizer, texts, **size, verbose=False)
        >>> lens
        TunedLens(6 layers of width 128, 5 steps of 256 tokens: loss ...)
        >>> lens(model, tokenizer, world.facts[0].text).layers[:2]
        ('embedding', '0')
    """

    layers: tuple[str, ...]
    weights: Tensor
    biases: Tensor
    losses: Tensor
    recipe: LensRecipe
    model: str

    _specs = specs(
        layers="layers",
        weights=Spec("layers width width", finite=True),
        biases=Spec("layers width", finite=True),
        losses="steps layers",
    )

    @classmethod
    @torch.inference_mode(False)  # which has no gradients
    @torch.enable_grad()
    @checked
    def train(
        cls,
        model: nn.Module,
        tokenizer: Any,
        texts: Any,
        *,
        steps: int = 250,
        tokens_per_step: int = 2**18,
        length: int = 2048,
        batch_size: int = 8,
        optimizer: Optimizer = "sgd",
        learning_rate: float | None = None,
        weight_decay: float = 1e-3,
        loss: Loss = "kl",
        bias_only: bool = False,
        seed: int = 0,
        verbose: bool = True,
    ) -> Self:
        """Returns a lens that was trained on texts, all layers together.

        Defaults are those of the authors' code: Nesterov momentum, gradients whose norm is above 1 shortened,
        learning rate and weight decay. Ctrl-C returns the lens after the last finished step.

        Args:
            model: A causal language model; its weights stay as they are.
            tokenizer: Its tokenizer.
            texts: A list or an iterator of texts, a dataset whose rows have a ``"text"``, or the path of a
                file with a text on each line. What can be read again is, until all steps are done; after an
                iterator has ended the lens has as many steps as there were texts for.
            steps: Steps of the optimizer.
            tokens_per_step: Tokens whose losses are averaged in a step.
            length: Tokens that are read together, at most as many as the model reads.
            batch_size: So many times `length` tokens are in a forward pass.
            optimizer: ``"sgd"``, or ``"adam"`` with a warm-up.
            learning_rate: By default 1 for SGD, multiplied by 1 - momentum, and 0.001 for Adam.
            weight_decay: Pulls the lens towards the logit lens.
            loss: ``"kl"``, KL(model || lens), or ``"cross_entropy"`` of the next token.
            bias_only: Train the biases only, and leave A = 0.
            seed: Of the order of the texts.
            verbose: Show a progress bar.

        Raises:
            ArgumentError: A setting that does not fit, or texts that do not fill one step.
            ArchitectureError: The parts of the model cannot be found.
            NonFiniteError: The loss is not finite.
        """
        check_counts(1, steps=steps, tokens_per_step=tokens_per_step, batch_size=batch_size)
        check_counts(2, length=length)
        check_choice("optimizer", optimizer, ("sgd", "adam"))
        check_choice("loss", loss, ("kl", "cross_entropy"))
        check_seed(seed)
        if learning_rate is None:
            learning_rate = 1.0 if optimizer == "sgd" else 1e-3
        if not 0 < learning_rate < math.inf or not 0 <= weight_decay < math.inf:
            raise ArgumentError(
                f"expected a learning_rate above 0 and a weight_decay from 0 on, got {learning_rate} and "
                f"{weight_decay}"
            )
        parts = anatomy(model)
        recipe = LensRecipe(
            steps=steps,
            tokens_per_step=tokens_per_step,
            length=min(length, parts.positions or length),
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            loss=loss,
            bias_only=bias_only,
            seed=seed,
        )
        layers = ("embedding", *map(str, range(parts.layers - 1)))
        with evaluating(parts.model), frozen(parts.model):
            training = LensTraining(parts, recipe, layers)
            try:
                training.run(TokenChunks(texts, tokenizer, recipe.length), verbose)
            except KeyboardInterrupt:
                if not training.losses:
                    raise
        return cls(
            layers=layers,
            weights=torch.stack(training.weights).detach().cpu(),
            biases=torch.stack(training.biases).detach().cpu(),
            losses=torch.stack(training.losses),
            recipe=recipe,
            model=fingerprint_of(parts.model),
        )

    @checked
    def __call__(self, model: nn.Module, tokenizer: Any, prompt: Any, *, top: int = 5) -> LensTable:
        """Returns what is predicted from each layer at each token of a prompt.

        Edits of the weights count, and those of `hooked` blocks around the call.

        Args:
            model: The model that the lens was trained on.
            tokenizer: Its tokenizer.
            prompt: A text, or the ids of its tokens.
            top: How many of the likeliest tokens to keep.

        Raises:
            ArgumentError: The prompt is empty or too long, or the model has other layers.
        """
        check_counts(1, top=top)
        parts = self._parts(model)
        text = as_prompt(tokenizer, prompt)
        tokens = tokenize(tokenizer, text).ids
        parts.check_length(len(tokens), str(text))
        with torch.no_grad(), evaluating(parts.model):
            streams = streams_of(parts, torch.tensor([tokens], device=parts.device), embedding=True)
        return lens_table(
            parts,
            tokenizer,
            str(text),
            tokens,
            streams,
            lens="tuned lens",
            top=top,
            translate=translator(self.weights, self.biases, self.layers),
        )

    @checked
    def evaluate(
        self,
        model: nn.Module,
        tokenizer: Any,
        texts: Any,
        *,
        max_tokens: int = 2**17,
        batch_size: int = 8,
        verbose: bool = True,
    ) -> LensEvaluation:
        """Returns how well the lens predicts on texts beside the logit lens, layer by layer.

        Args:
            model: The model that the lens was trained on.
            tokenizer: Its tokenizer.
            texts: Texts that the lens was not trained on, as for `train`.
            max_tokens: How many tokens to read at most.
            batch_size: Chunks of text in a forward pass.
            verbose: Show a progress bar.

        Raises:
            ArgumentError: The texts are too short, or the model has other layers.
        """
        check_counts(1, max_tokens=max_tokens, batch_size=batch_size)
        return evaluate_lens(
            self._parts(model),
            TokenChunks(texts, tokenizer, self.recipe.length),
            translator(self.weights, self.biases, self.layers),
            batch_size=batch_size,
            max_tokens=max_tokens,
            verbose=verbose,
        )

    @classmethod
    @checked
    def load(cls, path: str | Path, model: nn.Module | None = None) -> Self:
        """Returns a saved lens.

        Args:
            path: The file.
            model: Refuse the file if it was not trained on this model.

        Raises:
            ArgumentError: The file holds something else, is damaged, or belongs to other weights.
        """
        lens = super().load(path)
        if model is not None and lens.model != fingerprint_of(language_model(model)):
            raise ArgumentError(
                f"{path} was trained on a model with other weights than this {type(model).__name__}"
            )
        return lens

    def _parts(self, model: nn.Module) -> Anatomy:
        parts = anatomy(model)
        if (parts.layers, parts.width) != (len(self.layers), self.weights.shape[-1]):
            raise ArgumentError(
                f"{self!r} does not fit {type(parts.model).__name__}, which has "
                f"{counted(parts.layers, 'layer')} of width {parts.width}"
            )
        return parts

    def __repr__(self) -> str:
        first, last = self.losses[0].mean(), self.losses[-1].mean()
        return (
            f"TunedLens({counted(len(self.layers), 'layer')} of width {self.weights.shape[-1]}, "
            f"{counted(len(self.losses), 'step')} of {counted(self.recipe.tokens_per_step, 'token')}: loss "
            f"{float(first):.3f} to {float(last):.3f})"
        )
