"""Runs code as a new interpreter does, without the second and a half that each takes to import torch."""

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess

# A process that has imported torch and numpy alone; for each code it makes a copy of itself.
_COPIES = """
import json, os, signal, sys, traceback

import numpy, torch

def run(code, arguments, folder, environment, output, errors):
    for place, path in ((0, os.devnull), (1, output), (2, errors)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), place)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.alarm(300)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<string>", "exec"), sys.modules["__main__"].__dict__)

for line in sys.stdin:
    child = os.fork()
    if not child:
        status = 1
        try:
            run(**json.loads(line))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@cache
def _copies() -> "subprocess.Popen[str]":
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", _COPIES], **pipes)


def run_fresh(
    code: str, *arguments: str, folder: str | Path = ".", environment: dict[str, str] | None = None
) -> CompletedProcess[str]:
    """Returns what `python -c code` does where torch and numpy are imported; ends it after five minutes."""
    process = _copies()
    with tempfile.TemporaryDirectory() as made:
        files = {name: os.path.join(made, name) for name in ("output", "errors")}
        order = {"code": code, "arguments": arguments, "folder": os.path.abspath(folder), **files}
        order["environment"] = dict(os.environ) if environment is None else environment
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
        output, errors = (Path(path).read_text() for path in files.values())
    return CompletedProcess(["-c", *arguments], status, output, errors)
