"""Files that are written whole or not at all. Nothing else in the package opens a file for writing."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from .errors import ArgumentError, FolderError, ToumeiError
from .interrupts import uninterrupted, until_the_end

_CANNOT = "cannot write"


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Gives the path of a partial file, which takes the place of the file when the block ends.

    The partial file lies in the folder of the file, which is made where it is missing. On Linux it has no
    name there, so nothing is left of it if the process is killed; its path then has no ending either, and
    libraries have to be told the format. If the block raises, the partial file and the new folders are
    removed and the file stays as it was. The file has the permissions that the umask leaves. A symbolic link
    stays, and the file that it points to is replaced.

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
        named = target.with_name(f".{target.stem[:100]}.{uuid4().hex[:12]}.partial{target.suffix}")
        with until_the_end() as cleanup:
            files: list[BinaryIO] = []
            cleanup.add(lambda: [file.close() for file in files])
            cleanup.add(lambda: _remove(named, made))
            target.parent.mkdir(parents=True, exist_ok=True)
            files += nameless(target.parent)
            if not files:
                named.touch(exist_ok=False)
                mode = stat.S_IMODE(named.stat().st_mode)
                yield named
                os.chmod(named, mode)  # the libraries that write may have replaced the partial file
            else:
                partial = Path(f"/proc/self/fd/{files[0].fileno()}")
                yield partial
                with uninterrupted():
                    _link(partial, named)
            os.replace(named, target)


@contextmanager
def atomic_pair(content: str | Path, description: str | Path) -> Iterator[tuple[Path, Path]]:
    """Gives partial files as `atomic_write` does, for a file and one without which nobody can read it.

    The old description is removed before the content is replaced: a process that is killed in between leaves
    a folder that is refused, not new numbers under an old description.

    Args:
        content: File to write.
        description: The file that describes it, in the same folder.

    Raises:
        ArgumentError: A path is a folder or a device.
        OSError: A file cannot be written; then both stay as they were.
    """
    with atomic_write(description) as described, atomic_write(content) as partial:
        yield partial, described
        Path(os.path.realpath(description)).unlink(missing_ok=True)


def nameless(folder: Path) -> list[BinaryIO]:
    """Opens a file without a name in a folder; none where the system or the disk has no such files.

    Args:
        folder: A folder that is there.

    Returns:
        The open file, alone in a list; an empty list where there are no such files.

    Raises:
        OSError: The folder cannot be written.
    """
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not os.path.isdir("/proc/self/fd"):
        return []
    try:
        return [os.fdopen(os.open(folder, flag | os.O_RDWR, 0o666), "w+b")]
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            return []  # some file systems, such as those of networks, have none
        raise


def _link(nameless: Path, named: Path) -> None:
    """Gives a file a name; only with descriptors of folders does the system follow the link to the file."""
    folder = os.open(named.parent, getattr(os, "O_PATH", os.O_RDONLY))
    try:
        os.link(nameless, named.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def check_regular(path: str | Path, what: str, missing: bool = False) -> None:
    """Makes sure that a path is a file that can be read or replaced, and neither a folder nor a device.

    Args:
        path: The path.
        what: What is to happen with it, for the message.
        missing: Whether there may be no such file.

    Raises:
        ArgumentError: It is a folder or a device, or no path.
        FolderError: A part of the path is a file, as in ``file.txt/new.txt``.
        OSError: It cannot be found out, or there is no such file.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if missing:
            return
        raise
    except NotADirectoryError as error:
        file = next(one for one in Path(path).parents if one.exists())
        raise FolderError(f"{path} cannot be {what}: {file} is a file, and a folder was expected") from error
    except ValueError as error:
        raise ArgumentError(f"{str(path)!r} is no path: {error}") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise ArgumentError(f"{path} cannot be {what}: it is {kind}, and a file was expected")


def check_folder(folder: Path) -> None:
    """Makes sure that a path is a folder, or that nothing but folders are in the way of making it.

    Raises:
        FolderError: A part of the path is a file.

    Example:
        >>> check_folder(Path(__file__) / "kept")
        Traceback (most recent call last):
        toumei.core.errors.FolderError: ...files.py/kept cannot be a folder: ...files.py is a file
    """
    for part in (folder, *folder.parents):
        if part.is_dir():
            return
        if part.exists():
            raise FolderError(f"{folder} cannot be a folder: {part} is a file")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Makes every `OSError` of the block name the path."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, ToumeiError) or reason.startswith(_CANNOT):  # it names the path of another file
            raise
        if error.errno is None:
            raise OSError(f"{_CANNOT} {path}: {reason}") from error
        raise OSError(error.errno, f"{_CANNOT} the file: {reason}", str(path)) from error


def _remove(partial: Path, made: list[Path]) -> None:
    """Removes a partial file and the folders that were made for it, if nothing else is in them."""
    try:
        partial.unlink(missing_ok=True)
        for folder in made:
            folder.rmdir()
    except OSError:  # another process put something into the folder, or removed it
        return
