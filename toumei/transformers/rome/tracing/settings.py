"""The settings of a trace, checked when they are made."""

from dataclasses import dataclass, field
from typing import Literal

from ....core.checks import checked
from ....core.errors import ArgumentError
from ....core.summaries import line_of
from .noise import EmbeddingNoise

Kind = Literal["hidden", "mlp", "attn"]
Severed = Literal["mlp", "attn"]
Strategy = Literal["suffix", "rows", "plain"]
STRATEGIES: tuple[Strategy, ...] = ("suffix", "rows", "plain")


@checked
@dataclass(frozen=True)
class TraceSettings:
    """How prompts are traced; the arguments of `CausalTracer.trace` that do not depend on the prompt.

    Attributes:
        kind: What is restored: the output of one block (``"hidden"``), or the outputs of the MLPs (``"mlp"``)
            or attentions (``"attn"``) of a window of blocks.
        window: The number of blocks in a window.
        sever: The modules whose outputs keep their corrupted values after the restored state, or None.
        samples: The number of samples of noise.
        noise: The noise on the embeddings of the subject.
        seed: Seed of the noise.
        batch_size: The largest number of rows computed at once; by default as many as have about 8000 tokens.
        method: How the trace is computed, see `CausalTrace.method`; by default the fastest that works.
        verbose: Whether to show a progress bar.

    Raises:
        ArgumentError: A value that does not exist or is out of its range.

    Example:
        >>> TraceSettings(kind="mlp", window=5).sever is None
        True
    """

    kind: Kind = "hidden"
    window: int = 10
    sever: Severed | None = None
    samples: int = 10
    noise: EmbeddingNoise = field(default_factory=EmbeddingNoise)
    seed: int = 1
    batch_size: int | None = None
    method: Strategy | None = None
    verbose: bool = False

    __repr__ = line_of

    def __post_init__(self) -> None:
        if self.kind not in ("hidden", "mlp", "attn"):
            raise ArgumentError(f"no kind {self.kind!r} of states: there are hidden, mlp and attn")
        if self.sever not in (None, "mlp", "attn"):
            raise ArgumentError(f"cannot sever {self.sever!r}: there are mlp and attn")
        if self.sever is not None and self.kind != "hidden":
            raise ArgumentError(
                f"severed tracing restores hidden states: kind must be 'hidden', not {self.kind!r}"
            )
        batch_size = 1 if self.batch_size is None else self.batch_size
        for name, count in (
            ("samples", self.samples),
            ("window", self.window),
            ("batch_size", batch_size),
        ):
            if not isinstance(count, int) or count < 1:
                raise ArgumentError(f"{name} must be a whole number from 1 on, not {count!r}")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise ArgumentError(f"seed must be a whole number from 0 to 2^32 - 1, got {self.seed!r}")
        if self.method not in (None, *STRATEGIES):
            raise ArgumentError(f"no method {self.method!r}: there are {', '.join(STRATEGIES)}")
