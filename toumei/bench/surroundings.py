"""Where a run took place: packages, device, the state of git, and how much memory it took."""

import os
import platform
import subprocess
import sys
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import torch

_STATUS = Path("/proc/self/status")  # of Linux
_FRESH = 2.0  # seconds for which the state of a repository counts


@cache
def environment() -> dict[str, Any]:
    """Returns the versions of Python, of all packages and of the device."""
    packages = {one.metadata["Name"]: one.version for one in metadata.distributions() if one.metadata["Name"]}
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cuda": torch.version.cuda if cuda else None,
        "packages": dict(sorted(packages.items(), key=lambda pair: pair[0].lower())),
    }


class GitState:
    """The state of the repository of a file, which git finds out while the experiment runs.

    Runs that follow each other within two seconds share one answer, for git takes longer than a short run.

    Args:
        file: A file; without one, or outside of a repository, there is no state.
    """

    _known: ClassVar[dict[Path, tuple[float, dict[str, Any]]]] = {}

    def __init__(self, file: str | None) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._folder = folder = Path(file or "").parent
        self._found, self._asked = None, time.monotonic()
        asked, found = self._known.get(folder, (-_FRESH, None))
        if self._asked - asked < _FRESH:
            self._found = found
            return
        if not file or not _in_repository(folder):
            return
        command = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
        try:
            self._process = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        except OSError:  # git is not installed
            return

    def found(self) -> dict[str, Any] | None:
        """Returns the commit, the branch and the files that were changed since; None without a repository."""
        if self._process is None:
            return self._found
        try:
            lines = self._process.communicate(timeout=5)[0].splitlines()
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return None
        heads = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch."))
        changed = [line.split(" ", 8)[-1].split("\t")[0] for line in lines if not line.startswith("#")]
        found = {
            "commit": heads.get("branch.oid"),
            "branch": heads.get("branch.head"),
            "changed": changed,
        }
        self._known[self._folder] = self._asked, found
        return found


@cache
def _in_repository(folder: Path) -> bool:
    return any((parent / ".git").exists() for parent in (folder, *folder.absolute().parents))


class PeakMemory:
    """The most memory that this process holds from now on; at any time where the system counts only that."""

    def __init__(self) -> None:
        self._cuda = torch.cuda.is_initialized()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        if _STATUS.exists():
            try:
                os.write(descriptor := os.open("/proc/self/clear_refs", os.O_WRONLY), b"5")
            except OSError:  # not every container allows it
                return
            os.close(descriptor)

    def found(self) -> dict[str, int]:
        """Returns bytes of the CPU, and of the accelerator if it is used."""
        found = {"cuda": torch.cuda.max_memory_allocated()} if self._cuda else {}
        if _STATUS.exists():
            found["cpu"] = next(
                int(line.split()[1]) * 1024
                for line in _STATUS.read_text().splitlines()
                if line.startswith("VmHWM")
            )
        elif sys.platform != "win32":
            import resource

            unit = 1 if sys.platform == "darwin" else 1024
            found["cpu"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return found
