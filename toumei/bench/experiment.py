"""Experiments: functions whose every run is kept."""

import hashlib
import inspect
import math
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import count, islice
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ArgumentError
from ..core.kinds import shown
from ..core.reached_code import Held
from ..core.seeding import seeded
from ..core.user_warnings import warn
from ..transformers.tools.base import HookedTool
from .hashes import model_parts, model_settings, settings_hash
from .plotting_libraries import DRAWN_HERE
from .runs import FORMAT, Run, new_id, read_run, this_process, write_record
from .sources import Code, code_of
from .stored_values import Stored
from .surroundings import GitState, PeakMemory, environment
from .tools import Tool
from .versions import Ingredients, argument_parts, tool_parts

_LONGEST, _DEEPEST = 24, 8  # numbers of a result that are shown in tables, and levels of what they are in


@dataclass
class _Inside:
    """The run that this thread is in, and how many runs began inside it."""

    seed: int
    runs: Iterator[int] = field(default_factory=count)


_current: ContextVar[_Inside | None] = ContextVar("run", default=None)
_runs = count()


class Experiment:
    """A function whose runs are kept.

    Args:
        function: The function, perhaps with tools.
        seed: What random numbers come from; by default each run has another seed.
        left_out: Says of a variable that the function reads whether it does not count for the version.

    Raises:
        ArgumentError: It has no name or no source, or is a generator or a coroutine.
    """

    def __init__(
        self, function: Callable[..., Any], seed: int | None, left_out: Callable[[Any], bool]
    ) -> None:
        self.function, self.seed, self._left_out = function, seed, left_out
        inner = inspect.unwrap(function)
        self.name = getattr(inner, "__name__", "")
        if isinstance(inner, type) or not self.name.isidentifier():
            raise ArgumentError(
                f"an experiment is a function with a name, made by def, got {shown(function)}"
            )
        kinds = inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction
        if any(is_kind(inner) for is_kind in kinds):
            raise ArgumentError(
                f"{self.name} is a generator or a coroutine: an experiment returns its result"
            )
        self.tools: tuple[str, ...] = getattr(function, "tools", ())
        self._settings: dict[str, Any] = {**getattr(function, "settings", {})}
        if isinstance(inner, MethodType):
            self._settings["self"] = inner.__self__
        self._changing: set[str] = set()
        self._changing_settings: set[str] = set()
        self.code()

    def code(self, parts: Sequence[Held] = ()) -> Code:
        """Returns its source and what it depends on now, without variables that it changes itself.

        Args:
            parts: Functions and classes that it gets with its arguments.
        """
        code = code_of(self.function, self._left_out, settings=self._settings, parts=parts)
        values = {name: digest for name, digest in code.values.items() if name not in self._changing}
        return Code(code.source, code.helpers, values)

    def arguments(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the arguments of a call by name, with defaults, and the tools among them.

        Raises:
            TypeError: The function cannot be called with them.
        """
        try:
            bound = inspect.signature(inspect.unwrap(self.function)).bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None
        bound.apply_defaults()
        given = {name: value for name, value in bound.arguments.items() if name not in self.tools}
        tools = {name: value for name, value in given.items() if isinstance(value, Tool | HookedTool)}
        return {name: value for name, value in given.items() if name not in tools}, tools

    def call_of(self, given: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns how the function is called with arguments by name."""
        signature = inspect.signature(inspect.unwrap(self.function))
        known = {name: value for name, value in given.items() if name in signature.parameters}
        bound = inspect.BoundArguments(signature, known)
        return bound.args, bound.kwargs

    def settings(self, before: Mapping[str, str], after: Mapping[str, str] | None = None) -> dict[str, str]:
        """Returns the settings of a model before a run, without those that a run changed itself.

        Args:
            before: All settings before it.
            after: All settings after it; what differs never counts again.
        """
        if after is not None:
            names = before.keys() | after.keys()
            self._changing_settings |= {name for name in names if before.get(name) != after.get(name)}
        return {name: text for name, text in before.items() if name not in self._changing_settings}

    def code_after(self, before: Code, parts: Sequence[Held], loaded: Collection[str]) -> Code:
        """Returns the code of a run that ended, without variables that it changed; they never count again.

        Args:
            before: The code when it began.
            parts: Functions and classes that it got with its arguments.
            loaded: The modules that were loaded when it began. What a module holds that it imported counts.
        """
        after = self.code(parts)
        imported = tuple(f"{name}." for name in set(sys.modules).difference(loaded))
        self._changing |= {
            name
            for name in {**before.values, **after.values}
            if before.values.get(name, after.values.get(name) if name.startswith(imported) else None)
            != after.values.get(name)
        }
        kept = {name: digest for name, digest in after.values.items() if name not in self._changing}
        return Code(before.source, {**before.helpers, **after.helpers}, kept)


class Recording:
    """One run of an experiment, from its first file to its last.

    Args:
        experiment: The experiment.
        folder: The folder of all runs of this experiment.
        args: What the function is called with.
        kwargs: What it is called with by name.
        model: The model of the bench.
        tools: The tools that the function gets.
        seed: The seed; by default that of the experiment, or a new one.

    Raises:
        OSError: The folder cannot be written.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        model: Any = None,
        tools: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> None:
        self.experiment = experiment
        self.folder = folder / new_id()
        self._call = args, kwargs
        seed = experiment.seed if seed is None else seed
        self.seed = _new_seed() if seed is None else seed
        given, others = experiment.arguments(args, kwargs)
        others.update(tools or {})
        self._model, (self._settings, code) = model, model_settings(model)
        hashes, self._parts = {}, code + [type(tool) for tool in others.values()]
        for name, value in given.items():
            hashes[name], parts = argument_parts(value)
            self._parts += parts
        self._code, self._loaded = experiment.code(self._parts), set(sys.modules)
        self.ingredients = Ingredients(
            self._code,
            hashes,
            model_parts(model, experiment.settings(self._settings)),
            {key: tool_parts(tool) for key, tool in others.items()},
        )
        self._stored = Stored(self.folder)
        try:
            self._record = self._start(given)
        except OSError:
            shutil.rmtree(self.folder, ignore_errors=True)  # nothing ran, so nothing is left
            raise

    def run(self) -> tuple[Any, Run | None]:
        """Calls the function and returns its result and the run, None if it could not be kept.

        What the function raises is kept and raised again.
        """
        git = GitState(inspect.unwrap(self.experiment.function).__code__.co_filename)
        memory, figures = PeakMemory(), _open_figures({})
        inside = _current.set(_Inside(self.seed))
        started = time.perf_counter()
        try:
            with seeded(self.seed):
                result = self.experiment.function(*self._call[0], **self._call[1])
        except BaseException as error:
            ended = {"seconds": time.perf_counter() - started, **_failure(error)}
            ended |= {"git": git.found(), "peak_memory": memory.found()}
            before = getattr(error, "result_before", None)  # the function ended, a test after it did not
            self._end(ended, *([] if before is None else [before, {}]))
            _close(_open_figures(figures))
            raise
        finally:
            _current.reset(inside)
        ended = {"seconds": time.perf_counter() - started, "status": "finished"}
        ended |= {"git": git.found(), "peak_memory": memory.found()}
        drawn = _open_figures(figures)
        run = self._end(ended, result, drawn)
        _close(drawn)
        return result, run

    def _start(self, given: dict[str, Any]) -> dict[str, Any]:
        """Writes what is known before the function runs."""
        self.folder.mkdir(parents=True)
        record = {
            "format": FORMAT,
            "experiment": self.experiment.name,
            "version": self.ingredients.version,
            "status": "running",
            "started": time.time(),
            "seconds": None,
            "seed": self.seed,
            "source": self._code.source,
            "helpers": self._code.helpers,
            "values": self._code.values,
            "arguments": self._stored.tree(given, "arguments"),
            "argument_hashes": self.ingredients.arguments,
            "model": self.ingredients.model,
            "tools": self.ingredients.tools,
            "environment": environment(),
            "process": this_process(),
            "shown": {"arguments": {name: shown(value) for name, value in given.items()}, "results": {}},
            "unkept": self._stored.unkept,
        }
        self._stored.write_tensors("arguments")
        write_record(self.folder, record)
        return record

    def _end(self, ended: dict[str, Any], *result: Any) -> Run | None:
        """Writes how the run ended; a disk that is full does not cost the user the result.

        Where only the result does not fit, the run is kept without it.
        """
        lost: OSError | None = None
        run = None
        try:
            record = {**self._record, **ended}
            if result:
                record["shown"] = {**record["shown"], "results": numbers_of(result[0])}
                try:
                    record["result"] = self._result(*result)
                except OSError as error:
                    lost = error
                    record["result"] = self._stored.without(result[0], "result", str(error))
            record["figures"] = self._stored.figures
            code = self.experiment.code_after(self._code, self._parts, self._loaded)
            self.ingredients = replace(self.ingredients, code=code, model=self._model_after())
            record |= {"values": code.values, "model": self.ingredients.model}
            record["version"] = self.ingredients.version
            write_record(self.folder, record)
            run = read_run(self.folder)
        except OSError as error:
            lost = lost or error
        if lost is not None:
            what = "the result" if result else "the end"
            message = f"{what} of {self.experiment.name} could not be kept in {self.folder}: {lost}"
            warn(message)
        return run

    def _model_after(self) -> dict[str, Any]:
        """What told the model from others before the run, without settings that the run changed."""
        if not self._settings:
            return self.ingredients.model
        counted = self.experiment.settings(self._settings, model_settings(self._model)[0])
        return {**self.ingredients.model, "settings": settings_hash(counted)}

    def _result(self, result: Any, figures: Mapping[int, Any]) -> Any:
        """Writes the files of a result and returns what the record says of it."""
        tree = self._stored.tree(result, "result")
        for number, (figure, _) in figures.items():
            self._stored.tree(figure, f"figure {number}")
        self._stored.write_tensors("result")
        return tree


def numbers_of(result: Any, place: str = "result") -> dict[str, Any]:
    """Returns the numbers of a result, and its short texts, by their place; at most 24.

    Example:
        >>> numbers_of({"loss": 0.5, "best": [3, 4]})
        {'loss': 0.5, 'best[0]': 3, 'best[1]': 4}
    """
    try:
        return dict(islice(_numbers(result, place), _LONGEST))
    except Exception:  # of a class of the user
        return {}


def _numbers(value: Any, place: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if depth > _DEEPEST or (isinstance(value, Tensor) and value.is_nested):
        return
    if isinstance(value, np.generic | np.ndarray | Tensor):
        single = math.prod(value.shape) == 1 and getattr(value, "device", None) != torch.device("meta")
        value = value.item() if single else None
    if isinstance(value, bool | int) or (isinstance(value, str) and len(value) <= 60):
        yield place, value
    elif isinstance(value, float):
        yield place, value if math.isfinite(value) else str(value)
    elif isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        for index, item in enumerate(value[:_LONGEST]):
            if not isinstance(item, str):  # such as the names of layers
                yield from _numbers(item, f"{place}[{index}]", depth + 1)
    else:
        parts = _parts_of(value)
        inside = "" if place == "result" else f"{place}."
        for name, part in islice(parts.items(), _LONGEST):
            yield from _numbers(part, f"{inside}{name}", depth + 1)


def _parts_of(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return value
    if isinstance(value, tuple):
        return dict(zip(getattr(value, "_fields", ()), value, strict=False))
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    return {}


def _failure(error: BaseException) -> dict[str, Any]:
    """What is kept of an exception."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    what = {"type": type(error).__name__, "message": str(error), "traceback": "".join(lines)}
    return {"status": "failed" if isinstance(error, Exception) else "interrupted", "error": what}


def _open_figures(before: Mapping[int, Any]) -> dict[int, Any]:
    """The figures of pyplot that are open now, without those that were before and have nothing new on them.

    Each comes with how many things are on it.
    """
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return {}
    numbers = pyplot.get_fignums()
    current = pyplot.gcf().number if numbers else None
    figures = {number: pyplot.figure(number) for number in numbers}
    if current is not None:
        pyplot.figure(current)
    counted = {number: (one, _things_on(one)) for number, one in figures.items()}
    return {number: found for number, found in counted.items() if before.get(number) != found}


def _close(figures: Mapping[int, Any]) -> None:
    """Closes the figures that were drawn for a run; else each run would leave some open."""
    for number, (figure, _) in figures.items():
        if figure in DRAWN_HERE:
            sys.modules["matplotlib.pyplot"].close(number)


def _things_on(figure: Any) -> int:
    return len(figure.get_children()) + sum(len(axes.get_children()) for axes in figure.axes)


def _new_seed() -> int:
    """A seed for a run, which does not disturb what draws random numbers.

    It follows from the state of torch's generator, so that ``torch.manual_seed`` at the beginning of a script
    fixes the seeds of all its runs; inside a run it follows from that run's.
    """
    outer = _current.get()
    if outer is None:
        state = torch.get_rng_state().numpy().tobytes() + str(next(_runs)).encode()
    else:
        state = f"{outer.seed} {next(outer.runs)}".encode()
    return int.from_bytes(hashlib.sha256(state).digest()[:4], "big")
