"""Changes of a model that a ``with`` block makes and takes back: edits of weights, surgery."""

from abc import ABC, abstractmethod

from typing_extensions import Self

from ...core.errors import EditError
from ...core.interrupts import uninterrupted
from ...core.user_warnings import warn


class Revertible(ABC):
    """A change of a model that is reverted at the end of a ``with`` block, however it ends."""

    @property
    @abstractmethod
    def applied(self) -> bool:
        """Whether the model is changed now."""

    @abstractmethod
    def apply(self) -> Self:
        """Changes the model, and returns the change."""

    @abstractmethod
    def revert(self) -> Self:
        """Gives the model back as it was, and returns the change."""

    def __enter__(self) -> Self:
        return self.apply()

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            with uninterrupted():
                self._leave(kind)
        except EditError:
            raise
        except BaseException as interrupt:  # Ctrl-C may come before it is held back
            self._leave(type(interrupt))
            raise

    def _leave(self, kind: type[BaseException] | None) -> None:
        """Reverts the change at the end of a block."""
        if not self.applied:
            return
        try:
            self.revert()
        except EditError as failed:
            if kind is None:
                raise
            warn(str(failed))  # the error from inside the block is raised
