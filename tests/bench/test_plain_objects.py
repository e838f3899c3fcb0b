"""Objects of Python, numpy and pandas come back from a run as they were, and differ where they differ."""

import datetime
import enum
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from matplotlib import pyplot

from toumei.bench import Bench
from toumei.bench.comparison import _differing
from toumei.core.errors import ArgumentError


class Color(enum.Enum):
    RED = "r"


class Level(enum.IntEnum):
    LOW = 1


class Part(enum.Flag):
    LEFT = 1
    RIGHT = 2


VALUES = [
    range(3, 9, 2),
    slice(None, 4),
    datetime.datetime(2020, 1, 2, 3, 4, 5, 6, datetime.timezone.utc),
    datetime.date(2020, 1, 2),
    datetime.time(3, 4),
    datetime.timedelta(1, 2, 3),
    Decimal("0.10"),
    Fraction(1, 3),
    uuid.UUID(int=7),
    deque([1, "a"], maxlen=3),
    Color.RED,
    Level.LOW,
    Part.LEFT | Part.RIGHT,
    frozenset({1, 2}),
    bytearray(b"ab"),
    OrderedDict(b=1, a=2),
    Counter("aab"),
    defaultdict(list, {"a": [1]}),
    torch.Size([2, 3]),
    np.float64(0.1),
    np.float16(1.5),
    np.longdouble("0.1"),
    np.int8(-3),
    np.uint64(2**64 - 1),
    np.bool_(True),
    np.complex64(1 + 2j),
    np.str_("x"),
    np.datetime64("2020-01-01"),
    np.timedelta64(3, "s"),
]
ARRAYS = [
    np.array([["a", "bc"], ["", "ü"]]),
    np.array([None, "a", 2], dtype=object),
    np.array(["2020-01-01", "NaT"], dtype="datetime64[D]"),
    np.array([1, -2], dtype=">i4"),
    np.array([[1.5, 2]], dtype=">f8"),
    np.array([1 + 2j]),
    np.array(["0.1", "1e-30"], dtype=np.longdouble),
    np.array([(1, [0.5, 2], "x")], dtype=[("whole", "<i8"), ("pair", ">f4", (2,)), ("text", "U3")]),
    np.zeros((0, 2), dtype=[("a", "u1")]),
]
TENSORS = [
    torch.ones(2, requires_grad=True),
    torch.nn.Parameter(torch.ones(2)),
    torch.nn.Parameter(torch.ones(2), requires_grad=False),
    torch.tensor([1 + 2j], dtype=torch.complex128),
    torch.tensor([1 + 2j], dtype=torch.complex128).conj(),
]


@pytest.fixture
def bench(tmp_path):
    yield Bench(tmp_path)
    pyplot.close("all")


def kept(bench, value):
    @bench.log_experiment
    def same(value):
        return value

    same(value)
    run = bench.runs("same")[-1]
    assert not run.record["unkept"]
    return run.result()


def test_objects_come_back_as_they_were(bench):
    found = kept(bench, VALUES)
    assert found == VALUES and [type(one) for one in found] == [type(one) for one in VALUES]
    assert bench.rerun(bench.list_versions("same")[0]).exact
    for old, new in zip(ARRAYS, kept(bench, ARRAYS), strict=True):
        assert old.dtype == new.dtype and np.array_equal(old, new, equal_nan=old.dtype.kind == "M")
    for old, new in zip(TENSORS, kept(bench, TENSORS), strict=True):
        assert type(old) is type(new) and old.requires_grad == new.requires_grad
        assert old.dtype == new.dtype and torch.equal(old, new)


def test_a_run_again_gets_arguments_that_are_the_same_version(bench):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"number": [0.5, 2]})
    given = [*VALUES, *ARRAYS, *TENSORS[:-1], table, table["number"]]

    @bench.log_experiment
    def same(value):
        return value

    for value in given:
        same(value)
        again = bench.rerun(bench.runs("same")[-1].version)
        assert again.exact and not again.changed, value


def test_numbers_of_numpy_are_compared_with_those_of_python(bench):
    made = [np.float64(2)]

    @bench.log_experiment
    def number():
        return {"one": made[0], "all": OrderedDict(a=made[0])}

    number()
    version = bench.list_versions("number")[0]
    made[0] = 2.0
    assert bench.rerun(version).exact
    made[0] = np.float64(3)
    again = bench.rerun(version)
    assert again.largest == pytest.approx(0.5) and len(again.differences) == 2
    assert "result.one: 3.0" in bench.page(verbose=False).read_text()


def test_an_argument_that_cannot_be_made_again_is_refused_before_the_run(bench, monkeypatch):
    @dataclass
    class Local:
        number: int

    class Mood(enum.Enum):
        GOOD = 1

    ran = []

    @bench.log_experiment
    def measure(value):
        ran.append(value)

    for value in (Local(1), [Mood.GOOD], {"a": (Mood.GOOD,)}):
        measure(value)
        count = len(ran)
        with pytest.raises(ArgumentError, match="measure cannot run again: value cannot be made again"):
            bench.rerun(bench.runs("measure")[-1].version)
        assert len(ran) == count


def test_tables_of_pandas_come_back_and_their_numbers_are_compared(bench):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"number": [1, 2.5, np.nan], "text": ["x", None, "z"], "odd": [1, "a", None], "whole": [1, 2, 3]},
        index=pandas.Index([3, 4, 9], name="row"),
    )
    frame["when"] = pandas.to_datetime(["2020-01-01", None, "2021-01-01"])
    frame["kind"] = pandas.Categorical(["u", "v", "u"])
    frame["gaps"] = pandas.array([1, None, 3], dtype="Int64")
    frame[1] = True
    pandas.testing.assert_frame_equal(kept(bench, frame), frame)
    both = frame.set_index(["text", "whole"])["number"]
    pandas.testing.assert_series_equal(kept(bench, both), both)
    empty = frame[:0]
    pandas.testing.assert_frame_equal(kept(bench, empty), empty)
    scale = [1.0]

    @bench.log_experiment
    def scaled():
        return frame[["whole"]] * scale[0]

    scaled()
    version = bench.list_versions("scaled")[0]
    assert bench.rerun(version).exact
    scale[0] = 1.5
    again = bench.rerun(version)
    assert not again.equal and again.largest == pytest.approx(0.5)


def test_what_is_lost_without_a_word_is_refused(bench):
    @bench.log_experiment
    def masked():
        return np.ma.array([1, 2], mask=[0, 1])

    masked()
    assert "its data and its mask" in bench.runs("masked")[0].record["unkept"]["result"]
    assert bench.rerun(bench.list_versions("masked")[0]).not_compared == ("result",)


def test_whole_numbers_are_compared_as_they_are(tmp_path):
    def differing(old, new):
        return list(_differing((tmp_path, old), (tmp_path, new), "result"))

    assert not differing(10**400, 10**400) and not differing(2, 2.0)
    ((_, distance, _),) = differing(2**60, 2**60 + 1)
    assert distance == pytest.approx(2**-60)
    assert differing(1, 10**400)[0][1] == float("inf")
    assert differing(10**400, 1.0)[0][1] is None


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.uint64, torch.bool, torch.float8_e4m3fn, torch.bfloat16]
)
def test_tensors_of_every_type_are_compared_number_by_number(bench, dtype):
    values = [torch.tensor([0, 1]).to(dtype)]

    @bench.log_experiment
    def tensor():
        return values[0]

    tensor()
    version = bench.list_versions("tensor")[0]
    assert bench.rerun(version).exact
    values[0] = torch.tensor([1, 1]).to(dtype)
    assert bench.rerun(version).largest == 1
    values[0] = torch.tensor([0, 2**60], dtype=torch.int64)
    tensor()
    large = bench.list_versions("tensor")[-1]
    values[0] = values[0] + 1
    assert not bench.rerun(large, tolerance=0).equal


def test_deep_and_strange_results_cost_nothing(bench):
    class Strange(dict):
        def items(self):
            raise RuntimeError("no items")

    @bench.log_experiment
    def odd(kind):
        deep = []
        for _ in range(5000):
            deep = [deep]
        ragged = torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged)
        return {"deep": deep, "strange": Strange(a=1), "nested": ragged}[kind]

    for kind in ("deep", "strange", "nested"):
        assert odd(kind) is not None
        run = bench.runs("odd")[-1]
        assert run.status == "finished" and run.result() is not None
    assert bench.page(verbose=False).exists()


def test_a_figure_is_kept_once_and_one_that_was_open_before_only_if_something_is_drawn_on_it(bench):
    before, other = pyplot.figure(), pyplot.figure()
    pyplot.figure(before.number)

    @bench.log_experiment
    def drawing(draws):
        if draws:
            pyplot.plot([1, 2])
        figure, axes = pyplot.subplots(1, 2)
        pyplot.close(figure)
        return {"axes": axes, "figure": figure}

    for draws in (False, True):
        pyplot.figure(before.number)
        drawing(draws)
        assert pyplot.gcf() is before
        run = bench.runs("drawing")[-1]
        assert len(set(run.figures.values())) == 1 + draws
        assert (f"figure {before.number}" in run.figures) == draws
        assert f"figure {other.number}" not in run.figures
    assert len(run.figures) == 4


def test_another_picture_is_another_result(bench):
    heights = [1, 2]

    @bench.log_experiment
    def bars():
        figure, ax = pyplot.subplots()
        ax.bar([0, 1], heights)
        pyplot.close(figure)
        return figure

    bars()
    version = bench.list_versions("bars")[0]
    assert bench.rerun(version).exact
    heights[0] = 3
    assert bench.rerun(version).differences == ("result: another picture",)


def test_methods_are_experiments_of_their_object_and_classes_are_none(bench):
    class Scaling:
        def __init__(self, scale):
            self.scale = scale

        def scaled(self, x):
            return self.scale * x

    for scale in (2, 2, 3):
        assert bench.log_experiment(Scaling(scale).scaled)(1) == scale
    versions = [run.version for run in bench.runs("scaled")]
    assert versions[0] == versions[1] != versions[2]

    async def steps():
        yield 1

    for given, words in ((Scaling, "made by def"), (steps, "a generator or a coroutine")):
        with pytest.raises(ArgumentError, match=words):
            bench.log_experiment(given)

    @bench.log_experiment
    def two(first, second):
        return first

    with pytest.raises(TypeError, match=r"two\(\): missing a required argument: 'second'"):
        two(1)
    two(1, 2)
    with pytest.raises(ArgumentError, match="there is no column 'third'; there are version, begin"):
        bench.table("two")["third"]


def test_an_experiment_may_change_the_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bench = Bench("relative")

    @bench.log_experiment
    def moving():
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "elsewhere")
        return 1

    moving()
    assert [run.status for run in bench.runs("moving")] == ["finished"]
    assert (tmp_path / "relative" / "runs").exists() and not list((tmp_path / "elsewhere").iterdir())
