"""The bench: a folder in which every run of every experiment is kept."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, overload

from ..core.checks import check_choice, check_counts, checked
from ..core.errors import ArgumentError
from ..core.kinds import shown
from ..core.progress import tqdm
from ..core.summaries import counted
from .archive import Archive
from .comparison import Rerun, VersionDifference, compare_results, compare_versions
from .decorators import with_figures, with_hypothesis_test, with_profile, with_tools
from .experiment import Experiment
from .families import HypothesisFamily, family_of
from .hashes import plain_model
from .hypotheses import METHODS, SIDES
from .kept_tests import tests_of
from .mlflow_mirror import Mirror
from .panels import panels_of
from .plot_specs import PlotSpec, title_of
from .plotting_libraries import MatplotlibWrapper, PlottingLibrary, plotting_library
from .profiling import GRANULARITIES
from .run_keeper import RunKeeper
from .run_table import RunTable, table_of
from .runs import Run, described
from .runs_page import write_page
from .tools import Tools

Function = TypeVar("Function", bound=Callable[..., Any])


class Bench:
    """Keeps every run of every experiment: source, arguments, results, figures, seed and environment.

    A version is a hash of the source (with what it calls in the user's modules), the arguments, the weights
    of the model and the tools; the same experiment again is another run of the same version. Each run has a
    folder, ``runs/EXPERIMENT/RUN``; several processes may write into one bench, and a run that is killed
    stays there as far as it came.

    Args:
        folder: Where everything is kept; it is made where it is missing.
        model: The model that experiments and tools work on: a `HookedModel` or a module.
        mlflow: The address of an MLflow server or database that also gets each run, such as
            ``"http://host:5000"`` or ``"sqlite:///runs.db"``. It needs the extra ``toumei[bench]``.

    Raises:
        ArgumentError: The folder is of a newer version of toumei, or it is none.
        OSError: The folder cannot be made.
        MissingDependencyError: mlflow is not installed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers import HookedModel
        >>> folder = TemporaryDirectory()
        >>> bench = Bench(folder.name, HookedModel(InductionTransformer(vocabulary=8, positions=16)))
        >>> @bench.log_experiment
        ... @bench.use_tools("write_read")
        ... def writers(layer, write_read=None):
        ...     return write_read.identify_write_heads(layer)
        >>> writers(0)
        [0]
        >>> versions = bench.list_versions("writers")
        >>> bench.rerun(versions[0])
        Rerun(equal bit for bit)
        >>> folder.cleanup()
    """

    @checked
    def __init__(self, folder: str | Path, model: Any = None, *, mlflow: str | None = None) -> None:
        if model is not None and plain_model(model) is None:
            raise ArgumentError(f"model is a HookedModel or a module, got {shown(model)}")
        self.folder, self.model = Path(folder), model
        self._root = self.folder.absolute()  # experiments may change the directory
        self.tools = Tools(model)
        self._plotting: PlottingLibrary = MatplotlibWrapper()
        self._experiments: dict[str, Experiment] = {}
        self._archive = Archive(self._root)
        self._mirror = None if mlflow is None else Mirror(mlflow, self._root)
        self._keeper = RunKeeper(self._archive, self._mirror)

    def __repr__(self) -> str:
        model = "" if self.model is None else f", {type(plain_model(self.model)).__name__}"
        return f"Bench({str(self.folder)!r}{model}, {counted(len(self.list_experiments()), 'experiment')})"

    @overload
    def log_experiment(self, function: Function) -> Function: ...
    @overload
    def log_experiment(
        self, function: None = None, *, seed: int | None = None
    ) -> Callable[[Function], Function]: ...
    @checked
    def log_experiment(self, function: Any = None, *, seed: int | None = None) -> Any:
        """Makes every run of a function be kept; as a decorator, ``@bench.log_experiment``.

        The function returns what it returns, and raises what it raises; both are kept. Figures of matplotlib
        that it returns or leaves open are kept as PNG. Random numbers that it draws come from a seed that is
        kept, another one in each run; ``torch.manual_seed`` before fixes the seeds of all runs of a script.

        Args:
            function: The function.
            seed: A seed for all its runs.

        Raises:
            ArgumentError: Python does not have its source, or it is a lambda, a generator or a coroutine.
        """
        if function is None:
            return lambda function: self.log_experiment(function, seed=seed)
        if not callable(function):
            raise ArgumentError(f"an experiment is a function, got {shown(function)}")
        experiment = Experiment(function, seed, self._left_out)
        self._experiments[experiment.name] = experiment
        self._archive.expected.add(experiment.name)

        @wraps(function)
        def logged(*args: Any, **kwargs: Any) -> Any:
            return self._keeper.run(experiment, args, kwargs, self.model, self.tools)[0]

        return logged

    @checked
    def use_tools(self, *keys: str) -> Callable[[Function], Function]:
        """Gives a function tools, each as the argument with its key; as a decorator.

        Args:
            *keys: Keys of `tools`.

        Raises:
            ArgumentError: There is no such tool, or the function has no such argument.
        """
        for key in keys:
            self.tools.check(key)
        return lambda function: with_tools(function, self.tools, keys)

    @checked
    def set_plotting_lib(self, library: Any) -> None:
        """Chooses what draws the plots of `plot_results`.

        Args:
            library: ``"matplotlib"``, which is the default, ``"plotly"``, or something with
                ``draw(panels, title)``.

        Raises:
            ArgumentError: It is none of these.
        """
        self._plotting = plotting_library(library)

    @checked
    def plot_results(self, *specs: PlotSpec, input_ids: Any) -> Callable[[Function], Function]:
        """Gives a function plots of the model as its argument ``fig``; as a decorator.

        Args:
            *specs: What to plot; with several, ``fig`` is a list.
            input_ids: Texts or tokens on which the model is looked at.

        Raises:
            ArgumentError: There is nothing to plot, or the function has no argument ``fig``.
        """
        if not specs or not all(isinstance(spec, PlotSpec) for spec in specs):
            raise ArgumentError(f"plots are PlotSpec('attention', data_keys=0) and such, got {shown(specs)}")

        def draw() -> list[Any]:
            panels = [panels_of(self.tools.hooked, input_ids, spec) for spec in specs]
            return [self._plotting.draw(*pair) for pair in zip(panels, map(title_of, specs), strict=True)]

        return lambda function: with_figures(function, draw, {"specs": specs, "input_ids": input_ids})

    @checked
    def profile_model(self, granularity: str = "module") -> Callable[[Function], Function]:
        """Adds a profile of the model to the result of a function; as a decorator.

        The result becomes a dictionary with ``"profiling"``, a `Profile`. The function runs twice: see
        `profile_call`.

        Args:
            granularity: ``"module"`` or ``"operation"``.

        Raises:
            ArgumentError: There is no such granularity, or the bench has no model.
        """
        check_choice("granularity", granularity, GRANULARITIES)
        model = plain_model(self.model)
        if model is None:
            raise ArgumentError("a model is profiled: give the bench one, Bench(folder, model=hooked)")
        return lambda function: with_profile(function, model, granularity)

    @checked
    def test_hypothesis(
        self,
        null_func: Callable[..., Any],
        alt_func: Callable[..., Any],
        n_samples: int = 100,
        alpha: float = 0.05,
        *,
        method: str = "welch",
        alternative: str = "two-sided",
        family: str = "",
        seed: int = 0,
    ) -> Callable[[Function], Function]:
        """Adds a test of two groups of samples to the result of a function; as a decorator.

        The result becomes a dictionary with ``"hypothesis_test"``, a `HypothesisTest`. Both functions are
        called with the arguments of the decorated one; with ``"paired"`` both draw the same random numbers
        for each pair.

        Args:
            null_func: Returns a sample under the null hypothesis.
            alt_func: Returns a sample of the other group.
            n_samples: How many samples of each.
            alpha: The null hypothesis is rejected up to this p-value.
            method: ``"welch"``, ``"paired"``, ``"permutation"`` or ``"bootstrap"``; see `compare_samples`.
            alternative: ``"two-sided"``, ``"greater"`` (the other group is) or ``"less"``.
            family: The family of tests that it belongs to; see `family`.
            seed: Of the pairs, permutations or bootstrap samples.

        Raises:
            ArgumentError: A setting that makes no sense.
        """
        check_counts(2, n_samples=n_samples)
        check_choice("method", method, METHODS)
        check_choice("alternative", alternative, SIDES)
        test = {"alpha": alpha, "method": method, "alternative": alternative, "family": family, "seed": seed}
        groups = null_func, alt_func
        return lambda function: with_hypothesis_test(function, groups, n_samples, **test)

    @checked
    def family(self, name: str) -> HypothesisFamily:
        """Returns the tests of a family, those of the last run of each version, adjusted for their number.

        Raises:
            ArgumentError: No run has a test of this family.
        """
        return family_of(tests_of(self.runs(), name))

    def list_experiments(self) -> list[str]:
        """Returns the names of all experiments that have run."""
        return self._archive.experiments()

    @checked
    def runs(self, experiment: str | None = None, version: str | None = None) -> list[Run]:
        """Returns the runs of all experiments, of one, or of one version of it, the oldest one first.

        Raises:
            ArgumentError: There is no such experiment or version.
        """
        return self._archive.runs(experiment, version)

    @checked
    def list_versions(self, experiment: str) -> list[str]:
        """Returns the versions of an experiment, the oldest one first.

        Raises:
            ArgumentError: There is no such experiment.
        """
        return list(dict.fromkeys(row.version for row in self._archive.rows(experiment)))

    @checked
    def get_version(self, experiment: str, version: str) -> dict[str, Any]:
        """Returns everything about a version, from its last run.

        Args:
            experiment: The name of the experiment.
            version: The version, or its first digits.

        Returns:
            ``"source"``, ``"helpers"`` (sources of what it calls, by name), ``"arguments"``, ``"result"``
            (None if no run finished), ``"model"``, ``"tools"``, ``"environment"``, ``"timestamp"``,
            ``"version"`` and ``"runs"``.

        Raises:
            ArgumentError: There is no such experiment or version.
        """
        return described(self.runs(experiment, version))

    @checked
    def diff(self, first: str, second: str) -> VersionDifference:
        """Returns in what two versions differ: in source, arguments, values, model or tools.

        Args:
            first: A version, or its first digits.
            second: Another one, also of another experiment.

        Raises:
            ArgumentError: There is no such version.
        """
        return compare_versions(self._archive.last(first), self._archive.last(second))

    @checked
    def rerun(self, version: str, *, tolerance: float = 1e-6) -> Rerun:
        """Runs a version again, as it ran last: with its arguments and its seed.

        The function is the one that has the name of the experiment now, and so are model and tools; the
        result says which of them are not those of the version any more.

        Args:
            version: The version, or its first digits.
            tolerance: How far numbers may be apart, relative to the largest one of their tensor.

        Raises:
            ArgumentError: There is no such version or tolerance, its function is not known to this bench,
                or its arguments were not kept.
        """
        if not 0 <= tolerance < float("inf"):
            raise ArgumentError(f"tolerance is from 0 on, got {tolerance}")
        before = self._archive.last(version)
        experiment = self._experiments.get(before.experiment)
        if experiment is None:
            raise ArgumentError(
                f"this bench has no function {before.experiment} yet: run the code that decorates it first"
            )
        given = before.arguments_to_run()
        given |= {key: self.tools[key] for key in before.record["tools"] if key not in experiment.tools}
        args, kwargs = experiment.call_of(given)
        _, after = self._keeper.run(
            experiment, args, kwargs, self.model, self.tools, seed=before.seed, again=True
        )
        if after is None:
            raise ArgumentError(f"the run could not be kept in {self.folder}, so there is nothing to compare")
        return compare_results(before, after, tolerance)

    @checked
    def table(self, experiment: str) -> RunTable:
        """Returns a table of the runs of an experiment: arguments, and the numbers of the results.

        Raises:
            ArgumentError: There is no such experiment.
        """
        return table_of(experiment, self._archive.rows(experiment))

    @checked
    def sync(self, *, verbose: bool = True) -> int:
        """Sends all runs to MLflow that have not been sent yet, and returns how many.

        Args:
            verbose: Show a progress bar.

        Raises:
            ArgumentError: The bench has no MLflow.
            ServerError: The store cannot be reached; what was sent before is not sent again.
        """
        if self._mirror is None:
            raise ArgumentError("this bench has no MLflow: Bench(folder, mlflow='http://host:5000')")
        runs = tqdm(self.runs(), desc="to MLflow", disable=not verbose)
        return sum([self._mirror.send(run) for run in runs])

    @checked
    def page(
        self, path: str | Path | None = None, experiment: str | None = None, *, verbose: bool = True
    ) -> Path:
        """Writes a page to browse the runs and to compare two of them, with figures and sources.

        Args:
            path: The file, by default ``runs.html`` in the folder of the bench.
            experiment: The experiment; by default all of them.
            verbose: Show a progress bar.

        Returns:
            The file, which needs no other one.

        Raises:
            ArgumentError: There is no such experiment.
        """
        path = path or self._root / "runs.html"
        return write_page(self.runs(experiment), path, f"Runs in {self.folder.name}", verbose)

    def _left_out(self, value: Any) -> bool:
        """Whether a variable counts as part of the bench, whose model and tools are looked at anyway."""
        plain = plain_model(value)
        return isinstance(value, Bench) or (plain is not None and plain is plain_model(self.model))
