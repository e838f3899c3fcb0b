"""A warning points at the line of the user, whatever stands between that line and what warns."""

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

import toumei
from toumei.core import user_warnings

SCRIPT = """
import torch
from torch import nn
from toumei import cnns, plots
from toumei.attribution import GradCam, KernelShap, LayerConductance, Saliency
from toumei.bench import Bench
from toumei.core.parallel import sweep

class Drawing(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x)

class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x) + x[:, :2]

torch.manual_seed(0)
table = nn.Sequential(nn.Linear(4, 3), Drawing(), nn.Linear(3, 2)).eval()
network = nn.Sequential(nn.Conv2d(3, 4, 3), Drawing(), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).eval()
rows, pictures = torch.randn(3, 4), torch.rand(4, 3, 6, 6)
plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
loader = torch.utils.data.DataLoader([pictures[0]] * 4, 2)
same = cnns.dataset_examples(plain, "1", loader, k=2, verbose=False)
bench = Bench("runs")

@bench.log_experiment
def large():
    return torch.rand(20_000)
"""
CALLS = {
    "scores": "Saliency(table)(rows, 1)",
    "hidden parts": "KernelShap(table, samples=20)(rows, 1)",
    "maps": "GradCam(network, '0')(pictures, 1)",
    "a layer": "LayerConductance(Residual(), 'layer')(rows, 1)",
    "examples": "cnns.dataset_examples(network, '2', [pictures], k=1, verbose=False)",
    "a method of a result": "same.images('1:0')",
    "pixels": "plots.to_pil(pictures[0] + 9)",
    "a run": "large()",
    "a sweep": "sweep(torch.zeros, [20_000], folder='kept', verbose=False)",
}


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The names of a script of a user."""
    folder = tmp_path_factory.mktemp("script")
    path = folder / "script.py"
    path.write_text(SCRIPT)
    names = {"__name__": "script", "__file__": str(path)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(SCRIPT, path, "exec"), names)
        yield names


@pytest.mark.parametrize("name", CALLS)
def test_a_warning_points_at_the_line_of_the_user(name, script, small_disk):
    line = "\n" * 40 + CALLS[name]
    with small_disk(20_000), warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        exec(compile(line, "script.py", "exec"), script)
    assert found and {(one.filename, one.lineno) for one in found} == {("script.py", 41)}


def inside(code):
    """The names of code as if it were a module of the package."""
    module = ModuleType(f"{toumei.__name__}.made_here")
    module.warn = user_warnings.warn
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        exec(compile(code, "inside.py", "exec"), vars(module))
    return module


def test_functions_of_torch_and_methods_of_dataclasses_may_stand_between():
    code = """
from contextlib import contextmanager
from dataclasses import dataclass
from torch import nn

@dataclass
class Made:
    def __post_init__(self):
        warn("made")

class Layer(nn.Module):
    def forward(self, x):
        Made()
        return x

@contextmanager
def block():
    Layer()(1)
    yield
    Made()
"""
    made = inside(code)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with made.block():
            pass
    assert [one.filename for one in found] == [__file__, __file__]


def test_a_callback_of_the_user_is_the_user():
    made = inside("def call(function):\n    function()\ndef inner():\n    warn('x')")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        made.call(lambda: made.inner())
        made.call(made.inner)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(made.inner).result()
    assert [one.filename for one in found][:2] == [__file__, __file__] and len(found) == 3
    assert found[0].lineno == found[1].lineno - 1
