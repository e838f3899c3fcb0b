"""The tests of hypotheses that runs have kept."""

from collections.abc import Iterable

from ..core.errors import ArgumentError
from .hypotheses import HypothesisTest
from .loaded_values import saved_results
from .runs import Run


def tests_of(runs: Iterable[Run], family: str) -> dict[str, HypothesisTest]:
    """Returns the tests of a family in the last finished run of each version, by where they were made.

    Raises:
        ArgumentError: No run has a test of this family.
    """
    last = {run.version: run for run in runs if run.status == "finished"}
    known = {}
    for run in last.values():
        arguments = ", ".join(f"{key}={text}" for key, text in run.record["shown"]["arguments"].items())
        for place, test in saved_results(run.folder, run.record["result"], HypothesisTest):
            known[f"{run.experiment}({arguments}) {place}".removesuffix(" result.hypothesis_test")] = test
    found = {label: test for label, test in known.items() if test.family == family}
    if not found:
        families = sorted({test.family for test in known.values() if test.family})
        raise ArgumentError(f"no run has a test of the family {family!r}; there are {families}")
    return found
