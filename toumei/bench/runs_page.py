"""A page to browse the runs of a bench, and to compare two of them."""

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..core.errors import ArgumentError
from ..core.files import atomic_write
from ..core.notebooks import png
from ..core.progress import tqdm
from ..plots.html import page, save_page
from .hashes import named_class
from .loaded_values import loaded, saved_parts
from .runs import Run

_FOLDER = Path(__file__).parent
_BODY = """
<!--heading-->
<div id="controls">
  <input id="filter" type="search" placeholder="filter: words of names, arguments, results" size="44">
  <select id="experiment"></select> <select id="status"></select> <span id="count"></span>
</div>
<div id="list"><table id="runs"></table></div>
<div id="details"></div>
"""


def write_page(runs: Iterable[Run], path: str | Path, title: str, verbose: bool = True) -> Path:
    """Writes a page that needs no other file, with the figures of all runs in it.

    Results of the library that can be drawn are drawn for it, and the pictures are kept with the run.

    Args:
        runs: The runs.
        path: The file.
        title: What to write on top.
        verbose: Show a progress bar.

    Returns:
        The path.
    """
    runs = list(runs)
    sources: dict[str, str] = {}
    shown = []
    for run in tqdm(runs, desc="page", disable=not verbose):
        sources.setdefault(run.version, _source_of(run))
        shown.append(_shown(run))
    text = page(
        title,
        _BODY,
        summary="Select a run (A) to see it, and another one (B) to compare both.",
        style=(_FOLDER / "runs_page.css").read_text(encoding="utf-8"),
        script=(_FOLDER / "runs_page.js").read_text(encoding="utf-8"),
        data={"runs": shown, "sources": sources},
    )
    save_page(text, path)
    return Path(path)


def _shown(run: Run) -> dict[str, Any]:
    record = run.record
    environment, git = record.get("environment", {}), record.get("git") or {}
    memory = record.get("peak_memory", {})
    model = record["model"]
    facts = {
        "seed": run.seed,
        "model": f"{model.get('class', '').rpartition(':')[2]} {model.get('weights', '')[:12]}",
        "tools": ", ".join(record["tools"]),
        "device": environment.get("device"),
        "python": environment.get("python"),
        "torch": environment.get("packages", {}).get("torch"),
        "git": f"{(git.get('commit') or '')[:12]} {git.get('branch') or ''}",
        "changed files": ", ".join(git.get("changed", [])),
        "peak memory": ", ".join(f"{kind} {size / 2**20:,.0f} MB" for kind, size in memory.items()),
    }
    return {
        "id": run.id,
        "experiment": run.experiment,
        "version": run.version,
        "status": run.status,
        "started": run.started,
        "seconds": run.seconds,
        **record["shown"],
        "facts": {name: str(value) for name, value in facts.items() if value not in (None, "", " ")},
        "unkept": record.get("unkept", {}),
        "error": (run.error or {}).get("traceback", ""),
        "printed": "\n".join(_printed(record["result"], "result")) if "result" in record else "",
        "figures": dict(_figures(run)),
    }


def _source_of(run: Run) -> str:
    return "\n\n".join([run.source.rstrip(), *(text.rstrip() for text in run.record["helpers"].values())])


def _printed(tree: Any, place: str, depth: int = 0) -> Iterator[str]:
    """Lines that show a stored value."""
    if isinstance(tree, dict) and "text" in tree and ("$saved" in tree or "$page" in tree):
        yield f"{place}:"
        yield from (f"    {line}" for line in tree["text"].splitlines()[:80])
    elif isinstance(tree, dict) and ("$tensor" in tree or "$array" in tree):
        yield f"{place}: {tree['dtype'].removeprefix('torch.')} {tree['shape']}"
    elif isinstance(tree, dict) and "$fields" in tree:
        yield from _printed(tree["$fields"], place, depth)
    elif isinstance(tree, dict) and ("$scalar" in tree or "$mapping" in tree):
        yield from _printed(tree["parts"], place, depth)
    elif isinstance(tree, dict) and "parts" in tree and next(iter(tree)).startswith("$"):
        parts = json.dumps(tree["parts"])
        yield f"{place}: {next(iter(tree.values()))} {parts if len(parts) <= 400 else parts[:400] + ' ...'}"
    elif isinstance(tree, dict) and not next(iter(tree), "").startswith("$") and depth < 4:
        for name, part in tree.items():
            yield from _printed(part, f"{place}.{name}", depth + 1)
    else:
        shown = next(iter(tree.values()), "") if isinstance(tree, dict) else tree
        text = shown if isinstance(shown, str) else json.dumps(shown)
        yield f"{place}: {text if len(text) <= 400 else text[:400] + ' ...'}"


def _figures(run: Run) -> Iterator[tuple[str, str]]:
    """The figures of a run as addresses that hold them, by place."""
    for path, place in {path: place for place, path in reversed(run.figures.items())}.items():
        if path.exists():
            yield place, _uri(path.read_bytes())
    for place, tree in saved_parts(run.record.get("result"), "result"):
        content = _drawn(run, tree)
        if content:
            yield place, _uri(content)


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _drawn(run: Run, tree: dict[str, Any]) -> bytes | None:
    """The picture of a saved result, drawn once and kept; None if it cannot be drawn without more."""
    kept = (run.folder / tree["$saved"]).with_suffix(".png")
    if kept.exists():
        result: bytes = kept.read_bytes()
        return result
    kind = named_class(tree["class"])
    if not callable(getattr(kind, "plot", None)):
        return None
    from matplotlib import pyplot

    try:
        axes = loaded(run.folder, tree).plot()
        figure = getattr(axes, "flat", [axes])[0].figure
        content = png(figure, dpi=80, tight=True)
        pyplot.close(figure)
    except (ArgumentError, TypeError, ValueError, AttributeError, RuntimeError, LookupError):
        return None  # it needs its inputs, or its file is damaged
    try:
        with atomic_write(kept) as partial:
            partial.write_bytes(content)
    except OSError:  # the folder is only read
        pass
    return content
