"""Sweeps: failures, interruptions, and what cannot be sent, in this process and in others."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import closing
from functools import partial

import joblib
import numpy as np
import pytest
import torch

from toumei.core import FailedItem, other_processes, sweep
from toumei.core.errors import ArgumentError, SweepError
from toumei.core.failed_items import attempt
from toumei.core.parallel import streamed

quiet = partial(sweep, verbose=False)
MANY = pytest.mark.parametrize("jobs", [1, 2])


def root(item):
    if item < 0:
        raise ValueError(f"no root of {item}")
    return item**0.5


@MANY
def test_failed_items_are_collected_while_the_others_go_on(jobs):
    first, failed, last, other = quiet(root, [4, -1, 9, -2], jobs=jobs, errors="collect")
    assert (first, last) == (2, 3) and (failed.index, other.index) == (1, 3)
    assert isinstance(failed, FailedItem) and failed.item == "-1"
    assert type(failed.error) is ValueError and str(failed.error) == "no root of -1"
    assert "in root" in failed.traceback and "no root of -1" in failed.traceback
    assert failed.error.__traceback__ is None  # which would keep the variables of the function


@MANY
def test_an_error_is_raised_as_it_is_and_names_the_item(jobs):
    with pytest.raises(ValueError, match="no root of -7") as caught:
        quiet(root, [1, 2, 3, -7], jobs=jobs)
    (note,) = caught.value.__notes__
    assert note.startswith("item 3, -7") and ("in root" in note) == (jobs == 2)


@MANY
def test_failed_items_are_tried_again_and_the_others_are_found(tmp_path, jobs):
    marker = tmp_path / "mended"

    def fails_at_first(item):
        if item == 2 and not marker.exists():
            raise RuntimeError("not yet")
        return item, time.time_ns()

    kept = tmp_path / "kept"
    first = quiet(fails_at_first, range(4), jobs=jobs, folder=kept, errors="collect")
    marker.touch()
    second = quiet(fails_at_first, range(4), jobs=jobs, folder=kept, errors="collect")
    assert isinstance(first[2], FailedItem) and second[2][0] == 2
    assert [first[index] for index in (0, 1, 3)] == [second[index] for index in (0, 1, 3)]


@MANY
def test_a_result_that_cannot_be_kept_is_a_failure(tmp_path, jobs):
    def value(item):
        return pickle.Pickler if item == 1 else item

    found = quiet(value, range(3), jobs=jobs, folder=tmp_path, errors="collect")
    assert [found[0], found[2]] == [0, 2] and isinstance(found[1].error, ArgumentError)
    with pytest.raises(ArgumentError, match="the result for 1 cannot be kept"):
        quiet(value, range(3), jobs=jobs, folder=tmp_path)


class Unpickled(Exception):
    """An error that cannot be pickled."""

    def __init__(self, words):
        super().__init__(words)
        self.guard = threading.Lock()


def unpickled(item):
    raise Unpickled(f"{item} and {item + 1}")


def test_an_error_that_cannot_be_sent_arrives_in_words():
    with pytest.raises(Unpickled, match="5 and 6"):
        quiet(unpickled, [5])
    with pytest.raises(SweepError, match="Unpickled: 5 and 6"):
        quiet(unpickled, [5], jobs=2)


@pytest.mark.parametrize("jobs", [0, -2, 1.5, "2", True, None])
def test_a_wrong_number_of_jobs_is_refused(jobs):
    with pytest.raises(ArgumentError, match="jobs is a whole number from 1 on, or -1"):
        quiet(root, [1], jobs=jobs)


def test_other_wrong_arguments_are_refused():
    assert quiet(root, [4], jobs=np.int64(1)) == [2] and quiet(root, [], jobs=2) == []
    with pytest.raises(ArgumentError, match="errors is one of 'raise', 'collect', got 'ignore'"):
        quiet(root, [1], errors="ignore")
    with pytest.raises(ArgumentError, match="expected a function to sweep with, got 3"):
        quiet(3, [1])


class Locked:
    """A function that holds what no other process can have."""

    def __init__(self):
        self.scale, self.guard = 2, threading.Lock()

    def __call__(self, item):
        return self.scale * item

    def method(self, item):
        return self(item)


def test_a_function_that_cannot_be_sent_says_which_part():
    lock, locked = threading.Lock(), Locked()
    for function, part in {
        locked: "attribute 'guard'",
        locked.method: "object",
        (lambda item: (item, lock)): "variable 'lock'",
        partial(pow, lock): "argument 0",
    }.items():
        with pytest.raises(ArgumentError, match=f"cannot be sent.*its {part} cannot be pickled"):
            quiet(function, [1, 2], jobs=2)
    with joblib.parallel_config("threading"):  # where nothing is sent
        assert quiet(locked, [1, 2], jobs=2) == [2, 4]


def test_the_bar_counts_what_is_found_and_what_failed(tmp_path, capsys):
    quiet(root, [1, 4], folder=tmp_path)
    sweep(root, [1, 4, -1, 9], folder=tmp_path, errors="collect")
    shown = capsys.readouterr().err
    assert "2/4" in shown and "4/4" in shown and "failed=1" in shown


def test_items_of_a_process_that_died_run_in_another_one(tmp_path):
    parent, marker = os.getpid(), tmp_path / "killed"

    def kill_once(item):
        if item == 3 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item, os.getpid() == parent

    assert quiet(kill_once, range(10), jobs=2) == [(item, False) for item in range(10)]


@pytest.mark.parametrize("deaths", [1, 99])
def test_an_item_that_kills_each_process_has_failed_and_the_others_are_there(monkeypatch, deaths):
    class DiedError(Exception):
        pass

    def outcomes(function, items, jobs, backend):
        runs.append(len(items))
        for index, item in items.items():
            if item in left and left[item] > 0:
                left[item] -= 1
                raise DiedError("gone")
            yield attempt(function, index, item)

    monkeypatch.setattr(other_processes, "_deaths", lambda backend: (DiedError,))
    monkeypatch.setattr(other_processes, "_outcomes", outcomes)
    left, runs = {0: deaths, 7: deaths, 39: deaths}, []
    found = quiet(abs, range(40), jobs=2, errors="collect")
    failed = [one for one in found if isinstance(one, FailedItem)]
    assert [one.index for one in failed] == ([0, 7, 39] if deaths == 99 else [])
    assert all(found[item] == item for item in range(40) if item not in left)
    assert all("its process died 2 times while it ran alone" in str(one.error) for one in failed)
    assert len(runs) < 20 and (deaths < 99 or 1 in runs)


KILLED = """
import sys, time
from toumei.core import sweep
def slow(item):
    time.sleep(0.02)
    return item, time.time_ns()
for item, _ in sweep(slow, range(int(sys.argv[2])), jobs=int(sys.argv[3]), folder=sys.argv[1], verbose=False):
    print(item)
"""


def test_results_are_kept_as_they_arrive_and_a_killed_sweep_goes_on(tmp_path):
    def started(items, jobs):
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(items), str(jobs)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)

    process = started(10**4, jobs=2)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.result"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)  # with its workers, which would wait for more
    process.communicate()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.result")}
    assert 5 <= len(kept) < 10**4
    output, _ = started(len(kept) + 3, jobs=1).communicate()
    assert output.split() == [str(item) for item in range(len(kept) + 3)]
    now = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.result")}
    assert kept.items() <= now.items()


def test_a_worker_that_joblib_starts_anew_is_no_error():
    """It warns in the thread that starts workers, which an error would end: the sweep would wait for ever."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert quiet(root, [4, 9], jobs=2) == [2, 3]
        loky = sys.modules["joblib.externals.loky.process_executor"]
        message = "A worker stopped while some jobs were given to the executor."
        with pytest.warns(UserWarning, match="A worker stopped"):
            warnings.warn_explicit(message, UserWarning, loky.__file__, 1, module=loky.__name__)


def test_ctrl_c_ends_a_sweep_in_other_processes_and_what_is_kept_is_whole(tmp_path):
    parent = os.getpid()

    def interrupting(item):
        if item == 30:
            os.kill(parent, signal.SIGINT)
        time.sleep(0.01)
        return torch.full((100,), float(item))

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            quiet(interrupting, range(2000), jobs=2, folder=tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    kept = len(list(tmp_path.glob("*.result")))
    assert kept < 2000
    assert quiet(root, [4, 9], jobs=2) == [2, 3]  # the processes are ready for the next


@MANY
def test_a_stream_of_endless_items_is_in_order_and_ends_where_it_is_closed(jobs):
    read = []

    def endless():
        for number in range(10_000):
            read.append(number)
            yield number

    def slow_at_first(item):
        time.sleep(0.02 * (item == 0))
        return -item

    with closing(streamed(slow_at_first, endless(), jobs=jobs)) as results:
        assert [next(results) for _ in range(5)] == [(number, -number) for number in range(5)]
    assert len(read) == (5 if jobs == 1 else 32)


@MANY
def test_a_stream_raises_the_error_of_an_item(jobs):
    with closing(streamed(root, [4, -1], jobs=jobs)) as results, pytest.raises(ValueError, match="no root"):
        list(results)


@MANY
def test_a_stream_of_no_items_is_empty(jobs):
    assert list(streamed(root, [], jobs=jobs)) == []
