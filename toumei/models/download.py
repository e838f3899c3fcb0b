"""Downloads of weights, verified: no wrong file is left in the cache."""

import hashlib
import time
from collections.abc import Iterator
from http.client import HTTPException
from os import PathLike
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..core.checks import checked
from ..core.errors import ArgumentError, DownloadError
from ..core.files import atomic_write, check_regular
from ..core.progress import tqdm

_SILENCE = 20.0  # seconds without an answer after which a download has failed
_SLOWEST = 1024  # bytes a second, on average, after the first seconds
_LARGEST = 1 << 33  # bytes, after which a server would never end
_CHUNK = 1 << 17


def fetch(url: str, blob_id: str, filename: str | None = None, progress: bool = True) -> Path:
    """Returns the path of a verified copy of ``url`` in torch's hub cache, downloaded only when needed.

    A cached file is verified each time; a wrong file is removed and downloaded again. A download is renamed
    into the cache once it is complete and verified. It fails when the server is silent for 20 seconds
    or sends more than 8 GiB.

    Args:
        url: Address of the file.
        blob_id: Its git blob id, see `git_blob_id`.
        filename: Its name in ``torch.hub.get_dir()/checkpoints``, by default the last part of ``url``.
        progress: Show a progress bar.

    Raises:
        DownloadError: The server cannot be reached, answers with an error or stops sending, the file is
            incomplete or another one, or the cache cannot be written.
        ArgumentError: The address is none of http, https or file, or the name leads out of the cache.

    Example:
        >>> fetch("https://example.org/net.pth", "119f77db85c8352960933e025312b507d9a96ed7")  # doctest: +SKIP
        PosixPath('/home/me/.cache/torch/hub/checkpoints/net.pth')
    """
    path = Path(torch.hub.get_dir(), "checkpoints", _checked_name(url, filename))
    try:
        if path.is_file():
            if git_blob_id(path) == blob_id:
                return path
            path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            with partial.open("wb") as file:
                _download(url, file, progress)
            _verify(partial, blob_id)
    except (OSError, _FailedError) as error:
        raise DownloadError(
            f"could not download {url} to {path}: {error}. "
            f"If you have the file, put it there, or give its path as weights=PATH."
        ) from error
    return path


def _checked_name(url: str, filename: str | None) -> str:
    """The name of the file in the cache, which leads nowhere else."""
    try:
        address = urlsplit(url) if isinstance(url, str) else None
    except ValueError:  # brackets without an address in them
        address = None
    if address is None or address.scheme not in ("http", "https", "file"):
        raise ArgumentError(f"expected an address that begins with https:// or http://, got {url!r}")
    name = PurePosixPath(unquote(address.path)).name if filename is None else filename
    parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
    if not parts or ".." in parts or PurePosixPath(name).anchor or PureWindowsPath(name).anchor:
        raise ArgumentError(f"expected the name of a file inside the cache, got {name!r} of {url!r}")
    return name


def git_blob_id(path: str | PathLike[str]) -> str:
    """Returns the git blob id of a file, as ``git hash-object`` prints it: 40 hex digits.

    Raises:
        FileNotFoundError: There is no such file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "greeting")
        ...     _ = file.write_bytes(b"hello")
        ...     git_blob_id(file)
        'b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0'
    """
    digest = hashlib.sha1(b"blob %d\0" % Path(path).stat().st_size, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@checked
def load_state_dict(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Returns the tensors of a ``.safetensors`` file or of a file of ``torch.save``, on the CPU.

    Only tensors are read: nothing in the file is executed.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ArgumentError: It is damaged, holds something else, or is no file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     torch.save({"fc0.bias": torch.zeros(2)}, Path(folder, "net.pth"))
        ...     load_state_dict(Path(folder, "net.pth"))
        {'fc0.bias': tensor([0., 0.])}
    """
    check_regular(Path(path), "read")
    try:
        if Path(path).suffix == ".safetensors":
            result: dict[str, Tensor] = load_file(path)
            return result
        loaded: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (PermissionError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # torch, pickle, zipfile and safetensors have many for damaged files
        raise ArgumentError(f"{path} holds no weights, or is damaged or cut short: {error}") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ArgumentError(f"expected tensors by name in {path}, got {type(loaded).__name__}")
    return loaded


class _FailedError(Exception):
    """The file did not arrive, or is not the expected one."""


def _download(url: str, file: BinaryIO, progress: bool) -> None:
    shown: dict[str, Any] = {"disable": not progress, "unit": "B", "unit_scale": True, "unit_divisor": 1024}
    with _answer(url) as answer, tqdm(total=_length(answer), **shown) as bar:
        for chunk in _chunks(answer):
            file.write(chunk)
            bar.update(len(chunk))


def _answer(url: str) -> Any:
    try:
        return urlopen(Request(url, headers={"User-Agent": "toumei"}), timeout=_SILENCE)
    except (OSError, ValueError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()
        raise _FailedError(str(error)) from error


def _length(answer: Any) -> int | None:
    length = answer.headers.get("Content-Length")
    return int(length) if length and length.isdigit() else None


def _chunks(answer: Any) -> Iterator[bytes]:
    """What arrives; a server that sends next to nothing is an error, as one that is silent is."""
    begun, arrived = time.monotonic(), 0
    while chunk := _chunk(answer):
        arrived += len(chunk)
        seconds = time.monotonic() - begun
        if seconds > _SILENCE and arrived < _SLOWEST * seconds:
            raise _FailedError(f"the server sent {arrived} bytes in {seconds:.0f} seconds")
        if arrived > _LARGEST:
            raise _FailedError(f"the server sent more than {_LARGEST:,} bytes and did not end")
        yield chunk


def _chunk(answer: Any) -> bytes:
    try:
        chunk: bytes = getattr(answer, "read1", answer.read)(_CHUNK)
    except (OSError, ValueError, HTTPException) as error:
        raise _FailedError(f"{error} after part of the file had arrived") from error
    return chunk


def _verify(path: Path, blob_id: str) -> None:
    """Raises an error if a file is another one; a transfer that ends early is noticed by nothing else."""
    found = git_blob_id(path)
    if found != blob_id:
        raise _FailedError(
            f"the download of {path.stat().st_size} bytes has the git blob id {found} instead of {blob_id}, "
            "so the file is incomplete or another one"
        )
