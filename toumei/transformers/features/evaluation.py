"""How well a dictionary reconstructs, and what the model loses by it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError
from ...core.modules import evaluating
from ...core.progress import tqdm
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import specs
from ...plots.style import BLUE, drawing
from ..model.hooked_model import HookedModel
from .activation_source import Block, as_activations, counted_vectors
from .dictionary import SparseAutoencoder
from .interventions import check_fits, spliced
from .token_batches import TokenBatch, TokenBatches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NUMBERS = 2**24  # feature activations, or logits, that are in memory at once


@dataclass(frozen=True, repr=False, eq=False)
class Reconstruction(Saved):
    """How a dictionary reconstructs activations.

    Attributes:
        active: How many features are active on average (L0).
        unexplained: sum |x - x^|^2 / sum |x - mean|^2, both sums over all tokens.
        shrinkage: The mean of |x^| / |x| over tokens whose x is not 0; below 1 where features are too weak.
        rates: In which share of the tokens each feature is active, (features,).
        largest: The largest activation of each feature, (features,).
        tokens: How many tokens were read.
        closest: The largest cosine of each feature's decoder with that of another feature, (features,).

    Example:
        >>> rates, largest = torch.tensor([0.5, 0.0]), torch.tensor([3.0, 0.0])
        >>> found = Reconstruction(2.0, 0.1, 0.95, rates, largest, tokens=100, closest=torch.zeros(2))
        >>> found.unexplained, found.tokens
        (0.1, 100)
    """

    active: float
    unexplained: float
    shrinkage: float
    rates: Tensor
    largest: Tensor
    tokens: int
    closest: Tensor

    _specs = specs(rates="features", largest="features", closest="features")

    @property
    def dead(self) -> float:
        """The share of features that are active in no token."""
        return float((self.rates == 0).float().mean())

    @checked
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Returns axes with the density of the features: a histogram of the logarithms of their rates."""
        with drawing(ax, 5, 3.2) as ax:
            live = self.rates[self.rates > 0].log10()
            ax.hist(live.numpy(), bins=40, color=BLUE)
            ax.set_xlabel("log10 of the share of tokens in which a feature is active")
            ax.set_ylabel("features")
            ax.set_title(
                f"never active: {int((self.rates == 0).sum())} of {counted(len(self.rates), 'feature')}"
            )
        return ax

    def __repr__(self) -> str:
        return (
            f"Reconstruction({self.active:.1f} of {counted(len(self.rates), 'feature')} active, unexplained "
            f"{self.unexplained:.3f}, shrinkage {self.shrinkage:.3f}, {self.dead:.1%} dead, "
            f"{counted(self.tokens, 'token')})"
        )


@dataclass(frozen=True, repr=False, eq=False)
class DictionaryEvaluation(Saved):
    """How well a dictionary reconstructs, and what the model predicts from the reconstructions.

    Attributes:
        reconstruction: How well it reconstructs.
        clean: The cross-entropy of the model in nats per token.
        spliced: That with the reconstructions in place of the activations.
        zeroed: That with zeros in their place.
        divergence: KL(model || model with reconstructions) in nats per token.
        zeroed_divergence: KL(model || model with zeros).
        predictions: How many tokens were predicted.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import HookedModel, SparseAutoencoder, evaluate_dictionary
        >>> model, tokenizer, world = facts_gpt()
        >>> hooked = HookedModel(model, tokenizer)
        >>> dictionary = SparseAutoencoder.of_directions(torch.eye(128), reads="blocks.2.hook_resid_post")
        >>> texts = [fact.text for fact in world.facts[:20]]
        >>> found = evaluate_dictionary(dictionary, hooked, texts, verbose=False)
        >>> found.spliced > found.clean
        True
    """

    reconstruction: Reconstruction
    clean: float
    spliced: float
    zeroed: float
    divergence: float
    zeroed_divergence: float
    predictions: int

    @property
    def recovered(self) -> float:
        """(zeroed - spliced) / (zeroed - clean): 1 where the model loses nothing."""
        return (self.zeroed - self.spliced) / (self.zeroed - self.clean)

    @property
    def recovered_divergence(self) -> float:
        """1 - KL of the reconstructions / KL of zeros."""
        return 1 - self.divergence / self.zeroed_divergence

    def __str__(self) -> str:
        return "\n".join(
            (
                repr(self),
                f"{'cross-entropy':>24}  model {self.clean:.3f}  spliced {self.spliced:.3f}  "
                f"zeros {self.zeroed:.3f}  recovered {self.recovered:.3f}",
                f"{'KL to the model':>24}  spliced {self.divergence:.3f}  zeros "
                f"{self.zeroed_divergence:.3f}  recovered {self.recovered_divergence:.3f}",
                f"{'reconstruction':>24}  {self.reconstruction!r}",
            )
        )

    def __repr__(self) -> str:
        found = self.reconstruction
        return (
            f"DictionaryEvaluation({found.active:.1f} active, unexplained {found.unexplained:.3f}, "
            f"{found.dead:.1%} dead, cross-entropy recovered {self.recovered:.3f}, "
            f"{counted(self.predictions, 'token')})"
        )


@checked
def reconstruction(
    dictionary: SparseAutoencoder, activations: Any, *, max_tokens: int | None = None
) -> Reconstruction:
    """Returns how a dictionary reconstructs activations.

    Args:
        dictionary: The dictionary.
        activations: As for `train_dictionary`.
        max_tokens: How many to read at most.

    Raises:
        ArgumentError: The activations are of other names than the dictionary reads, or there are none.
        ShapeError: They have another width.

    Example:
        >>> found = reconstruction(SparseAutoencoder.of_directions(torch.eye(3)), torch.rand(50, 3))
        >>> found.active, found.unexplained, found.dead
        (3.0, 0.0, 0.0)
    """
    check_counts(1, max_tokens=max_tokens)
    source = as_activations(activations)
    for name in (dictionary.reads, dictionary.writes):
        if name not in source.names:
            raise ArgumentError(
                f"{dictionary!r} needs activations of {name!r}, there are those of {', '.join(source.names)}"
            )
    sums = _Sums(dictionary)
    for block in source.blocks(0):
        left = (max_tokens or sums.tokens + len(block[dictionary.reads])) - sums.tokens
        sums.add({name: values[:left] for name, values in block.items()})
        if max_tokens is not None and sums.tokens >= max_tokens:
            break
    return sums.result()


@checked
@torch.no_grad()
def evaluate_dictionary(
    dictionary: SparseAutoencoder,
    model: HookedModel,
    corpus: Any,
    *,
    length: int = 128,
    batch_size: int = 8,
    skip_first: int = 1,
    max_tokens: int | None = None,
    verbose: bool = True,
) -> DictionaryEvaluation:
    """Returns how well a dictionary reconstructs activations of a corpus, and what the model loses by it.

    Three passes of the model: as it is, with the reconstructions in place of the activations, and with zeros.
    Tokens that are left out of the activations keep theirs.

    Args:
        dictionary: The dictionary.
        model: A causal language model with its tokenizer.
        corpus: Texts that the dictionary was not trained on, as for `ActivationSource`.
        length: The most tokens that are read together.
        batch_size: Pieces in a forward pass.
        skip_first: How many tokens at the beginning of each piece are left out.
        max_tokens: How many tokens to read at most.
        verbose: Show a progress bar.

    Raises:
        ArgumentError: The dictionary does not fit the model, or the corpus is empty.

    Example:
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import HookedModel, SparseAutoencoder
        >>> model, tokenizer, world = facts_gpt()
        >>> hooked = HookedModel(model, tokenizer)
        >>> dictionary = SparseAutoencoder.of_directions(torch.eye(128), reads="blocks.2.hook_resid_post")
        >>> texts = [fact.text for fact in world.facts[:20]]
        >>> evaluate_dictionary(dictionary, hooked, texts, verbose=False).predictions
        135
    """
    check_fits(dictionary, model)
    batches = TokenBatches(
        model, corpus, length=length, batch_size=batch_size, skip_first=skip_first, max_tokens=max_tokens
    )
    names = list(dict.fromkeys((dictionary.reads, dictionary.writes)))
    sums, losses, predicted = _Sums(dictionary), torch.zeros(5, dtype=torch.float64), 0
    with evaluating(model.model), tqdm(desc="dictionary", unit="token", disable=not verbose) as progress:
        for batch in batches:
            logits, cache = model.run_with_cache(batch.inputs, names)
            if logits.dim() != 3 or logits.shape[-1] <= model.width:
                raise ArgumentError(f"{type(model.model).__name__} predicts no tokens")
            sums.add({name: counted_vectors(name, cache[name], batch) for name in names})
            with spliced(model, dictionary, mask=batch.counted):
                ours = model(batch.inputs)
            with model.edit({dictionary.writes: _zeros(batch)}):
                nothing = model(batch.inputs)
            losses += _losses(logits, ours, nothing, batch)
            predicted += int(batch.real[:, 1:].sum())
            progress.update(int(batch.counted.sum()))
    clean, with_ours, with_none, divergence, without = (losses / max(predicted, 1)).tolist()
    return DictionaryEvaluation(
        reconstruction=sums.result(),
        clean=clean,
        spliced=with_ours,
        zeroed=with_none,
        divergence=divergence,
        zeroed_divergence=without,
        predictions=predicted,
    )


def _zeros(batch: TokenBatch) -> Any:
    def change(values: Tensor) -> Tensor:
        values[batch.counted.to(values.device)] = 0
        return values

    return change


def _losses(logits: Tensor, ours: Tensor, nothing: Tensor, batch: TokenBatch) -> Tensor:
    """The sums of cross-entropies of the three passes, and of the divergences of the last two, (5,)."""
    mask = batch.real[:, 1:].to(logits.device)
    following = batch.ids[:, 1:].to(logits.device)[mask]
    kept = [one[:, :-1][mask] for one in (logits, ours, nothing)]
    sums = torch.zeros(5, dtype=torch.float64)
    at_once = max(1, _NUMBERS // logits.shape[-1])
    for start in range(0, len(following), at_once):
        chunk = slice(start, start + at_once)
        clean, *others = (one[chunk].float().log_softmax(1) for one in kept)
        sums[0] += F.nll_loss(clean, following[chunk], reduction="sum").double().cpu()
        for place, other in enumerate(others):
            sums[1 + place] += F.nll_loss(other, following[chunk], reduction="sum").double().cpu()
            far = F.kl_div(other, clean, reduction="sum", log_target=True)
            sums[3 + place] += far.double().cpu()
    return sums


class _Sums:
    """What is summed over tokens, in double precision."""

    def __init__(self, dictionary: SparseAutoencoder) -> None:
        self.dictionary = dictionary
        self.tokens = 0
        self.counts = torch.zeros(dictionary.features, dtype=torch.float64)
        self.largest = torch.zeros(dictionary.features)
        self.mean = torch.zeros(dictionary.output_width, dtype=torch.float64)
        self.spread = self.error = self.ratios = 0.0
        self.not_zero = 0

    @torch.no_grad()
    def add(self, block: Block) -> None:
        """Adds activations by their names."""
        at_once = max(1, _NUMBERS // self.dictionary.features)
        for inputs, targets in zip(
            *(block[name].split(at_once) for name in (self.dictionary.reads, self.dictionary.writes)),
            strict=True,
        ):
            features = self.dictionary.encode(inputs.float())
            found = self.dictionary.decode(features, inputs.float()).double().cpu()
            targets = targets.double().cpu()
            self._add_spread(targets)
            self.error += float((targets - found).square().sum())
            lengths = targets.norm(dim=1)
            self.ratios += float((found.norm(dim=1) / lengths)[lengths > 0].sum())
            self.not_zero += int((lengths > 0).sum())
            self.counts += (features > 0).sum(0).double().cpu()
            self.largest = torch.maximum(self.largest, features.amax(0).cpu())

    def _add_spread(self, targets: Tensor) -> None:
        """Joins the squares around the means of two parts (Chan et al.), which loses no digits."""
        number, mean = len(targets), targets.mean(0)
        far = mean - self.mean
        total = self.tokens + number
        self.spread += float(
            (targets - mean).square().sum() + far.square().sum() * self.tokens * number / total
        )
        self.mean += far * number / total
        self.tokens = total

    def result(self) -> Reconstruction:
        """What is known of all tokens.

        Raises:
            ArgumentError: There were none, or they were all the same.
        """
        if not self.tokens or not self.spread:
            raise ArgumentError(f"expected activations that differ, got {counted(self.tokens, 'token')}")
        return Reconstruction(
            active=float(self.counts.sum()) / self.tokens,
            unexplained=self.error / self.spread,
            shrinkage=self.ratios / self.not_zero,
            rates=(self.counts / self.tokens).float(),
            largest=self.largest,
            tokens=self.tokens,
            closest=closest_cosines(self.dictionary.W_dec),
        )


def closest_cosines(directions: Tensor, at_once: int = 1024) -> Tensor:
    """Returns the largest cosine of each direction (features, width) with another one, (features,).

    Example:
        >>> closest_cosines(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]))
        tensor([0., 1., 1.])
    """
    if len(directions) < 2:
        return torch.zeros(len(directions))
    unit = F.normalize(directions.float(), dim=1)
    parts: Iterable[int] = range(0, len(unit), at_once)
    found = []
    for start in parts:
        cosines = unit[start : start + at_once] @ unit.T
        cosines[range(len(cosines)), range(start, start + len(cosines))] = -1
        found.append(cosines.amax(1))
    return torch.cat(found).cpu()
