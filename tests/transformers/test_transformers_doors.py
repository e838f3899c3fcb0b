"""The front doors of the language model rooms, and what these rooms import from each other."""

import ast
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
ROOM = ROOT / "toumei" / "transformers"
DOORS = sorted(
    ".".join(path.parent.relative_to(ROOT).parts) for path in ROOM.rglob("__init__.py")
)  # every package of the room
USED = [
    "AverageEffects",
    "CausalTrace",
    "CausalTracer",
    "Edit",
    "EditRequest",
    "Evaluation",
    "KeyStatistics",
    "RankOneEditor",
    "collect_statistics",
    "evaluate_edits",
    "export_lora",
    "revert_all",
]


@pytest.mark.parametrize("door", DOORS)
def test_a_door_gives_what_it_lists_and_no_function_has_the_name_of_a_module(door):
    package = import_module(door)
    modules = {path.stem for path in Path(package.__file__).parent.glob("*.py")}
    for name in package.__all__:
        value = getattr(package, name)
        assert not isinstance(value, ModuleType), f"{door}.{name} is a module"
        assert name not in modules, f"{door}.{name} hides a module"


def test_users_find_the_same_in_both_doors():
    transformers, rome = import_module("toumei.transformers"), import_module("toumei.transformers.rome")
    for name in USED:
        assert getattr(transformers, name) is getattr(rome, name)
    assert set(rome.__all__) < set(transformers.__all__)


def graph():
    """For each module of the room the modules of the room that it imports, also for types only."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOM.rglob("*.py")}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    found = {}
    for name, path in names.items():
        package = path.relative_to(ROOT).parts[:-1]
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = [*package[: len(package) + 1 - node.level], *filter(None, [node.module])]
                wanted = [".".join([*base, alias.name]) for alias in node.names] + [".".join(base)]
                found[name] |= {other for other in wanted if other in names and other != name}
    return found


def test_no_imports_run_in_a_circle():
    left = graph()
    while free := [name for name, others in left.items() if not others & set(left)]:
        for name in free:
            del left[name]
    assert not left, f"circles of imports among {sorted(left)}"


def test_models_and_lenses_do_not_know_rome():
    for name, others in graph().items():
        if name.startswith(("toumei.transformers.model", "toumei.transformers.lenses")):
            assert not [other for other in others if other.startswith("toumei.transformers.rome")], name
