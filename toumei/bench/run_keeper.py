"""One call of an experiment: run, kept in the archive, sent to MLflow."""

from collections.abc import Mapping
from typing import Any

from .archive import Archive
from .experiment import Experiment, Recording
from .mlflow_mirror import Mirror
from .runs import Run, read_run


class RunKeeper:
    """Runs experiments, and keeps each run.

    Args:
        archive: Where runs are kept.
        mirror: The store of MLflow that also gets them, or None.
    """

    def __init__(self, archive: Archive, mirror: Mirror | None) -> None:
        self._archive, self._mirror = archive, mirror

    def run(
        self,
        experiment: Experiment,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        model: Any,
        tools: Mapping[str, Any],
        *,
        seed: int | None = None,
        again: bool = False,
    ) -> tuple[Any, Run | None]:
        """Runs an experiment and returns its result and its run, None if it could not be kept.

        Args:
            experiment: The experiment.
            args: What its function is called with.
            kwargs: What it is called with by name.
            model: The model of the bench.
            tools: All tools of the bench; the function gets those that it uses.
            seed: The seed; by default that of the experiment, or a new one.
            again: The run is repeated to be compared, so an error of the function is not raised.
        """
        recording = Recording(
            experiment,
            self._archive.folder / "runs" / experiment.name,
            args,
            kwargs,
            model=model,
            tools={key: tools[key] for key in experiment.tools},
            seed=seed,
        )
        try:
            result, run = recording.run()
        except Exception:
            run = read_run(recording.folder)
            self._note(run)
            if not again:
                raise
            return None, run
        self._note(run)
        return result, run

    def _note(self, run: Run | None) -> None:
        """Writes a run into the index and sends it to MLflow, or leaves that to `Bench.sync`."""
        if run is not None:
            self._archive.add(run)
            if self._mirror is not None:
                self._mirror.offer(run)
