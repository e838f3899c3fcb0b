"""Writes a page of the API reference for each package of toumei that has public names."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx

import toumei

FOLDER = "reference"
BACKTICKS = re.compile(r"(?<![`:\w])`([^`<]+)`(?![`_])(\w?)")
BARS = re.compile(r"(``[^`]+``)|\|")


def public_packages() -> dict[str, ModuleType]:
    """The packages with ``__all__``, by name; front doors stand before the rooms inside."""
    found = {}
    for info in pkgutil.walk_packages(toumei.__path__, "toumei."):
        if info.ispkg:
            module = importlib.import_module(info.name)
            if getattr(module, "__all__", ()):
                found[info.name] = module
    return dict(sorted(found.items(), key=lambda item: item[0]))


def documented(packages: dict[str, ModuleType]) -> dict[str, str]:
    """From each public name with its package to the name under which it is described: the shortest one."""
    first: dict[int, str] = {}
    names = [f"{package}.{name}" for package, module in packages.items() for name in module.__all__]
    found = {}
    for full in sorted(names, key=lambda full: full.count(".")):
        package, name = full.rsplit(".", 1)
        value = getattr(packages[package], name)
        if inspect.ismodule(value):
            found[full] = f"{value.__name__}"
        elif inspect.isclass(value) or inspect.isroutine(value):
            found[full] = first.setdefault(id(value), full)
        else:
            found[full] = full
    return found


def first_sentence(value: Any) -> str:
    """The first sentence of a docstring on one line; empty for constants, which have none."""
    if not (inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)):
        return ""
    text = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    return without_substitutions(re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", text))


def without_substitutions(text: str) -> str:
    """The text with bars that Sphinx does not take for substitutions; those in code are none."""
    return BARS.sub(lambda match: match[1] or r"\|", text)


def directive(value: Any) -> str:
    """The directive of autodoc that describes a value."""
    if inspect.isclass(value):
        return "autoclass"
    return "autofunction" if inspect.isroutine(value) else "autodata"


def page(package: str, module: ModuleType, names: dict[str, str]) -> Iterator[str]:
    """The lines of the page of a package: a table of its names, then each of those described here."""
    yield from (package, "=" * len(package), "", f".. automodule:: {package}", "   :no-members:", "")
    yield from (".. list-table::", "   :widths: 30 70", "   :class: names", "")
    public = sorted(module.__all__, key=str.lower)
    for name in public:
        value = getattr(module, name)
        target = names[f"{package}.{name}"]
        role = f":doc:`{name} <{target}>`" if inspect.ismodule(value) else f":py:obj:`{name} <{target}>`"
        yield from (f"   * - {role}", f"     - {first_sentence(value)}")
    yield ""
    for name in public:
        value = getattr(module, name)
        if inspect.ismodule(value) or names[f"{package}.{name}"] != f"{package}.{name}":
            continue
        yield f".. {directive(value)}:: {package}.{name}"
        if inspect.isclass(value):
            yield from ("   :members:", "   :special-members: __call__", "   :show-inheritance:")
        yield ""


def contents(pages: Iterable[str]) -> str:
    """A table of contents that only the menu shows; nothing for no pages."""
    lines = [f"   {page}" for page in pages]
    return "\n".join(["", ".. toctree::", "   :hidden:", "", *lines, ""]) if lines else ""


def overview(rooms: Iterable[str], packages: dict[str, ModuleType]) -> Iterator[str]:
    """The lines of the page of all rooms."""
    yield from ("API reference", "=============", "", ".. list-table::", "   :widths: 30 70", "")
    for room in rooms:
        yield from (f"   * - :doc:`{room}`", f"     - {first_sentence(packages[room])}")


def write_pages(app: Sphinx) -> None:
    """Writes the pages, only those that changed, so that a second build is quick."""
    packages = public_packages()
    names = documented(packages)
    app.env.toumei_names = names
    folder = Path(app.srcdir) / FOLDER
    folder.mkdir(exist_ok=True)
    rooms = [package for package in packages if package.count(".") == 1]
    texts = {package: "\n".join(page(package, module, names)) for package, module in packages.items()}
    for room in rooms:
        texts[room] += contents(package for package in packages if package.startswith(room + "."))
    texts["index"] = "\n".join(overview(rooms, packages)) + contents(rooms)
    for package, text in texts.items():
        path = folder / f"{package}.rst"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for path in folder.glob("*.rst"):
        if path.stem not in texts:
            path.unlink()


def definitions(names: dict[str, str]) -> dict[str, str]:
    """From where an object is defined to the name under which it is described."""
    found = {}
    for full, described in names.items():
        package, name = full.rsplit(".", 1)
        value = getattr(importlib.import_module(package), name)
        if inspect.isclass(value) or inspect.isroutine(value):
            found[f"{value.__module__}.{value.__qualname__}"] = described
    return found


def resolve(app: Sphinx, env: Any, node: Any, contnode: Any) -> Any:
    """Leads references to the file that defines an object to its description."""
    if node.get("refdomain") != "py":
        return None
    described = app.toumei_definitions.get(node["reftarget"])
    if described is None:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", described, node, contnode)


def code_in_docstrings(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Turns `single backticks` into code, and into a link where they hold a public name."""

    def replaced(match: re.Match[str]) -> str:
        described = app.toumei_short_names.get(match[1])
        code = f":py:obj:`{match[1]} <{described}>`" if described else f"``{match[1]}``"
        return rf"{code}\ {match[2]}" if match[2] else code

    if what == "data" and inspect.getdoc(value) == inspect.getdoc(type(value)):
        lines.clear()
    for number in prose(lines):
        lines[number] = BACKTICKS.sub(replaced, without_substitutions(lines[number]))


def prose(lines: list[str]) -> Iterator[int]:
    """The numbers of the lines that are neither examples nor blocks of code after ``::``."""
    block: int | None = None
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if block is not None and line.strip() and indent <= block:
            block = None
        if block is None and not line.lstrip().startswith((">>>", "...")):
            yield number
        if block is None and line.rstrip().endswith("::"):
            block = indent


def properties(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Undoes what napoleon does to properties: it takes what stands before a colon for a type."""
    text = inspect.getdoc(value) or ""
    if what == "property" and "\n\n" not in text:
        lines[:] = [*text.splitlines(), ""]
        code_in_docstrings(app, what, name, value, options, lines)


def prepare(app: Sphinx) -> None:
    """Writes the pages and keeps what links need."""
    write_pages(app)
    names = app.env.toumei_names
    del app.env.toumei_names
    app.toumei_packages = set(public_packages())
    app.toumei_definitions = definitions(names)
    described = sorted(set(names.values()), key=len, reverse=True)
    app.toumei_short_names = {full.rsplit(".", 1)[1]: full for full in described}


def links_of_sources(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Leads from the pages of sources to where their names are described.

    Sphinx takes one package for all names of a file, but some are described in a room inside.
    """
    if not page.startswith("_modules/toumei/"):
        return
    packages = sorted(app.toumei_packages, key=len, reverse=True)

    def replaced(match: re.Match[str]) -> str:
        package = next((one for one in packages if match[3].startswith(one + ".")), None)
        name = match[3] if package is None else match[2] + match[3].removeprefix(package)
        return f"{match[1]}{match[2]}.html#{name}"

    context["body"] = re.sub(rf"({FOLDER}/)(toumei[\w.]*)\.html#(toumei[\w.]*)", replaced, context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the steps above to the build."""
    app.connect("builder-inited", prepare, priority=100)
    app.connect("autodoc-process-docstring", code_in_docstrings, priority=400)
    app.connect("autodoc-process-docstring", properties, priority=600)
    app.connect("missing-reference", resolve, priority=100)
    app.connect("html-page-context", links_of_sources)
    return {"parallel_read_safe": True}
