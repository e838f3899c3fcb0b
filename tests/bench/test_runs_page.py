"""The page of runs holds everything that it shows, and no text in a run can end its script."""

import base64
import json
import re

import pytest
import torch
from matplotlib.figure import Figure

from toumei.bench import Bench
from toumei.core.errors import ArgumentError
from toumei.models import InductionTransformer
from toumei.transformers import HookedModel, composition_scores


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "kept", HookedModel(InductionTransformer(vocabulary=8, positions=16)))


def data_of(path):
    return json.loads(re.search(r"const data = (.*);\n", path.read_text("utf-8"))[1])


def test_a_page_has_all_runs_with_figures_sources_and_numbers(bench):
    @bench.log_experiment
    def curve(power, note="</script><b>"):
        figure = Figure(figsize=(1, 1))
        figure.add_subplot().plot(torch.linspace(0, 1, 3) ** power)
        return {"power": power, "figure": figure, "tensor": torch.ones(2, 3)}

    @bench.log_experiment
    def failing():
        raise ValueError("on purpose")

    curve(1)
    curve(2)
    with pytest.raises(ValueError):
        failing()
    path = bench.page(verbose=False)
    text = path.read_text("utf-8")
    assert path == bench.folder / "runs.html" and text.count("</script>") == 1
    assert not re.search(r'(src|href)="(?!data:)', text) and "http" not in text
    data = data_of(path)
    assert [run["status"] for run in data["runs"]] == ["finished", "finished", "failed"]
    assert data["runs"][1]["arguments"]["power"] == "2" and data["runs"][1]["results"]["power"] == 2
    assert "result.tensor: float32 [2, 3]" in data["runs"][0]["printed"]
    assert "on purpose" in data["runs"][2]["error"]
    png = base64.b64decode(data["runs"][0]["figures"]["result.figure"].split(",")[1])
    assert png == next(iter(bench.runs("curve")[0].figures.values())).read_bytes()
    assert set(data["sources"]) == {run["version"] for run in data["runs"]}
    assert len(data_of(bench.page(bench.folder / "one.html", "failing", verbose=False))["runs"]) == 1


def test_results_of_the_library_are_drawn_once(bench):
    @bench.log_experiment
    def composition():
        return {"scores": composition_scores(bench.model, verbose=False)}

    composition()
    first = data_of(bench.page(verbose=False))["runs"][0]["figures"]
    assert list(first) == ["result.scores"]
    kept = next(bench.runs()[0].folder.glob("results/*.png"))
    kept.write_bytes(b"kept")
    second = data_of(bench.page(verbose=False))["runs"][0]["figures"]
    assert base64.b64decode(second["result.scores"].split(",")[1]) == b"kept"
    with pytest.raises(ArgumentError, match="did you mean 'composition'"):
        bench.page(experiment="compositions", verbose=False)


def test_a_bench_that_can_only_be_read_is_listed_without_an_index(bench):
    @bench.log_experiment
    def number(value):
        return value

    number(1)
    (bench.folder / "index-1.sqlite").unlink()
    (bench.folder / "index-1.sqlite").mkdir()
    assert bench.table("number")["value"] == ["1"]
    number(2)
    assert len(bench.runs("number")) == 2
