"""Runs go to MLflow as they are, once, and later where the server is away; needs mlflow."""

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from toumei.bench import Bench
from toumei.core.errors import ArgumentError, MissingDependencyError, ServerError

INSTALLED = importlib.util.find_spec("mlflow") is not None
needs_mlflow = pytest.mark.skipif(not INSTALLED, reason="mlflow is not installed")
# mlflow and its database warn of what is no fault of ours
pytestmark = pytest.mark.filterwarnings("default:::mlflow", "default:::sqlalchemy", "ignore::ResourceWarning")


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--serve-artifacts"]
    with (folder / "log.txt").open("w") as log:
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                    break
                except OSError:
                    assert process.poll() is None, (folder / "log.txt").read_text()
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, 15)
            process.wait(30)


def measured(bench):
    @bench.log_experiment
    def measure(layer, text="a [b]"):
        if layer > 8:
            raise ValueError("no such layer")
        return {"loss": layer / 4, "heads": [layer, 2]}

    return measure


def found_in(uri, name):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    return client, sorted(client.search_runs([experiment.experiment_id]), key=lambda run: run.info.start_time)


def check(uri, bench):
    client, runs = found_in(uri, "measure")
    assert [run.data.params for run in runs] == [{"layer": str(n), "text": "'a [b]'"} for n in (1, 2, 9)]
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED", "FAILED"]
    assert runs[1].data.metrics["loss"] == 0.5 and runs[1].data.metrics["heads.0"] == 2
    kept = bench.runs("measure")
    assert [run.data.tags["toumei.version"] for run in runs] == [run.version for run in kept]
    names = {one.path for one in client.list_artifacts(runs[0].info.run_id)}
    assert {"run.json", "begun.json"} <= names


@needs_mlflow
@pytest.mark.parametrize("store", ["server", "database"])
def test_each_run_goes_to_mlflow_once(tmp_path, store, request):
    uri = request.getfixturevalue("server") if store == "server" else f"sqlite:///{tmp_path}/runs.db"
    bench = Bench(tmp_path / "bench", mlflow=uri)
    measure = measured(bench)
    measure(1)
    measure(2)
    with pytest.raises(ValueError):
        measure(9)
    check(uri, bench)
    assert bench.sync(verbose=False) == 0
    (bench.runs("measure")[0].folder / "mlflow.json").unlink()  # as if the process had been killed before
    assert bench.sync(verbose=False) == 1
    check(uri, bench)


@needs_mlflow
def test_runs_are_kept_while_the_server_is_away_and_sent_later(tmp_path, server):
    away = f"http://127.0.0.1:{free_port()}"
    bench = Bench(tmp_path, mlflow=away)

    @bench.log_experiment
    def later(number):
        return number

    with pytest.warns(UserWarning, match=r"there is no MLflow server at .*bench.sync\(\) sends it later"):
        assert later(3) == 3
    assert bench.runs("later")[0].result() == 3
    with pytest.raises(ServerError, match="there is no MLflow server"):
        bench.sync(verbose=False)
    assert Bench(tmp_path, mlflow=server).sync(verbose=False) == 1
    assert found_in(server, "later")[1][0].data.metrics["result"] == 3


def test_a_bench_without_mlflow_says_so(tmp_path):
    with pytest.raises(ArgumentError, match="this bench has no MLflow"):
        Bench(tmp_path).sync()
    if not INSTALLED:
        with pytest.raises(MissingDependencyError, match=r"pip install toumei\[bench\]"):
            Bench(tmp_path, mlflow="sqlite:///runs.db")


@needs_mlflow
@pytest.mark.parametrize("address", ["", "http://", "http://host:99999", "https://:5000"])
def test_what_is_no_address_is_refused_before_any_run(tmp_path, address):
    with pytest.raises(ArgumentError, match="mlflow is the address of a server or database"):
        Bench(tmp_path, mlflow=address)


@needs_mlflow
@pytest.mark.parametrize("answer", [None, b"nothing of HTTP\r\n"])
def test_a_server_that_does_not_answer_costs_seconds_and_no_run(tmp_path, monkeypatch, answer):
    monkeypatch.setattr("toumei.bench.mlflow_mirror._SECONDS_TO_ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def greet():
            silent.accept()[0].sendall(answer)

        if answer is not None:
            threading.Thread(target=greet, daemon=True).start()
        bench = Bench(tmp_path, mlflow=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.warns(UserWarning, match="there is no MLflow server at"):
            assert bench.log_experiment(kept)() == 1
    assert [run.status for run in bench.runs("kept")] == ["finished"]


def kept():
    return 1
