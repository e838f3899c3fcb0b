"""Feed-forward layers as key-value memories: what triggers each neuron, and what it then promotes.

Neuron i of a feed-forward layer has a key k_i, a row of the first weight, and a value v_i, a column of the
last one. Its coefficient after a prefix x_1..x_j is m_i = f(k_i . x_j + b_i), or act(g_i . x_j) (u_i . x_j)
in gated layers, and the layer adds the sum of m_i v_i to the stream (Geva et al. 2021, "Transformer
Feed-Forward Layers Are Key-Value Memories", arXiv:2012.14913). Coefficients are read where they are, at the
input of the last map.
"""

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ...core.checks import check_choice, check_counts, checked
from ...core.errors import ArchitectureError, ArgumentError
from ...core.hooks import hooked, run_past_errors
from ...core.modules import device_and_dtype, evaluating, find_module, without_wrapper
from ...core.progress import tqdm
from ...core.summaries import counted
from ...core.surveys import survey
from ...core.tensors import whole
from ...core.user_warnings import warn
from .coefficient_reader import CoefficientReader, KeptTexts, Strategy
from .default_layers import FeedForwardLayers
from .down_projections import DownProjection, find_down_projections
from .layer_memories import LayerMemories
from .result import Memories
from .text_batches import TextBatches, TokenizedText, most_positions, padded_ids, token_texts
from .trigger_texts import TriggerTexts
from .value_distributions import promoted_tokens

_CELLS = 2**26  # coefficients of a batch of several texts, of all layers


@checked
class KeyValueMemories:
    """The memories of feed-forward layers, from one pass over texts.

    Of each text every neuron has one trigger, the prefix with its highest coefficient; the texts with the
    highest ones are kept. Of gated layers, whose coefficients have both signs, also those with the lowest.
    Memory does not grow with the number of texts. The pass ends after the deepest layer.

    Args:
        model: A model of texts.
        tokenizer: Its tokenizer.
        layers: The names of down projections, the last linear maps of feed-forward layers, such as
            ``"transformer.h.0.mlp.c_proj"``; by default those of all layers, which a pass of a few tokens
            finds. Names without a run number mean the last run in a pass.
        strategy: ``"prefix"`` reads every token, ``"cls"`` only the first one of a text, for encoders.
        triggers: How many texts are kept for each neuron; the code of the paper keeps 50.
        promoted: How many tokens are kept that a value promotes; 0 for none, where there is no output
            embedding.
        norm: The name of a module that is applied to values before the output embedding, such as
            ``"transformer.ln_f"``; the paper applies none.
        gated: Whether all layers are gated; by default the pass that finds the layers tells, or for layers
            that are named the linear maps beside each one.
        batch_size: Most texts in a forward pass; fewer where the coefficients would take more than 256 MB.
        max_length: The number of tokens at which longer texts are cut off. By default the model's limit, with
            a warning.
        verbose: Show a progress bar.

    Raises:
        LayerError: A layer that the model does not have.
        ArchitectureError: A layer that is no linear map, or a model without an output embedding.
        ArgumentError: No layers, no tokenizer, or a count that is too small.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> texts = [fact.text for fact in world.facts[:100]]
        >>> layers = ["transformer.h.2.mlp.c_proj"]
        >>> memories = KeyValueMemories(model, tokenizer, layers, verbose=False)(texts)
        >>> memories
        Memories(1 layer, 512 neurons, ... prefixes of 100 texts)
        >>> trigger = memories.neuron(0, 3).triggers[0]
        >>> trigger.prefix in texts[trigger.number]
        True
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        layers: Sequence[str] | None = None,
        *,
        strategy: Strategy = "prefix",
        triggers: int = 25,
        promoted: int = 10,
        norm: str | None = None,
        gated: bool | None = None,
        batch_size: int = 32,
        max_length: int | None = None,
        verbose: bool = True,
    ) -> None:
        check_choice("strategy", strategy, ("prefix", "cls"))
        check_counts(1, triggers=triggers, max_length=max_length)
        check_counts(0, promoted=promoted)
        known: bool | Mapping[str, bool] | None = gated
        if layers is None:
            found = FeedForwardLayers(model)
            layers, known = found.down_projections, found.gated if gated is None else gated
        self.projections = find_down_projections(model, layers, known)
        self.embedding = output_embedding(model, self.projections) if promoted else None
        self.norm = None if norm is None else find_module(without_wrapper(model), norm)
        self.model, self.tokenizer, self.strategy = model, tokenizer, strategy
        self.triggers, self.promoted, self.batch_size = triggers, promoted, batch_size
        self.max_length, self.verbose = max_length, verbose

    @checked
    def __call__(self, texts: Iterable[str]) -> Memories:
        """Returns the memories.

        Args:
            texts: The texts, such as sentences; an iterator is read once.

        Raises:
            ArgumentError: There are no texts, or something else among them.
            ForwardError: The model cannot run on them.
            ShapeError: A layer is not given a vector for each token.
            NonFiniteError: Coefficients are NaN or infinite.
        """
        limit = min(filter(None, (self.max_length, most_positions(self.model, self.tokenizer))), default=None)
        neurons = sum(len(projection.values) for projection in self.projections)
        source = TextBatches(
            self.tokenizer,
            texts,
            batch_size=self.batch_size,
            most_tokens=max(1, _CELLS // neurons),
            limit=limit,
        )
        reader = CoefficientReader(self.projections, self.strategy, self.triggers)
        kept = self._read(source, reader, len(texts) if isinstance(texts, Sized) else None)
        if not kept:
            raise ArgumentError(
                f"expected texts with tokens, got {'an empty corpus' if not source.read else 'none in'}"
                + (f" {counted(source.read, 'text')}" if source.read else "")
            )
        if source.cut and self.max_length is None:
            warn(
                f"{source.cut} of {counted(source.read, 'text')} cut off at the {limit} tokens that the "
                "model takes: split them, or give max_length"
            )
        return self._result(source, reader, kept)

    def _read(
        self, source: TextBatches, reader: CoefficientReader, total: int | None
    ) -> dict[int, TokenizedText]:
        """Reads the coefficients of all texts; returns those that trigger some neuron."""
        device = device_and_dtype(self.model)[0]
        kept, runs = KeptTexts[TokenizedText](reader), None
        progress = tqdm(desc="memories", unit="text", total=total, disable=not self.verbose)
        with progress, evaluating(self.model), torch.no_grad():
            for batch in source:
                ids, mask = padded_ids(batch, device)
                runs = runs or self._runs(ids[:1])
                with hooked(self.model, runs, inputs=True, clone=False, detach=True, stop=True) as given:
                    run_past_errors(
                        lambda ids=ids, mask=mask: self._forward(ids, mask),  # type: ignore[misc]
                        given.complete,
                        self.model,
                        (ids,),
                    )
                reader.add(given, mask, torch.tensor([text.number for text in batch]))
                kept.add({text.number: text for text in batch})
                progress.update(len(batch))
        return kept.result()

    def _runs(self, ids: Tensor) -> dict[str, str]:
        """The runs that layers name, with their numbers: passes that record these can stop early."""
        names = [projection.name for projection in self.projections]
        mask = torch.ones_like(ids, dtype=torch.bool)
        return survey(self.model, names, lambda: self._forward(ids, mask), keep=False).names

    def _forward(self, ids: Tensor, mask: Tensor) -> None:
        taken = signature(without_wrapper(self.model).forward).parameters
        options = {"attention_mask": mask.long(), "use_cache": False}
        self.model(ids, **{name: option for name, option in options.items() if name in taken})

    def _result(
        self, source: TextBatches, reader: CoefficientReader, kept: Mapping[int, TokenizedText]
    ) -> Memories:
        texts = list(kept.values())
        lengths = torch.tensor([len(text.ids) for text in texts])
        corpus = TriggerTexts(
            texts=tuple(text.text for text in texts),
            numbers=torch.tensor(list(kept)),
            starts=torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]),
            ids=torch.tensor([token for text in texts for token in text.ids], dtype=torch.int32),
            ends=torch.tensor([end for text in texts for end in text.ends], dtype=torch.int32),
            vocabulary=self._vocabulary(),
        )
        layers = reader.result()
        if self.embedding is not None:
            bar = tqdm(self.projections, desc="values", unit="layer", disable=not self.verbose)
            pairs = zip(layers, bar, strict=True)
            layers = [self._with_values(corpus, layer, projection) for layer, projection in pairs]
        return Memories(
            layers=tuple(layers),
            corpus=corpus,
            strategy=self.strategy,
            read=source.read,
            prefixes=next(iter(reader.layers.values())).moments.count,
            cut=source.cut,
        )

    def _with_values(
        self, corpus: TriggerTexts, layer: LayerMemories, projection: DownProjection
    ) -> LayerMemories:
        assert self.embedding is not None
        with evaluating(self.model):
            found = [
                promoted_tokens(
                    sign * projection.values,
                    self.embedding,
                    top=self.promoted,
                    asked=corpus.places(triggers).following[:, 0],
                    norm=self.norm,
                )
                for sign, (_, triggers, _) in zip((1, -1), layer.tails(), strict=False)
            ]
        return replace(layer, promoted=found[0], lowered=found[1] if projection.gated else None)

    def _vocabulary(self) -> tuple[str, ...]:
        """The text of each token; rows of the embedding without a token have their number."""
        count = len(self.tokenizer)
        rows = count if self.embedding is None else max(count, len(self.embedding))
        known = token_texts(self.tokenizer, range(count))
        return (*known, *(f"<{token}>" for token in range(count, rows)))


def output_embedding(model: nn.Module, projections: Iterable[DownProjection]) -> Tensor:
    """Returns the output embedding of a model, (vocabulary, width).

    Raises:
        ArchitectureError: There is none, or values have another width.
    """
    inner: Any = without_wrapper(model)
    head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor):
        raise ArchitectureError(
            f"{type(inner).__name__} has no output embedding, so its values promote no tokens: give a model "
            f"with its head, or promoted=0 for the triggers alone"
        )
    for projection in projections:
        if projection.values.shape[1] != weight.shape[1]:
            raise ArchitectureError(
                f"the values of {projection.name!r} have {counted(projection.values.shape[1], 'number')} and "
                f"the output embedding {weight.shape[1]}: give promoted=0 for the triggers alone"
            )
    return whole(weight)
