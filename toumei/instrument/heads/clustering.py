"""Which attention heads behave alike: divergences and behaviours over many texts (Clark et al. 2019)."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import Tensor

from ...core.blocks import block
from ...core.checks import check_counts, checked
from ...core.errors import ArgumentError, ShapeError
from ...core.progress import tqdm
from ...core.seeding import make_generator
from ..fmrai_names import current_scope
from ..probe import Probe
from .attention_batches import AttentionBatch
from .attention_source import AttentionSource
from .behaviours import HeadBehaviours, behaviours_of_text
from .clusters import AttentionHeadClusteringResult, embedding, stress_of
from .divergences import DivergenceSums, divergences_of_text

Source = Callable[[], AbstractContextManager[AttentionBatch]]
"""Gives a context whose batch has the weights of the pass in the ``with`` block when the block ends."""


class AttentionHeadClusterAnalyzer:
    """Compares all attention heads of a model over many texts; only sums are kept, not the weights.

    Args:
        source: Records the weights for `track_batch`: the probe of a model, see
            `toumei.instrument.instrument`, or a function of the user; by default the probe of the model that
            was instrumented in the innermost block of `toumei.instrument.fmrai`. Not needed where weights
            are given to `add`.
        separators: Numbers of the tokens that separate texts, such as that of [SEP].
        punctuation: Numbers of the tokens that are punctuation; in the paper those of "." and ",".
        rows_per_text: Compares only so many query rows of each text, drawn at random: the time falls in
            proportion, and the `standard_errors` of the result grow. None compares all, as in the paper.
        seed: Draws the rows.

    Raises:
        ArgumentError: Not even one row for a text.

    Example:
        >>> analyzer = AttentionHeadClusterAnalyzer()
        >>> generator = torch.Generator().manual_seed(0)
        >>> for _ in range(3):  # batches of 2 texts of 5 tokens; 2 layers of 4 heads
        ...     scores = torch.randn(2, 2, 4, 5, 5, generator=generator)
        ...     analyzer.add(list(scores.softmax(-1)))
        >>> analyzer.analyze()
        AttentionHeadClusteringResult(8 heads of 2 layers over 6 texts, 30 rows: 8 other)
    """

    @checked
    def __init__(
        self,
        source: Probe | Source | None = None,
        *,
        separators: Collection[int] = (),
        punctuation: Collection[int] = (),
        rows_per_text: int | None = None,
        seed: int | None = 0,
    ) -> None:
        check_counts(1, rows_per_text=rows_per_text)
        self.source = AttentionSource(source) if isinstance(source, Probe) else source
        self.separators = tuple(separators)
        self.punctuation = tuple(punctuation)
        self.rows_per_text = rows_per_text
        self._generator = make_generator(seed)
        self._heads: dict[str, int] = {}  # of each layer
        self._divergences: DivergenceSums | None = None
        self._behaviours: dict[str, Tensor] = {}

    @block
    def track_batch(
        self, mask: Tensor | None = None, tokens: Tensor | None = None
    ) -> Iterator[AttentionBatch]:
        """While it is active, a pass of the model is recorded. It counts if the block ends without an error.

        Args:
            mask: (batch, length), 1 for tokens and 0 for padding; by default that of the source.
            tokens: (batch, length) numbers of the tokens; by default those of the source.

        Raises:
            TrackingError: There is no source, and no block of `fmrai`.
            ArgumentError: See `add`.
        """
        if self.source is None:
            self.source = AttentionSource(current_scope().probe)
        with self.source() as batch:
            yield batch
        mask = batch.mask if mask is None else mask
        tokens = batch.tokens if tokens is None else tokens
        self.add_batch(replace(batch, mask=mask, tokens=tokens))

    def add(
        self,
        weights: Mapping[str, Tensor] | Sequence[Tensor],
        mask: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> None:
        """Adds the attention weights of a batch of texts.

        Args:
            weights: Of each layer (batch, heads, query, key), by name or in a sequence, such as the
                ``attentions`` that models of Hugging Face return for ``output_attentions=True``.
            mask: (batch, length), 1 for tokens and 0 for padding; None if there is no padding.
            tokens: (batch, length) numbers of the tokens, which tell separators and punctuation.

        Raises:
            ArgumentError: A row has negative weights, or another sum than 1; fewer than two heads; separators
                or punctuation are wanted, but there are no tokens.
            NonFiniteError: A row has NaN in it.
            ShapeError: A tensor has another shape, or there are other layers or heads than before.
        """
        self.add_batch(AttentionBatch(weights, mask, tokens))

    @torch.no_grad()
    def add_batch(self, batch: AttentionBatch) -> None:
        """Adds a batch as `add` does: all of its texts or, if there is an error, none."""
        batch.check()
        heads = dict(zip(batch.layers, batch.heads, strict=True))
        self._check_heads(heads)
        separators = self._marked("separators", batch)
        punctuation = self._marked("punctuation", batch)
        divergences, behaviours = self._divergences, dict(self._behaviours)
        for index, weights, places in batch.texts():
            found = behaviours_of_text(
                weights,
                None if separators is None else separators[index, places],
                None if punctuation is None else punctuation[index, places],
            )
            if behaviours and found.keys() != behaviours.keys():
                raise ArgumentError(
                    f"earlier batches had {sorted(behaviours)}, this one has {sorted(found)}: tell "
                    f"separators and punctuation of all batches or of none"
                )
            behaviours = {name: behaviours.get(name, 0) + values for name, values in found.items()}
            more = divergences_of_text(weights, self.rows_per_text, self._generator)
            divergences = more if divergences is None else divergences + more
        self._heads, self._divergences, self._behaviours = heads, divergences, behaviours

    @checked
    def analyze(
        self, *, position: float = 0.5, special: float = 0.6, broad: float = 3.8, seed: int = 0
    ) -> AttentionHeadClusteringResult:
        """Returns the comparison of the heads over all texts so far; more texts can be added later.

        Args:
            position: See `HeadBehaviours.labels`.
            special: The same.
            broad: The same.
            seed: Of the embedding in two dimensions.

        Raises:
            ArgumentError: Nothing was added.
        """
        if self._divergences is None:
            raise ArgumentError(
                "no text was added yet: run the model in `track_batch`, or give weights to `add`"
            )
        sums = self._divergences
        means = {name: values / sums.rows for name, values in self._behaviours.items()}
        separator, punctuation = means.pop("separator", None), means.pop("punctuation", None)
        behaviours = HeadBehaviours(separator=separator, punctuation=punctuation, **means)
        coordinates = embedding(sums.mean, seed)
        return AttentionHeadClusteringResult(
            divergences=sums.mean,
            standard_errors=sums.standard_errors,
            layer_names=tuple(self._heads),
            layers=torch.tensor(
                [layer for layer, count in enumerate(self._heads.values()) for _ in range(count)]
            ),
            heads=torch.tensor([head for count in self._heads.values() for head in range(count)]),
            behaviours=behaviours,
            labels=behaviours.labels(position, special, broad),
            coordinates=coordinates,
            stress=stress_of(coordinates, sums.mean),
            texts=sums.texts,
            rows=sums.rows,
            compared_rows=sums.compared,
        )

    def _check_heads(self, heads: dict[str, int]) -> None:
        if self._heads and heads != self._heads:
            raise ShapeError(f"earlier batches had the heads {self._heads}, this one has {heads}")
        if sum(heads.values()) < 2:
            raise ArgumentError(f"two heads or more are compared, got {heads}")

    def _marked(self, name: str, batch: AttentionBatch) -> Tensor | None:
        """Which tokens are separators or punctuation, (batch, length); None if that is not known."""
        marked, numbers = getattr(batch, name), getattr(self, name)
        if marked is not None:
            result: Tensor = marked.cpu() == 1
            return result
        if not numbers:
            return None
        if batch.tokens is None:
            raise ArgumentError(f"{name} are {numbers}, but the batch has no tokens to find them in")
        return torch.isin(batch.tokens.cpu(), torch.tensor(numbers))


@checked
def cluster_attention_heads(
    batches: Iterable[AttentionBatch | Mapping[str, Tensor] | Sequence[Tensor]],
    *,
    separators: Collection[int] = (),
    punctuation: Collection[int] = (),
    rows_per_text: int | None = None,
    seed: int = 0,
    verbose: bool = True,
) -> AttentionHeadClusteringResult:
    """Returns the comparison of all attention heads, from weights that are there already.

    Args:
        batches: The weights of each batch, (batch, heads, query, key) of each layer; an `AttentionBatch`
            where there is padding. They are gone through once.
        separators: See `AttentionHeadClusterAnalyzer`.
        punctuation: The same.
        rows_per_text: The same.
        seed: Draws rows, and of the embedding in two dimensions.
        verbose: Shows the progress.

    Raises:
        ArgumentError: There is no batch; or see `AttentionHeadClusterAnalyzer.add`.

    Example:
        >>> previous, first = torch.eye(4).roll(-1, 1), torch.eye(4)[:1].expand(4, 4)
        >>> weights = torch.stack([previous, first])[None]  # one text of four tokens, two heads
        >>> cluster_attention_heads([[weights]], verbose=False).labels
        ('previous', 'first')
    """
    analyzer = AttentionHeadClusterAnalyzer(
        separators=separators, punctuation=punctuation, rows_per_text=rows_per_text, seed=seed
    )
    for batch in tqdm(batches, "attention heads", disable=not verbose):
        analyzer.add_batch(batch if isinstance(batch, AttentionBatch) else AttentionBatch(batch))
    return analyzer.analyze(seed=seed)
