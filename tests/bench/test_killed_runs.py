"""Runs of processes that are killed at random times: nothing that returned is lost."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import bench as measurement

from toumei.bench import Bench

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


def test_nothing_is_lost_when_four_writers_are_killed_over_and_over(tmp_path):
    found = {name.split(",")[0]: value for name, value in measurement.kills(tmp_path, 4).items()}
    assert found.pop("runs that returned") > 0
    assert found.pop("runs that were killed") <= 8
    assert not any(found.values()), found


def test_a_run_that_is_killed_is_there_as_far_as_it_came(tmp_path):
    bench = Bench(tmp_path)

    @bench.log_experiment
    def waiting(seconds):
        time.sleep(seconds)

    process = os.fork()
    if not process:
        try:
            waiting(60)
        finally:
            os._exit(1)
    while "waiting" not in bench.list_experiments() or not bench.runs("waiting"):
        time.sleep(0.01)
    assert bench.runs("waiting")[0].status == "running"
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    (run,) = bench.runs("waiting")
    assert run.status == "killed" and run.arguments() == {"seconds": 60} and "time.sleep" in run.source
    assert bench.table("waiting")["status"] == ["killed"]


def test_an_index_is_the_same_as_one_that_is_made_again(tmp_path):
    bench = Bench(tmp_path)

    @bench.log_experiment
    def half(number):
        return number / 2

    for number in range(5):
        half(number)
    before = bench.table("half")
    (tmp_path / "index-1.sqlite").unlink()
    assert bench.table("half") == before
    gone = bench.runs("half")[2].folder
    for path in gone.iterdir():
        path.unlink()
    gone.rmdir()
    assert bench.table("half")["number"] == ["0", "1", "3", "4"]
