"""Experiments are kept with everything that they depend on, and told apart by exactly that."""

import importlib
import json
import mmap
import os
import subprocess
import sys
import threading
import time
import warnings
from collections import namedtuple
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from torch import nn

from toumei.bench import Bench, NotKept, Tool
from toumei.bench.surroundings import GitState
from toumei.core.errors import ArgumentError
from toumei.models import InductionTransformer
from toumei.transformers import CompositionScores, HeadScores, HookedModel, composition_scores, head_scores

FACTOR = 3
seen = []
Pair = namedtuple("Pair", "left right")


@dataclass(frozen=True)
class Point:
    x: float
    y: torch.Tensor


def times_factor(number):
    return number * FACTOR


class Doubling:
    def __call__(self, number):
        return times_factor(number) * 2


def hooked():
    torch.manual_seed(0)
    return HookedModel(InductionTransformer(vocabulary=8, positions=16))


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "bench", hooked())


def versions_of(bench, function, *calls):
    """The version of each call of an experiment."""
    logged = bench.log_experiment(function)
    for call in calls:
        logged(*call)
    return [run.version for run in bench.runs(function.__name__)][-len(calls) :]


def test_the_same_experiment_again_is_a_run_of_the_same_version_and_other_arguments_are_another(bench):
    def measure(number, weights=None):
        return number

    weights = torch.arange(3.0)
    calls = [(1,), (1,), (2,), (1, weights), (1, weights.clone()), (1, weights + 1), (1.0,), (True,)]
    found = versions_of(bench, measure, *calls)
    assert found[0] == found[1] and found[3] == found[4]
    assert len(set(found)) == 6
    assert bench.list_versions("measure") == list(dict.fromkeys(found))
    assert [run.version for run in bench.runs("measure", found[3][:8])] == [found[3]] * 2


def test_a_version_changes_with_the_source_of_what_is_called_and_with_values_that_are_read(
    bench, monkeypatch
):
    def direct():
        return times_factor(2)

    def through_an_object():
        return Doubling()(2)

    def of_itself(number=3):
        return 2 * number

    module = sys.modules[__name__]
    before = [versions_of(bench, one, ())[0] for one in (direct, through_an_object, of_itself)]
    monkeypatch.setattr(module, "FACTOR", 4)
    with_another_value = [versions_of(bench, one, ())[0] for one in (direct, through_an_object, of_itself)]
    monkeypatch.undo()

    def times_factor_again(number):
        return FACTOR * number

    monkeypatch.setattr(module, "times_factor", times_factor_again)
    with_other_source = [versions_of(bench, one, ())[0] for one in (direct, through_an_object, of_itself)]
    for index in range(2):
        assert len({before[index], with_another_value[index], with_other_source[index]}) == 3
    assert before[2] == with_another_value[2] == with_other_source[2]
    assert list(bench.get_version("direct", before[0])["helpers"]) == ["times_factor"]
    assert set(bench.get_version("through_an_object", before[1])["helpers"]) == {"Doubling", "times_factor"}
    difference = bench.diff(before[0], with_another_value[0])
    assert not difference.source and list(difference.others) == ["value FACTOR"]
    changed = bench.diff(before[0], with_other_source[0])
    assert "-    return number * FACTOR" in changed.source and "+        return FACTOR" not in changed.source


def test_a_version_changes_with_each_weight_and_with_the_mode_of_the_model(bench):
    def nothing():
        return 0

    first = versions_of(bench, nothing, ())
    model = bench.model.model
    weight = next(model.parameters())
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.view(-1)[5] += 1e-3
    second = versions_of(bench, nothing, ())
    weight.data.copy_(kept)  # which torch does not count as a change
    assert versions_of(bench, nothing, ()) == first != second
    model.train()
    assert versions_of(bench, nothing, ()) != first
    model.eval()


def test_a_version_changes_with_the_settings_of_a_model_and_with_what_is_put_on_it(bench):
    class Config:
        def __init__(self):
            self.window, self.transformers_version = 4, "5"

        def to_dict(self):
            return vars(self)

    class Scaling(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.scale, self.calls = nn.Dropout(0.1), 1.0, 0
            self.config = Config()
            self.register_buffer("shift", torch.zeros(2), persistent=False)
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self, x):
            self.calls += 1
            return self.inner(x * self.scale * self.weight + self.shift)

    def factor(number):
        def hook(module, args, output):
            return output * number

        return hook

    model = Scaling().eval()

    def changes():
        yield
        model.scale = 2.0
        model.config.transformers_version = "6"  # no setting
        yield
        yield
        model.config.window = 5
        yield
        model.inner.train()
        yield
        model.shift += 1
        yield
        model.weight.requires_grad_(False)
        yield
        for number in (2, 3):
            handle = model.inner.register_forward_hook(partial(factor(number)))
            yield
            handle.remove()
        model.inner.forward = lambda x: x
        yield

    bench = Bench(bench.folder.parent / "scaling", model)

    def measure():
        return model(torch.ones(2))

    def given(network):
        return 0

    found = [
        (*versions_of(bench, measure, (), ()), *versions_of(bench, given, (model,), (model,)))
        for _ in changes()
    ]
    for first, again, *arguments in found:
        assert first == again and arguments[0] == arguments[1], "the model counts its calls itself"
    assert found[1][0] == found[2][0] and len({versions[0] for versions in found}) == 9
    modes = bench.diff(found[3][0], found[4][0]).others
    assert modes == {"model's training": ("false", "False, but not inner")}


def test_what_an_experiment_changes_itself_is_not_part_of_its_version(bench):
    def counting(number):
        seen.append(number)
        return len(seen)

    assert len(set(versions_of(bench, counting, (1,), (1,), (1,)))) == 1


def test_a_version_changes_with_the_settings_of_a_tool_and_not_with_its_model(bench):
    class Widths(Tool):
        def __init__(self, model, scale=1):
            super().__init__(model)
            self.scale = scale

        def width(self):
            return self.model.width * self.scale

    def measure(widths=None):
        return widths.width()

    bench.tools["widths"] = Widths
    found = []
    for scale in (1, 1, 2):
        bench.tools["widths"] = Widths(bench.model, scale)
        found += versions_of(bench, bench.use_tools("widths")(measure), ())
    assert found[0] == found[1] != found[2]
    assert [run.result() for run in bench.runs("measure")] == [40, 40, 80]


def test_arguments_and_results_come_back_as_they_were(bench):
    values = {
        "numbers": [1, -(2**70), 0.1, 1e-300, True, None, 2 + 3j],
        "texts": ("a\nb", "ü\ud800", b"\0\xff", Path("x") / "y"),
        "odd": {1: "one", (2, 3): {4.0}, "$x": frozenset("a")},
        "arrays": [np.arange(6).reshape(2, 3), np.float32(0.5), torch.zeros(0, 3), torch.tensor(4)],
        "types": [torch.float16, torch.device("cpu"), torch.ones(2, dtype=torch.bfloat16)],
        "pair": Pair(1, torch.ones(2)),
        "point": Point(0.5, torch.arange(2)),
    }

    @bench.log_experiment
    def same(values):
        return values

    given = same(values)
    assert given is values
    run = bench.runs("same")[0]
    for found in (run.result(), run.arguments()["values"]):
        assert repr(found["numbers"]) == repr(values["numbers"])
        assert found["texts"] == values["texts"] and found["types"][:2] == values["types"][:2]
        assert found["odd"][1] == "one" and found["odd"][2, 3] == {4.0} and found["odd"]["$x"] == {"a"}
        for old, new in zip(values["arrays"], found["arrays"], strict=True):
            assert torch.equal(torch.as_tensor(old), torch.as_tensor(new))
        assert isinstance(found["arrays"][0], np.ndarray) and found["types"][2].dtype == torch.bfloat16
        assert found["pair"].left == 1 and isinstance(found["pair"], Pair)
        assert torch.equal(found["point"].y, values["point"].y)
    assert not run.record["unkept"]


def test_nan_and_infinity_are_kept_in_json_that_others_can_read(bench):
    @bench.log_experiment
    def far():
        return [float("nan"), float("inf"), torch.tensor([torch.nan])]

    far()
    run = bench.runs("far")[0]
    found = run.result()
    assert found[0] != found[0] and found[1] == float("inf") and bool(found[2].isnan())
    text = (run.folder / "run.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_results_of_the_library_are_kept_by_their_own_save(bench):
    @bench.log_experiment
    def lens():
        cache = bench.model.run_with_cache(torch.arange(4)[None], ["pattern"])[1]
        patterns = [cache["pattern", layer] for layer in range(2)]
        return {
            "scores": head_scores(patterns),
            "composition": composition_scores(bench.model, verbose=False),
        }

    kept = lens()
    found = bench.runs("lens")[0].result()
    assert isinstance(found["scores"], HeadScores) and isinstance(found["composition"], CompositionScores)
    torch.testing.assert_close(found["composition"].k, kept["composition"].k, rtol=0, atol=0, equal_nan=True)
    assert bench.rerun(bench.list_versions("lens")[0]).exact


def test_figures_are_kept_whether_they_are_returned_or_left_open(bench):
    @bench.log_experiment
    def drawing():
        figure, ax = pyplot.subplots(figsize=(1, 1))
        ax.plot([1, 2])
        pyplot.figure(figsize=(1, 1))
        return {"curve": ax, "figure": figure}

    drawing()
    pyplot.close("all")
    run = bench.runs("drawing")[0]
    assert len(run.figures) >= 2
    for path in run.figures.values():
        assert path.read_bytes()[:4] == b"\x89PNG"
    assert run.result()["curve"] == run.figures["result.curve"]


def test_what_cannot_be_kept_is_named_and_the_run_is_kept(bench, tmp_path):
    circle = [1]
    circle.append(circle)

    @bench.log_experiment
    def odd(stream, number=2):
        return {"stream": stream, "number": number, "circle": circle, "net": nn.Linear(1, 1)}

    with open(__file__) as file:
        result = odd(file)
    assert result["stream"] is file
    run = bench.runs("odd")[0]
    assert set(run.record["unkept"]) == {"arguments.stream", "result.stream", "result.circle[1]"}
    assert "result.stream is not kept" in str(run)
    assert run.result()["number"] == 2 and isinstance(run.result()["stream"], NotKept)
    with pytest.raises(ArgumentError, match="odd cannot run again: stream could not be kept"):
        bench.rerun(run.version)


def test_an_exception_is_kept_and_raised_again(bench):
    @bench.log_experiment
    def failing(error):
        raise error(f"no {error.__name__}")

    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error):
            failing(error)
    runs = bench.runs("failing")
    assert [run.status for run in runs] == ["failed", "interrupted"]
    assert runs[0].error["type"] == "ZeroDivisionError" and "test_log.py" in runs[0].error["traceback"]
    with pytest.raises(ArgumentError, match="has no result: it is failed"):
        runs[0].result()


def test_a_rerun_has_the_same_random_numbers_and_says_what_changed(bench, monkeypatch):
    @bench.log_experiment
    def inner():
        return torch.rand(2)

    @bench.log_experiment
    def drawing(count):
        return torch.rand(count), np.random.rand(), inner() * FACTOR

    drawing(3)
    drawing(3)
    runs = bench.runs("drawing")
    assert runs[0].seed != runs[1].seed
    assert not torch.equal(runs[0].result()[0], runs[1].result()[0])
    again = bench.rerun(runs[0].version)
    assert again.equal and again.exact and again.before == runs[1].id and not again.changed
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3 + 1e-6)
    close = bench.rerun(runs[0].version)
    assert close.equal and not close.exact and 0 < close.largest < 1e-6 and close.changed == ("values",)
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 4)
    far = bench.rerun(runs[0].version)
    assert not far.equal and far.largest == pytest.approx(1 / 3) and "result[2]" in far.differences[0]


def test_a_rerun_gives_the_tools_and_compares_errors(bench):
    @bench.use_tools("write_read")
    @bench.log_experiment
    def writers(layer, threshold=0.5, write_read=None):
        return write_read.identify_write_heads(layer, threshold)

    assert writers(0) == [0]
    assert bench.rerun(bench.list_versions("writers")[0]).exact
    with pytest.raises(KeyError):
        writers(9)
    assert bench.rerun(bench.list_versions("writers")[1]).exact


def test_seeds_follow_from_the_seed_of_the_script_and_leave_its_numbers_alone(bench):
    @bench.log_experiment(seed=5)
    def fixed():
        return torch.rand(1).item()

    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first = torch.rand(1)
    assert fixed() == fixed()
    assert torch.equal(torch.cat([first, torch.rand(1)]), expected)


def test_a_table_has_the_arguments_and_the_numbers_of_the_results(bench):
    @bench.log_experiment
    def score(layer, kind="a"):
        return {"loss": layer / 4, "heads": [layer, 1], "note": None}

    score(1)
    score(2, kind="b")
    table = bench.table("score")
    assert table["layer"] == ["1", "2"] and table["loss"] == [0.25, 0.5] and table["heads[0]"] == [1, 2]
    assert len(str(table).splitlines()) == 3 and table._repr_html_().count("<tr>") == 3


def test_runs_of_threads_do_not_disturb_each_other(bench):
    @bench.log_experiment(seed=1)
    def drawing(number):
        return torch.rand(3)

    threads = [threading.Thread(target=drawing, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results = [run.result() for run in bench.runs("drawing")]
    assert len(results) == 4 and all(torch.equal(one, results[0]) for one in results)


def test_names_that_do_not_exist_are_answered_with_the_nearest(bench):
    @bench.log_experiment
    def lens_of_facts():
        return 1

    lens_of_facts()
    version = bench.list_versions("lens_of_facts")[0]
    with pytest.raises(ArgumentError, match="did you mean 'lens_of_facts'"):
        bench.list_versions("lens_of_fact")
    with pytest.raises(ArgumentError, match=f"did you mean '{version}'"):
        bench.get_version("lens_of_facts", version[:-1] + "x")
    with pytest.raises(ArgumentError, match="did you mean 'logit_lens'"):
        bench.use_tools("logit_len")
    with pytest.raises(ArgumentError, match="no argument 'logit_lens': add logit_lens=None"):
        bench.use_tools("logit_lens")(lens_of_facts)


def test_functions_without_a_name_or_a_source_are_refused_before_they_run(bench):
    made = {}
    exec("def typed(): return 1", made)
    with pytest.raises(ArgumentError, match="Python has no source of typed"):
        bench.log_experiment(made["typed"])
    with pytest.raises(ArgumentError, match="made by def"):
        bench.log_experiment(lambda: 1)

    def steps():
        yield 1

    with pytest.raises(ArgumentError, match="a generator or a coroutine"):
        bench.log_experiment(steps)
    assert bench.list_experiments() == []


def test_a_folder_of_a_newer_format_is_refused(tmp_path):
    Bench(tmp_path)
    (tmp_path / "bench.json").write_text('{"format": 99}')
    with pytest.raises(
        ArgumentError, match="format 99, and this toumei reads formats up to 1: a newer toumei"
    ):
        Bench(tmp_path)
    (tmp_path / "bench.json").write_text("no json")
    with pytest.raises(ArgumentError, match="damaged"):
        Bench(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="file is a file"):
        Bench(tmp_path / "file")


def test_a_full_disk_does_not_cost_the_result(bench, small_disk):
    @bench.log_experiment
    def large(fails=False):
        if fails:
            raise ValueError("x" * 200_000)
        return {"loss": 0.5, "values": torch.rand(100_000)}

    with (
        small_disk(100_000),
        pytest.warns(UserWarning, match=r"the result of large could not be .* in .*safetensors"),
    ):
        assert len(large()["values"]) == 100_000
    (run,) = bench.runs("large")
    assert run.status == "finished" and "File too large" in run.record["unkept"]["result"]
    assert isinstance(run.result(), NotKept) and run.record["shown"]["results"] == {"loss": 0.5}
    assert bench.rerun(run.version).not_compared and "0.5" in str(bench.table("large"))
    with (
        small_disk(100_000),
        pytest.warns(UserWarning, match="the end of large could not be kept in"),
        pytest.raises(ValueError, match="xxx"),
    ):
        large(fails=True)
    before = sorted(bench.folder.rglob("*"))
    with small_disk(100), pytest.raises(OSError, match="File too large.*begun.json"):
        large()
    assert sorted(bench.folder.rglob("*")) == before, "a run that never began leaves its folder"


def test_a_folder_that_is_only_read_shows_its_runs_and_begins_none(tmp_path, read_only):
    bench, calls = Bench(tmp_path / "bench"), []

    @bench.log_experiment
    def once(value):
        calls.append(value)
        return value

    once(1)
    with read_only(tmp_path):
        assert [run.status for run in Bench(bench.folder).runs("once")] == ["finished"]
        assert "1" in str(bench.table("once"))
        for attempt in (lambda: once(2), bench.page, lambda: Bench(tmp_path / "new")):
            with pytest.raises(OSError, match=rf"Read-only.*{tmp_path}"):
                attempt()
    assert calls == [1] and len(list((bench.folder / "runs" / "once").iterdir())) == 1


def test_a_damaged_run_is_left_out_with_a_warning_and_a_damaged_index_is_made_again(bench):
    @bench.log_experiment
    def number(value):
        return value

    for value in range(3):
        number(value)
    runs = bench.runs("number")
    (bench.folder / "index-1.sqlite").write_bytes(b"no database" * 100)
    assert [run.id for run in bench.runs("number")] == [run.id for run in runs]
    (bench.folder / "index-1.sqlite").unlink()
    (runs[1].folder / "run.json").write_text("{")
    with pytest.warns(UserWarning, match=r"left out of the list: .*run.json is damaged"):
        assert [run.id for run in bench.runs("number")] == [runs[0].id, runs[2].id]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(bench.table("number")) == 2


def test_the_state_of_git_is_kept_where_there_is_one(tmp_path, monkeypatch):
    def git(*words):
        settings = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(
            ["git", *settings, *words], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    (tmp_path / "measure_in_git.py").write_text("def measure():\n    return 1\n")
    git("init", "-b", "work")
    git("add", "measure_in_git.py")
    git("commit", "-m", "Measure")
    monkeypatch.syspath_prepend(tmp_path)
    measure = importlib.import_module("measure_in_git").measure
    bench = Bench(tmp_path / "bench")
    logged = bench.log_experiment(measure)
    logged()
    (tmp_path / "measure_in_git.py").write_text("def measure():\n    return 2\n")
    logged()
    GitState._known.clear()
    logged()
    first, soon, later = (run.record["git"] for run in bench.runs("measure"))
    assert first == {"commit": git("rev-parse", "HEAD"), "branch": "work", "changed": []} == soon
    assert later["changed"] == ["measure_in_git.py"]


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="of Linux")
def test_environment_memory_and_time_are_kept(bench):
    @bench.log_experiment
    def holding():
        time.sleep(0.01)
        with mmap.mmap(-1, 200 * 2**20) as held:  # no memory that the process has already
            held[:: mmap.PAGESIZE] = bytes(len(held) // mmap.PAGESIZE)
            return len(held)

    holding()
    run = bench.runs("holding")[0]
    assert 0.01 <= run.seconds < 10
    assert run.record["environment"]["packages"]["torch"] == torch.__version__.split("+")[0]
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert run.record["peak_memory"]["cpu"] > resident + 100 * 2**20


class Odd:
    """An object on which nothing works."""

    def __repr__(self):
        raise RuntimeError("no text")

    def __reduce_ex__(self, protocol):
        raise LookupError("no content")

    @property
    def model(self):
        raise RuntimeError("no model")


class Unsaved:
    def save(self, path):
        raise LookupError("no file")

    @classmethod
    def load(cls, path):
        return cls()


def test_objects_on_which_nothing_works_cost_neither_the_run_nor_the_result(bench):
    @bench.log_experiment
    def odd(given):
        figure = pyplot.figure()
        figure.suptitle("$\\nothing$")  # it cannot be drawn
        parts = [torch.zeros(1, device="meta"), torch.eye(2).to_sparse(), np.array([object()])]
        return {"given": given, "figure": figure, "unsaved": Unsaved(), "parts": parts, "last": 1}

    given = Odd()
    assert odd(given)["given"] is given
    pyplot.close("all")
    run = bench.runs("odd")[0]
    assert run.status == "finished" and run.result()["last"] == 1
    parts = ("parts[0]", "parts[1]", "parts[2].cells[0]")
    places = {f"result.{name}" for name in ("given", "figure", "unsaved", *parts)}
    assert places | {"arguments.given"} <= set(run.record["unkept"])
    assert "no file" in run.record["unkept"]["result.unsaved"]
