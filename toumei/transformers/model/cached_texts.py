"""The texts that activations belong to, as tokens."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True, eq=False)
class CachedTexts:
    """The tokens of the texts of a pass.

    Attributes:
        ids: Token ids (batch, position).
        mask: (batch, position), 0 for padding; None without padding.
        decode: Returns the text of a token.
    """

    ids: Tensor
    mask: Tensor | None
    decode: Callable[[int], str]

    def rows(self, rows: slice) -> "CachedTexts":
        """Returns the tokens of some texts."""
        return replace(self, ids=self.ids[rows], mask=None if self.mask is None else self.mask[rows])

    def tokens(self) -> list[list[str]]:
        """Returns the texts of all tokens."""
        return [[self.decode(token) for token in row] for row in self.ids.tolist()]
