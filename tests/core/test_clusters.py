"""Sweeps on real clusters of two processes; one is killed in the middle."""

import os
import signal
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import joblib
import pytest
import torch

from toumei.core import FailedItem, sweep
from toumei.core.errors import SweepError

quiet = partial(sweep, verbose=False)


def fresh(folder):
    """A function that is unknown to other processes, and that kills the first process that has item 7."""

    class Measure:
        def __init__(self):
            self.weights = torch.arange(1000.0)
            self.marker = folder / "killed"

        def __getstate__(self):
            (folder / f"sent {time.time_ns()}").touch()
            return self.__dict__

        def __call__(self, item):
            time.sleep(0.01)
            if item == 7 and os.getpid() != parent and self.killed():
                os.kill(os.getpid(), signal.SIGKILL)
            return self.weights[item].sqrt(), item

        def killed(self):
            try:
                self.marker.touch(exist_ok=False)
            except FileExistsError:
                return False
            return True

    parent = os.getpid()
    return Measure()


def sent(folder):
    return len(list(Path(folder).glob("sent *")))


@contextmanager
def dask():
    distributed = pytest.importorskip("distributed")
    import dask

    settings = {"distributed.comm.timeouts.connect": "60s", "distributed.worker.daemon": True}
    sizes = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")
    with dask.config.set(settings), distributed.LocalCluster(**sizes, silence_logs=50) as cluster:
        with distributed.Client(cluster):
            yield


@contextmanager
def ray():
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    importable = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        sizes = dict(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20)
        ray.init(**sizes, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": importable}})
        try:
            register_ray()
            yield
        finally:
            ray.shutdown()


@pytest.fixture(scope="module", params=[dask, ray], ids=["dask", "ray"])
def cluster(request):
    with request.param():
        yield request.param.__name__


def test_a_cluster_gives_what_this_process_gives_although_a_worker_is_killed(cluster, tmp_path):
    function = fresh(tmp_path)
    kept = tmp_path / "kept"
    with joblib.parallel_config(cluster):
        found = quiet(function, range(60), jobs=2, folder=kept)
        assert sent(tmp_path) == 1 and (tmp_path / "killed").exists()
        again = quiet(function, range(60), jobs=2, folder=kept)
        assert sent(tmp_path) == 1  # nothing is missing, so nothing is sent
    assert found == again == quiet(function, range(60))
    assert len(list(kept.glob("*.result"))) == 60


class Broken:
    """Can be pickled, but not be read again."""

    def __reduce__(self):
        return int, ("no number",)


class Unreadable(Exception):
    """An error that cannot be read again after it was pickled, also where Dask registers how to read it."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")
        self.held = Broken()


def some_fail(item):
    if item % 5 == 1:
        raise ValueError(f"no {item}")
    if item == 2:
        raise Unreadable(1, 2)
    return item


def test_a_cluster_goes_on_past_failed_items(cluster):
    with joblib.parallel_config(cluster):
        found = quiet(some_fail, range(20), jobs=2, errors="collect")
        with pytest.raises(ValueError, match="no 1") as caught:
            quiet(some_fail, [0, 1], jobs=2)
    assert caught.value.__notes__[0].startswith("item 1, 1")
    failed = [one for one in found if isinstance(one, FailedItem)]
    assert [one.index for one in failed] == [1, 2, 6, 11, 16]
    assert str(failed[2].error) == "no 6" and "in some_fail" in failed[2].traceback
    assert type(failed[1].error) is SweepError
    wrong = {one.index for one in failed}
    assert all(one == index for index, one in enumerate(found) if index not in wrong)
