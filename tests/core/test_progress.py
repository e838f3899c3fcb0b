"""Progress bars: from one place, and silent about widgets that are not installed."""

import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest
from tqdm import TqdmWarning

from toumei.core import progress


def test_a_notebook_without_widgets_gets_lines_of_text_without_a_warning(monkeypatch):
    """As in a kernel of Jupyter, where `tqdm.auto` alone warns."""
    kernel = ModuleType("IPython")
    kernel.get_ipython = lambda: SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", ModuleType("ipykernel.zmqshell"))
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    fresh = ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook")
    for name in fresh:
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.warns(TqdmWarning, match="IProgress not found"):
        importlib.import_module("tqdm.auto")
    for name in fresh:
        monkeypatch.delitem(sys.modules, name, raising=False)
    kept = progress.tqdm, progress.trange
    try:
        importlib.reload(progress)
        assert list(progress.tqdm(range(3), disable=True)) == [0, 1, 2]
    finally:
        progress.tqdm, progress.trange = kept
