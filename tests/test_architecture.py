"""The floors of the house, read from the syntax trees."""

import ast
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "core": 0,
    "models": 1,
    "plots": 1,
    "instrument": 2,
    "cnns": 3,
    "transformers": 3,
    "attribution": 3,
    "misc": 4,
    "bench": 4,
}
STRIPS = ("strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "endswith")
GROUND_FLOOR = {"torch", "numpy", "tqdm"}


@cache
def nodes(path):
    """All nodes of the syntax tree of a file; the module is the first."""
    return list(ast.walk(ast.parse(path.read_text())))


def import_statements(path):
    """Module and imported names of each import of a file; relative modules are made absolute."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield prefix, [alias.name for alias in node.names]


def imports(path):
    """The dotted names that a file imports."""
    for prefix, names in import_statements(path):
        yield prefix
        yield from (f"{prefix}.{name}" for name in names)


def imported_modules(path, modules):
    """Which of these modules a file imports: of `from package import module` the module alone."""
    for prefix, names in import_statements(path):
        found = {f"{prefix}.{name}" for name in names} & modules
        yield from found
        if len(found) < max(len(names), 1) and prefix in modules:
            yield prefix


def room(name):
    parts = name.split(".")
    return parts[1] if parts[0] == "toumei" and len(parts) > 1 else None


def module(path):
    """The dotted name of a file, and of its folder for an `__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(path for path in (ROOT / "toumei").rglob("*.py") if path != ROOT / "toumei" / "__init__.py")


def test_every_room_has_a_floor():
    assert {room(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in FILES} <= set(FLOORS)


def test_a_floor_imports_only_from_floors_below():
    for path in FILES:
        inner = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for name in imports(path):
            other = room(name)
            if other in FLOORS and other != inner:
                assert FLOORS[other] < FLOORS[inner], f"{path} imports {name}"


def test_the_package_imports_itself_relatively_and_the_ground_floor_little_else():
    for path in FILES:
        plain = (node for node in nodes(path) if isinstance(node, ast.Import))
        names = [alias.name for node in plain for alias in node.names]
        froms = (node for node in nodes(path) if isinstance(node, ast.ImportFrom))
        names += [node.module for node in froms if not node.level]
        tops = {name.split(".")[0] for name in names}
        assert "toumei" not in tops, f"{path}: a copied folder must not look for the original"
        if path.parent.name == "core":
            assert tops <= GROUND_FLOOR | set(sys.stdlib_module_names), (path, tops)


def test_only_the_engine_registers_hooks():
    for path in FILES:
        if path.name not in ("hooks.py", "placed_hooks.py"):
            assert "register_" not in path.read_text().replace("register_buffer", ""), path


def test_progress_bars_come_from_one_place():
    for path in FILES:
        if path != ROOT / "toumei" / "core" / "progress.py":
            assert not any(name.split(".")[0] == "tqdm" for name in imports(path)), path


def test_warnings_come_from_one_place():
    for path in FILES:
        if path != ROOT / "toumei" / "core" / "user_warnings.py":
            text = path.read_text()
            assert "warnings.warn" not in text and "from warnings" not in text, path


def test_tensors_in_files_are_read_in_one_place():
    for path in FILES:
        if path != ROOT / "toumei" / "core" / "checksums.py":
            assert ".get_tensor(" not in path.read_text(), path


def test_only_the_interceptor_sees_functions_and_reads_their_names():
    for path in FILES:
        if path != ROOT / "toumei" / "core" / "functions.py":
            text = path.read_text()
            assert not any(word in text for word in ("TorchFunctionMode", "__torch_function__")), path
            assert "torch.overrides" not in set(imports(path)), path
            for call in (node for node in nodes(path) if isinstance(node, ast.Call)):
                strips = isinstance(call.func, ast.Attribute) and call.func.attr in STRIPS
                underscore = any(
                    isinstance(arg, ast.Constant) and arg.value in ("_", "__") for arg in call.args
                )
                assert not (strips and underscore), f"{path}:{call.lineno} takes a name apart"


def test_what_stands_on_top_uses_the_public_api():
    scripts = [*(ROOT / "experiments").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    assert scripts
    for path in scripts:
        for name in imports(path):
            assert not any(part.startswith("_") for part in name.split(".")), f"{path.name} imports {name}"


FRONT_DOORS = [module(path) for path in FILES if path.name == "__init__.py"]


def test_no_public_function_or_class_has_the_name_of_its_module():
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for path in FILES:
        defined = {node.name for node in nodes(path)[0].body if isinstance(node, kinds)}
        assert module(path).rpartition(".")[2] not in defined, path


@pytest.mark.parametrize("name", FRONT_DOORS)
def test_a_front_door_exports_what_it_says_and_hides_no_module_with_it(name):
    package = import_module(name)
    folder = ROOT.joinpath(*name.split("."))
    modules = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/*.py")
    }
    for exported in getattr(package, "__all__", ()):
        thing = getattr(package, exported)
        if exported in modules:
            assert thing is import_module(f"{name}.{exported}"), f"{name}.{exported} hides a module"


def test_modules_do_not_import_each_other_in_circles():
    modules = {module(path): path for path in FILES}
    edges = [
        (name, other) for name, path in modules.items() for other in imported_modules(path, set(modules))
    ]
    graph = nx.DiGraph((name, other) for name, other in edges if name != other)
    circles = {frozenset(part) for part in nx.strongly_connected_components(graph) if len(part) > 1}
    assert not circles, [sorted(circle) for circle in circles]
