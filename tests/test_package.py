"""The package as a whole: what importing it costs, and that the folder works when copied elsewhere."""

import shutil
from pathlib import Path

import pytest
from fresh_interpreters import run_fresh

import toumei

ROOT = Path(__file__).parents[1]

LAZY = """
import sys, torch
before = set(sys.modules)
import toumei
heavy = {"transformers", "sklearn", "networkx", "matplotlib", "torchvision", "kornia", "skimage", "captum"}
loaded = {name.split(".")[0] for name in set(sys.modules) - before}
assert not loaded & heavy, loaded & heavy
assert "toumei.cnns" not in sys.modules
assert toumei.cnns.Pipeline and toumei.core.hooked and toumei.models.ShapesCNN and toumei.plots.montage
assert not {name.split(".")[0] for name in sys.modules} & {"transformers", "sklearn", "networkx"}
assert "matplotlib" not in sys.modules
"""

COPIED = """
import importlib.abc, sys

class NoOriginal(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "toumei":
            raise ModuleNotFoundError(f"the copy imports the original: {name}", name=name)

sys.meta_path.insert(0, NoOriginal())
import torch
import vendor.toumei
import vendor.toumei.cnns.objectives as obj
import vendor.toumei.cnns.parameterization as param
from vendor.toumei.cnns import robustness
from vendor.toumei.models import ShapesCNN

assert vendor.toumei.__file__.startswith(sys.argv[1])
view = param.Transform(param.FFTImage(2, 3, 33, 40, seed=0), robustness.light())
fv = obj.Pipeline(view, ["conv2:1", "conv3:0"]).attach(ShapesCNN(pretrained=True))
losses = fv.optimize(3, verbose=False, seed=0).losses
fv.save(sys.argv[1] + "/picture.png")
assert losses.shape == (3, 2) and losses.isfinite().all()
"""


def run(code, folder, *arguments):
    done = run_fresh(code, *arguments, folder=folder)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_nothing_heavy(tmp_path):
    run(LAZY, tmp_path)


def test_a_copied_folder_works_where_the_original_cannot_be_imported(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "toumei", tmp_path / "vendor" / "toumei", ignore=ignored)
    run(COPIED, tmp_path, str(tmp_path))
    assert (tmp_path / "picture.png").exists()


def test_an_unknown_part_of_the_package_says_what_exists():
    with pytest.raises(AttributeError, match="no attribute 'cnn'; it has attribution, bench, cnns, core"):
        toumei.cnn  # noqa: B018
    rooms = {path.parent.name for path in (ROOT / "toumei").glob("*/__init__.py")}
    assert set(dir(toumei)) == {"__version__", *rooms}
