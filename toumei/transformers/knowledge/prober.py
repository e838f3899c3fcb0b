"""KnowledgeProber: what a classifier reads out of each layer, and whether the layer or the probe knows it."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ...core.checks import check_choice, check_counts, check_seed, checked
from ...core.errors import ArgumentError
from ...core.kinds import shown
from ...core.progress import tqdm
from ...core.summaries import counted
from ..model.hooked_model import HookedModel
from .classifiers import Probes, control_labels
from .features import Features, is_each_token, read_features
from .probe_result import ProbeResult
from .random_weights import random_model


class KnowledgeProber:
    """Trains probes on activations of a model, with what shows that the knowledge is the model's.

    A probe of one activation is trained on some groups of examples and tested on the others, in turn. Two
    numbers stand beside its accuracy (Hewitt & Liang 2019, "Designing and Interpreting Probes with Control
    Tasks"):

    - that of a control task: each type of word gets a random label, which only a probe that learns types by
      heart can know. Accuracy minus control accuracy is the selectivity of the probe.
    - that of the same probe on the same architecture with random weights.

    Args:
        model: The model.
        kind: ``"linear"``, logistic regression on standardized numbers, or ``"mlp"`` with 64 neurons.
        splits: In how many parts the groups are divided.
        seed: Of the division, of the control labels and of random weights.
        confidence: Of the intervals, by a bootstrap over groups.
        batch_size: How many texts run at once.

    Raises:
        ArgumentError: A setting that makes no sense.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> facts = [fact for fact in world.facts if fact.target in ("baker", "farmer", "judge", "lawyer")]
        >>> prober = KnowledgeProber(HookedModel(model, tokenizer), splits=3)
        >>> found = prober(
        ...     [fact.subject for fact in facts],  # names alone
        ...     [fact.target for fact in facts],
        ...     names=[("resid_post", 0), ("resid_post", 2)],
        ...     random_baseline=False,
        ... )
        >>> found.names[1], bool(found.accuracy[1] > found.accuracy[0] + 0.1)
        ('blocks.2.hook_resid_post', True)
    """

    @checked
    def __init__(
        self,
        model: HookedModel,
        kind: Literal["linear", "mlp"] = "linear",
        *,
        splits: int = 5,
        seed: int = 0,
        confidence: float = 0.95,
        batch_size: int = 32,
    ) -> None:
        check_choice("kind", kind, ("linear", "mlp"))
        check_counts(2, splits=splits)
        check_counts(1, batch_size=batch_size)
        check_seed(seed)
        if not 0 < confidence < 1:
            raise ArgumentError(f"confidence is between 0 and 1, got {confidence}")
        self.model, self.kind, self.splits, self.seed = model, kind, splits, seed
        self.confidence, self.batch_size = confidence, batch_size

    @checked
    def __call__(
        self,
        texts: Sequence[Any],
        labels: Sequence[Any],
        *,
        names: Any = "resid_post",
        position: Any = "last",
        groups: Sequence[Any] | None = None,
        types: Sequence[Any] | None = None,
        control: bool = True,
        random_baseline: bool = True,
        verbose: bool = False,
    ) -> ProbeResult:
        """Returns the accuracies of probes, one for each activation.

        Args:
            texts: Texts, or rows of token ids.
            labels: The label of each text; at ``position="token"`` a sequence of labels for each text, one
                for each of its tokens, None for those that do not count.
            names: Names of activations, see `HookedModel.run_with_cache`; by default the stream after each
                layer.
            position: At which token: ``"last"``, ``"mean"`` over all, ``"token"`` for each, a number, or a
                number for each text.
            groups: Which texts belong together, such as those about one subject; by default each is alone.
            types: The type of word of each text in the control task; by default the token at the position,
                and at ``"mean"`` the text.
            control: Whether to train probes on the control task.
            random_baseline: Whether to train probes on random weights; the model stays as it is.
            verbose: Show progress.

        Raises:
            ArgumentError: Labels, groups or types do not fit the texts, there is one class only, or a class
                has fewer examples than there are splits.
            LayerError: An activation that the model does not have.
            ArchitectureError: It is not known how the weights of the model begin.
        """
        _check_lengths(texts, labels=labels, groups=groups, types=types)
        settings: dict[str, Any] = {"batch_size": self.batch_size, "verbose": verbose}
        features = read_features(self.model, texts, names, position, **settings)
        kept, given = _labelled(features, labels, is_each_token(position))
        classes, numbers = _numbered(given)
        _check_classes(classes, numbers, self.splits)
        owners = features.texts[kept].tolist()
        grouped = owners if groups is None else [groups[owner] for owner in owners]
        _, group_numbers = _numbered(grouped)
        probes = Probes(numbers, group_numbers, self.kind, self.splits, self.seed)
        typed = self._types(features, kept, owners, texts, types, position)
        random = None
        if random_baseline:
            other = random_model(self.model, self.seed)
            random = read_features(other, texts, list(features.names), position, **settings)
        wanted = control_labels(typed, numbers, self.seed) if control else None
        tasks = [(features, numbers), (features, wanted), (random, numbers)]
        rows: list[list[Tensor]] = [[], [], []]
        for place in tqdm(range(len(features.names)), desc="probes", disable=not verbose):
            for row, (read, task) in zip(rows, tasks, strict=True):
                if read is not None and task is not None:
                    row.append(probes.correct(read.values[place][kept], task))
        found = [torch.stack(row).float() if row else torch.zeros(0, len(numbers)) for row in rows]
        return ProbeResult(
            names=features.names,
            kind=self.kind,
            position=position if isinstance(position, str) else "a token",
            classes=tuple(map(str, classes)),
            correct=found[0],
            control=found[1],
            random=found[2],
            groups=group_numbers,
            majority=float(numbers.bincount().max() / len(numbers)),
            confidence=self.confidence,
        )

    def _types(
        self, features: Features, kept: Tensor, owners: list[int], texts: Any, types: Any, position: Any
    ) -> list[Any]:
        """The type of word of each example."""
        if types is not None:
            return [types[owner] for owner in owners]
        if isinstance(position, str) and position == "mean":
            return [str(texts[owner]) for owner in owners]
        return features.tokens[kept].tolist()

    def __repr__(self) -> str:
        return f"KnowledgeProber({self.model!r}, {self.kind}, {counted(self.splits, 'split')})"


def _check_lengths(texts: Sequence[Any], **given: Sequence[Any] | None) -> None:
    for name, several in given.items():
        if several is not None and len(several) != len(texts):
            raise ArgumentError(f"expected {name} of {counted(len(texts), 'text')}, got {len(several)}")


def _labelled(features: Features, labels: Sequence[Any], by_token: bool) -> tuple[Tensor, list[Any]]:
    """Which rows have a label, and these labels."""
    if not by_token:
        missing = [row for row, label in enumerate(labels) if _is_missing(label)]
        if missing:
            raise ArgumentError(f"text {missing[0]} has no label")
        return torch.arange(len(labels)), list(labels)
    flat = []
    for text, row in enumerate(labels):
        count = int((features.texts == text).sum())
        if isinstance(row, str) or not isinstance(row, Sequence) or len(row) != count:
            raise ArgumentError(
                f"text {text} has {counted(count, 'token')}, expected a label for each: {shown(row)}"
            )
        flat += list(row)
    kept = [place for place, label in enumerate(flat) if not _is_missing(label)]
    return torch.tensor(kept, dtype=torch.long), [flat[place] for place in kept]


def _is_missing(label: Any) -> bool:
    """Whether there is no label: None, or the NaN that tables of pandas have in its place."""
    return label is None or label != label


def _numbered(given: Sequence[Any]) -> tuple[list[Any], Tensor]:
    """The different values, sorted by their text, and the number of each that is given."""
    values = [one.item() if hasattr(one, "item") else one for one in given]
    try:
        different = sorted(set(values), key=str)
    except TypeError:
        raise ArgumentError(f"labels and groups are texts or numbers, got {shown(values[0])}") from None
    numbers = {one: number for number, one in enumerate(different)}
    return different, torch.tensor([numbers[one] for one in values], dtype=torch.long)


def _check_classes(classes: Sequence[Any], numbers: Tensor, splits: int) -> None:
    if len(classes) < 2:
        raise ArgumentError(f"a probe tells classes apart: expected labels of two or more, got {classes}")
    counts = numbers.bincount()
    few = int(counts.argmin())
    if counts[few] < splits:
        raise ArgumentError(
            f"label {classes[few]!r} has {counted(int(counts[few]), 'example')}, fewer than the "
            f"{counted(splits, 'split')}: leave it out, or give fewer splits"
        )
