"""Packages that only some parts need, imported where they are needed."""

from importlib import import_module
from types import ModuleType

from .errors import MissingDependencyError


def require(package: str, purpose: str, install: str | None = None) -> ModuleType:
    """Returns the imported package, or says what it is for and how to install it.

    Args:
        package: Name to import.
        purpose: What needs it, for the message.
        install: What to give to pip, where it is not the name of the package.

    Raises:
        MissingDependencyError: The package is not installed.

    Example:
        >>> require("json", "reading settings").dumps([1])
        '[1]'
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.split(".")[0]:
            raise
        raise MissingDependencyError(
            f"{purpose} needs the package {package!r}: pip install {install or package}"
        ) from None
