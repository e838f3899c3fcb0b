"""Downloads of weights, verified: no wrong file is left in the cache."""

import hashlib
from http.client import HTTPException
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.parse import urlsplit

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..core.checks import checked
from ..core.errors import DownloadError


def fetch(url: str, blob_id: str, filename: str | None = None, progress: bool = True) -> Path:
    """Returns the path of a verified copy of ``url`` in torch's hub cache, downloaded only when needed.

    A cached file is verified each time; a wrong file is removed and downloaded again. A download is renamed
    into the cache once it is complete and verified.

    Args:
        url: Address of the file.
        blob_id: Its git blob id, see `git_blob_id`.
        filename: Its name in ``torch.hub.get_dir()/checkpoints``, by default the last part of ``url``.
        progress: Show a progress bar.

    Raises:
        DownloadError: The server cannot be reached or answers with an error, the file is incomplete or
            another one, or the cache cannot be written.

    Example:
        >>> fetch("https://example.org/net.pth", "119f77db85c8352960933e025312b507d9a96ed7")  # doctest: +SKIP
        PosixPath('/home/me/.cache/torch/hub/checkpoints/net.pth')
    """
    path = Path(torch.hub.get_dir(), "checkpoints", filename or Path(urlsplit(url).path).name)
    try:
        if path.is_file():
            if git_blob_id(path) == blob_id:
                return path
            path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(url, blob_id, path, progress)
    except (OSError, HTTPException, _WrongFileError) as error:
        if isinstance(error, HTTPError):
            error.close()
        raise DownloadError(
            f"could not download {url} to {path}: {error}. "
            f"If you have the file, put it there, or give its path as weights=PATH."
        ) from error
    return path


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

    Raises:
        FileNotFoundError: There is no such file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     torch.save({"fc0.bias": torch.zeros(2)}, Path(folder, "net.pth"))
        ...     load_state_dict(Path(folder, "net.pth"))
        {'fc0.bias': tensor([0., 0.])}
    """
    if Path(path).suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


class _WrongFileError(Exception):
    """The downloaded file is not the expected one."""


def _download(url: str, blob_id: str, path: Path, progress: bool) -> None:
    # A folder next to the target, so that the rename stays on one filesystem and every failure, also Ctrl-C,
    # removes the partial file. torch does not notice a transfer that ends early; the id does.
    with TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.") as folder:
        arrived = Path(folder, path.name)
        torch.hub.download_url_to_file(url, str(arrived), progress=progress)
        found = git_blob_id(arrived)
        if found != blob_id:
            size = arrived.stat().st_size
            raise _WrongFileError(
                f"the download of {size} bytes has the git blob id {found} instead of {blob_id}, "
                "so the file is incomplete or another one"
            )
        arrived.replace(path)
