"""What setup.cfg declares is what the package uses, and each room imports with the packages that it names."""

import ast
import configparser
import re
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from fresh_interpreters import run_fresh

import toumei

ROOT = Path(__file__).parents[1]
IMPORTED_AS = {
    "pillow": "PIL",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "umap-learn": "umap",
}
# PEFT reads what `export_lora` writes; the package itself does not import it.
READERS = {"peft"}

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def requirements(section, key):
    """From the name under which a package is imported to what setup.cfg demands of it."""
    lines = SETUP[section][key].split("\n")
    names = {re.split(r"[<>=!~;\[ ]", line)[0]: line for line in lines if line.strip()}
    return {IMPORTED_AS.get(name, name.replace("-", "_")): line for name, line in names.items()}


REQUIRED = requirements("options", "install_requires")
EXTRAS = {name: requirements("options.extras_require", name) for name in SETUP["options.extras_require"]}


class Imports(ast.NodeVisitor):
    """The other packages that a file imports: when it is imported itself, and inside its functions."""

    def __init__(self, path, functions=True):
        self.at_once, self.inside, self.depth, self.functions = set(), set(), 0, functions
        self.visit(ast.parse(path.read_text()))

    def note(self, name):
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names and top != "toumei":
            (self.inside if self.depth else self.at_once).add(top)

    def visit_Import(self, node):
        for alias in node.names:
            self.note(alias.name)

    def visit_ImportFrom(self, node):
        if not node.level:
            self.note(node.module)

    def visit_Call(self, node):
        if getattr(node.func, "id", None) == "require":  # toumei.core.optional
            self.note(node.args[0].value)
        self.generic_visit(node)

    def visit_If(self, node):
        if getattr(node.test, "id", None) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_FunctionDef(self, node):
        if self.functions:
            self.depth += 1
            self.generic_visit(node)
            self.depth -= 1

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef


@cache
def files():
    """The imports of each file of the package."""
    return {path.relative_to(ROOT): Imports(path) for path in sorted((ROOT / "toumei").rglob("*.py"))}


SCRIPTS = ("experiments", "tests", "benchmarks", "docs")
OURS = {
    path.parent.name if path.stem == "__init__" else path.stem
    for folder in SCRIPTS
    for path in (ROOT / folder).rglob("*.py")
} | set(SCRIPTS)
TOOLS = ("dev", "docs", "benchmarks")  # extras that the package itself does not import
OPTIONAL = {name for extra, names in EXTRAS.items() if extra not in TOOLS for name in names}


def test_each_declared_package_is_used_and_each_used_one_is_declared():
    at_once = {name for file in files().values() for name in file.at_once}
    inside = {name for file in files().values() for name in file.inside}
    assert set(REQUIRED) == at_once | inside - OPTIONAL
    assert inside & OPTIONAL == OPTIONAL - READERS
    assert not OPTIONAL & set(REQUIRED)


def test_extras_are_imported_in_the_functions_that_need_them():
    for path, file in files().items():
        assert not file.at_once & OPTIONAL, path


@pytest.mark.parametrize("folder", SCRIPTS)
def test_scripts_and_tests_use_what_is_declared(folder):
    used = {name for path in (ROOT / folder).rglob("*.py") for name in Imports(path, functions=False).at_once}
    declared = set(REQUIRED) | {"tokenizers"} | OURS  # transformers needs tokenizers
    if folder == "tests":
        declared |= set(EXTRAS["dev"])
    if folder == "docs":
        declared |= set(EXTRAS["docs"])
    if folder == "benchmarks":
        peers = (ROOT / "benchmarks" / "requirements.txt").read_text()
        declared |= set(EXTRAS["benchmarks"]) | {"lucent"}
        declared |= set(re.findall(r"^([a-z]+)[=>]", peers, re.MULTILINE))
    assert used <= declared, used - declared


# One process loads torch. For each room a child of it forgets every package but those that are named.
ALONE = """
import importlib.machinery, importlib.metadata, os, re, sys, traceback

import numpy, torch

def needs(name, found):
    if name not in found:
        found.add(name)
        for line in importlib.metadata.requires(name) or ():
            dependency = re.match(r"[A-Za-z0-9._-]+", line)[0]
            if "extra ==" not in line:
                try:
                    needs(dependency, found)
                except importlib.metadata.PackageNotFoundError:
                    pass
    return found

def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()

class Forgetful(importlib.machinery.PathFinder):
    refused = ()

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] not in cls.refused:
            return super().find_spec(name, path, target)

ROOMS, DECLARED = {rooms!r}, {declared!r}
sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Forgetful
owners = importlib.metadata.packages_distributions()
failed = []
for room, (packages, code) in ROOMS.items():
    child = os.fork()
    if not child:
        try:
            known = {{normal(name) for package in packages for name in needs(package, set())}}
            known -= {{normal(name) for name in DECLARED if name not in packages}}
            Forgetful.refused = {{
                name for name, distributions in owners.items()
                if name != "toumei" and not {{normal(each) for each in distributions}} & known
            }}
            assert not Forgetful.refused & set(sys.modules)
            importlib.import_module("toumei." + room)
            exec(code)
        except BaseException:
            print("toumei." + room, "with", packages, file=sys.stderr)
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    failed += [room] if os.waitpid(child, 0)[1] else []
assert not failed, failed
"""

TORCH = ("torch", "numpy", "tqdm", "typing_extensions")
SMALL = (*TORCH, "safetensors", "matplotlib", "pillow")
ROOMS = {
    "core": (TORCH, "from toumei.core import hooked, run"),
    "models": ((*TORCH, "safetensors"), "from toumei.models import ShapesCNN; ShapesCNN(pretrained=True)"),
    "plots": (SMALL, "from toumei.plots import image_grid; image_grid(torch.rand(2, 3, 8, 8))"),
    "attribution": (
        SMALL,
        "from toumei.attribution import IntegratedGradients\n"
        "images = torch.rand(1, 3, 8, 8)\n"
        "model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 8), torch.nn.Flatten())\n"
        "IntegratedGradients(model)(images, 0).plot(images)",
    ),
    "instrument": (
        (*SMALL, "networkx", "scikit-learn", "scipy"),
        "from toumei.instrument import instrument\n"
        "model = torch.nn.Linear(3, 3)\n"
        "with instrument(model) as probe, probe.track() as tracker:\n"
        "    model(torch.ones(1, 3))\n"
        "tracker.build_graph().networkx()",
    ),
    "cnns": ((*SMALL, "kornia", "torchvision"), "from toumei.cnns import Pipeline, objectives, robustness"),
    "transformers": (
        (*SMALL, "transformers", "networkx"),
        "assert 'transformers' not in sys.modules\n"
        "from toumei.transformers.rome.editing import RankOneEditor",
    ),
    "bench": (
        (*SMALL, "networkx", "scikit-learn", "scipy", "transformers"),
        "from tempfile import TemporaryDirectory\n"
        "from toumei.bench import Bench\n"
        "Bench(TemporaryDirectory().name)",
    ),
    "misc": (
        (*SMALL, "networkx", "scikit-learn", "scipy"),
        "from toumei.misc import CNNGraph, MLPGraph, effective_rank\n"
        "from toumei.misc.modularity import ncut, null_test\n"
        "assert not {'matplotlib', 'sklearn'} & set(sys.modules)",
    ),
}


def test_every_room_is_imported_alone():
    rooms = {path.name for path in (ROOT / "toumei").iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(ROOMS)


def test_a_room_imports_with_few_packages():
    declared = [re.split("[<>=]", line)[0] for line in REQUIRED.values()]
    code = ALONE.format(rooms=ROOMS, declared=declared)
    done = run_fresh(code, folder=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_lowest_versions_that_are_claimed_are_those_that_are_tested():
    pinned = dict(
        re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "constraints-lowest.txt").read_text(), re.MULTILINE)
    )
    claimed = dict(re.split(">=", line) for line in REQUIRED.values())
    assert len(claimed) == len(REQUIRED), "each requirement is NAME>=VERSION"
    for name, version in claimed.items():
        assert re.sub(r"(\.0)+$", "", pinned[name]) == re.sub(r"(\.0)+$", "", version), name
    for line in (EXTRAS["dev"][name] for name in ("pytest", "pytest_xdist")):
        name, version = line.split(">=")
        assert pinned[name].startswith(version)


def test_the_versions_that_the_tests_pass_with_are_pinned():
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    tools = {re.split("[<>=]", line)[0] for line in EXTRAS["dev"].values()} - {"types-tqdm"}
    assert pinned == {line.split(">=")[0] for line in REQUIRED.values()} | tools


def test_the_python_versions_of_the_classifiers_are_those_of_continuous_integration():
    claimed = re.findall(r"Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert claimed == re.findall(r'"(3\.\d+)"', re.search(r"python: \[(.*)\]", workflow)[1])
    assert SETUP["options"]["python_requires"] == f">={claimed[0]}"


def test_the_citation_agrees_with_the_package():
    citation = dict(re.findall(r"^([\w-]+): (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE))
    assert citation["version"] == toumei.__version__
    assert citation["repository-code"] == SETUP["metadata"]["url"]
    assert citation["license"] == SETUP["metadata"]["license"]


def test_a_source_distribution_holds_everything_that_is_kept_in_the_repository():
    kept = {"tests", "experiments", "docs", "benchmarks", "Makefile", "CHANGELOG.md", "constraints.txt"}
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
        kept |= {line.split("/")[0] for line in listed.stdout.splitlines()} - {".gitignore"}
    manifest = re.sub("#.*", "", (ROOT / "MANIFEST.in").read_text()).split()
    assert kept <= set(manifest), kept - set(manifest)


@pytest.fixture
def description(monkeypatch):
    """The README as PyPI shows it."""
    given = {}
    setuptools = SimpleNamespace(setup=lambda **options: given.update(options))
    monkeypatch.setitem(sys.modules, "setuptools", setuptools)
    runpy.run_path(str(ROOT / "setup.py"))
    return given["long_description"]


def test_images_and_links_of_the_description_are_complete_and_lead_to_what_exists(description):
    readme = (ROOT / "README.md").read_text()
    url = SETUP["metadata"]["url"]
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", description)
    assert len(links) == len(re.findall(r"\]\([^)]+\)", readme)) > 5
    for image, link in links:
        if link.startswith("#"):
            continue
        start = f"{url}/{'raw' if image else 'blob'}/main/"
        assert link.startswith(start) and (ROOT / link.removeprefix(start)).exists(), link
    blocks = re.compile(r"```.*?```", re.DOTALL)
    assert blocks.findall(description) == blocks.findall(readme)
