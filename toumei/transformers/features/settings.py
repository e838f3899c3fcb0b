"""How a dictionary is trained."""

from dataclasses import dataclass

from ...core.checks import check_choice, check_counts, check_seed
from ...core.errors import ArgumentError
from ...core.summaries import line_of
from .dictionary import ACTIVATIONS, Activation

_MOST_TOKENS = 10**11

_RESAMPLINGS = 4  # of Anthropic: after 1/8, 2/8, 3/8 and 4/8 of the steps


@dataclass(frozen=True)
class DictionarySettings:
    """How a dictionary is trained.

    Inputs are multiplied by one number, so that their norm is sqrt(width) on average; it is folded into the
    weights at the end. The loss of a batch is the mean of (x - x^)^2 over its numbers, plus:

    - ``topk`` and ``batch_topk``: `aux_weight` times the loss of dead features that reconstruct the error
      (Gao et al. 2024, equation in section A.2).
    - ``jump_relu``: `penalty` times (L0 / k - 1)^2, by straight-through estimators (Rajamanoharan et al. 2024
      and 2025).
    - ``relu``: `penalty` times the sum of the features' activations over the width (Bricken et al. 2023).

    Attributes:
        features: How many features the dictionary has.
        activation: ``"topk"``, ``"batch_topk"``, ``"jump_relu"`` or ``"relu"``.
        k: How many features are active in an input: exactly, on average, or as the target of ``jump_relu``.
        penalty: The weight of the sparsity of ``relu`` and ``jump_relu``.
        tokens: How many inputs are seen, in all passes over the activations.
        batch_size: Inputs of a step.
        learning_rate: Of Adam; by default 2e-4 / sqrt(features / 2^14) (Gao et al. 2024).
        warm_up: The share of the steps in which the learning rate rises.
        decay: The share of the steps, at the end, in which it falls to 0.
        dead_after: A feature is dead after so many inputs without it; by default a tenth of `tokens`, and at
            most 10 million.
        aux_k: How many dead features explain the error together; by default half of the width.
        aux_weight: The weight of that loss.
        bandwidth: The width of the estimators of ``jump_relu``.
        buffer: How many inputs are shuffled in memory.
        seed: Of the weights and of the order of the inputs.

    Example:
        >>> DictionarySettings(features=512, k=8).steps
        244
    """

    features: int
    activation: Activation = "topk"
    k: int = 32
    penalty: float = 1.0
    tokens: int = 10**6
    batch_size: int = 4096
    learning_rate: float | None = None
    warm_up: float = 0.05
    decay: float = 0.2
    dead_after: int | None = None
    aux_k: int | None = None
    aux_weight: float = 1 / 32
    bandwidth: float = 0.05
    buffer: int = 2**16
    seed: int = 0

    __repr__ = line_of

    def __post_init__(self) -> None:
        """Makes sure that the settings fit.

        Raises:
            ArgumentError: One that does not.
        """
        check_counts(
            1,
            features=self.features,
            k=self.k,
            batch_size=self.batch_size,
            dead_after=self.dead_after,
            aux_k=self.aux_k,
        )
        check_choice("activation", self.activation, ACTIVATIONS)
        check_counts(self.batch_size, tokens=self.tokens, buffer=self.buffer)
        if self.tokens > _MOST_TOKENS:
            raise ArgumentError(
                f"tokens is at most {_MOST_TOKENS:,}, got {self.tokens:,}: at a million a second that takes "
                f"{self.tokens // 10**6 // 86400:,} days"
            )
        check_seed(self.seed)
        if self.k > self.features:
            raise ArgumentError(f"k is at most the number of features, {self.features}, got {self.k}")
        positive = {
            "learning_rate": 1 if self.learning_rate is None else self.learning_rate,
            "bandwidth": self.bandwidth,
        }
        shares = {"warm_up": self.warm_up, "decay": self.decay}
        for name, value in (*positive.items(), ("penalty", self.penalty), ("aux_weight", self.aux_weight)):
            if not _is_number(value) or not (value > 0 if name in positive else value >= 0):
                raise ArgumentError(
                    f"{name} is a number {'above' if name in positive else 'from'} 0, got {value}"
                )
        if not all(_is_number(one) and 0 <= one <= 1 for one in shares.values()) or sum(shares.values()) > 1:
            raise ArgumentError(
                f"warm_up and decay are shares of the steps, at most 1 together, got {self.warm_up} and "
                f"{self.decay}"
            )

    @property
    def steps(self) -> int:
        """How many steps of the optimizer there are."""
        return self.tokens // self.batch_size

    @property
    def rate(self) -> float:
        """The learning rate between warm-up and decay."""
        return 2e-4 / (self.features / 2**14) ** 0.5 if self.learning_rate is None else self.learning_rate

    @property
    def dead_tokens(self) -> int:
        """After how many inputs without it a feature is dead."""
        return self.dead_after or min(max(self.tokens // 10, self.batch_size), 10**7)

    def share_of_rate(self, step: int) -> float:
        """Returns the share of the learning rate in a step: up, level, down.

        Example:
            >>> settings = DictionarySettings(features=8, k=2, tokens=100, batch_size=10, warm_up=0.2)
            >>> [round(settings.share_of_rate(step), 2) for step in (0, 1, 5, 8, 9)]
            [0.5, 1.0, 1.0, 1.0, 0.5]
        """
        up, down = self.warm_up * self.steps, self.decay * self.steps
        rise = (step + 1) / up if up >= 1 else 1.0
        fall = (self.steps - step) / down if down >= 1 else 1.0
        return min(1.0, rise, fall)

    @property
    def resampling_steps(self) -> tuple[int, ...]:
        """The steps after which dead features of ``relu`` begin again."""
        return tuple(self.steps * (turn + 1) // (2 * _RESAMPLINGS) for turn in range(_RESAMPLINGS))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
