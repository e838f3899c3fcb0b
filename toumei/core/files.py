"""Files that are written whole or not at all. Nothing else in the package opens a file for writing."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from .errors import ArgumentError, ToumeiError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Gives the path of a partial file, which takes the place of the file when the block ends.

    The partial file lies in the folder of the file, which is made where it is missing, and has the same
    ending. If the block raises, the partial file and the new folders are removed and the file stays as it
    was. If the process is killed, the file stays as it was too. The file has the permissions that the umask
    leaves. A symbolic link stays, and the file that it points to is replaced.

    Args:
        path: File to write.

    Raises:
        ArgumentError: The path is a folder or a device.
        OSError: The file cannot be written; the message names the path.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with atomic_write(f"{folder}/new/x.txt") as partial:
        ...         _ = partial.write_text("whole")
        ...     Path(folder, "new", "x.txt").read_text()
        'whole'
    """
    with _naming(Path(path)):
        check_regular(path, "written", missing=True)
        target = Path(os.path.realpath(path))
        made = [folder for folder in target.parents if not folder.exists()]
        partial = target.with_name(f".{target.stem[:100]}.{uuid4().hex[:12]}.partial{target.suffix}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.touch(exist_ok=False)
            mode = stat.S_IMODE(partial.stat().st_mode)
            yield partial
            os.chmod(partial, mode)  # the libraries that write may have replaced the partial file
            os.replace(partial, target)
        except BaseException:
            _remove(partial, made)
            raise


def check_regular(path: str | Path, what: str, missing: bool = False) -> None:
    """Makes sure that a path is a file that can be read or replaced, and neither a folder nor a device.

    Args:
        path: The path.
        what: What is to happen with it, for the message.
        missing: Whether there may be no such file.

    Raises:
        ArgumentError: It is a folder or a device, or no path.
        OSError: It cannot be found out, or there is no such file.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if missing:
            return
        raise
    except ValueError as error:
        raise ArgumentError(f"{str(path)!r} is no path: {error}") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise ArgumentError(f"{path} cannot be {what}: it is {kind}, and a file was expected")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Makes every `OSError` of the block name the path."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ToumeiError):
            raise
        reason = error.strerror or str(error)
        if error.errno is None:
            raise OSError(f"cannot write {path}: {reason}") from error
        raise OSError(error.errno, f"cannot write the file: {reason}", str(path)) from error


def _remove(partial: Path, made: list[Path]) -> None:
    """Removes a partial file and the folders that were made for it, if nothing else is in them."""
    try:
        partial.unlink(missing_ok=True)
        for folder in made:
            folder.rmdir()
    except OSError:  # another process put something into the folder, or removed it
        return
