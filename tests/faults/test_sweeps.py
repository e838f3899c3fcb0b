"""What a sweep finds in its folder is the result of this function for this item; nothing is sent twice."""

import contextlib
import functools
import importlib
import io
import itertools
import json
import operator
import os
import random
import struct
import sys
import threading
import types
import warnings
from dataclasses import dataclass
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from fresh_interpreters import run_fresh
from joblib._parallel_backends import LokyBackend, ThreadingBackend
from torch import Tensor, nn

from toumei.attribution import Attribution, Saliency
from toumei.core import sweep
from toumei.core.content import content_hash, function_parts
from toumei.core.errors import ArgumentError

quiet = partial(sweep, verbose=False)


def long_tensor(value):
    tensor = torch.zeros(5000)
    tensor[2500] = value
    return tensor


class Point:
    """An object whose repr does not say what it holds."""

    def __init__(self, place):
        self.place = place

    def __repr__(self):
        return "Point()"


class Named(str):
    """A text that has more than its characters."""


class Scaled(torch.Tensor):
    """A tensor with a setting."""


def with_attribute(thing, value):
    thing.setting = value
    return thing


def masked(hidden):
    return np.ma.array([1.0, 2.0], mask=[False, bool(hidden)])


def quantized(value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a later torch will not have them
        return torch.quantize_per_tensor(torch.ones(2), 0.5 + value, 0, torch.qint8)


class Slotted:
    """An object without a dictionary of attributes."""

    __slots__ = ("place",)

    def __init__(self, place):
        self.place = place


@dataclass
class Pair:
    """A dataclass with a tensor."""

    name: str
    values: Tensor


def linear(value):
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.fill_(value)
        layer.bias.fill_(0)
    return layer


DIFFERENT = {
    "long tensors": lambda value: long_tensor(value),
    "types of numbers": lambda value: torch.zeros(2, dtype=[torch.int32, torch.float32][value]),
    "shapes": lambda value: torch.zeros([(2, 3), (3, 2)][value]),
    "views": lambda value: torch.arange(4).view(2, 2)[:, value],
    "sparse tensors": lambda value: torch.eye(3).roll(value, 0).to_sparse(),
    "bfloat16": lambda value: torch.full((3,), value, dtype=torch.bfloat16),
    "long arrays": lambda value: long_tensor(value).numpy(),
    "objects": Point,
    "objects with slots": Slotted,
    "dataclasses": lambda value: Pair("a", long_tensor(value)),
    "dictionaries": lambda value: {"a": [1, {"b": long_tensor(value)}]},
    "sets": lambda value: {"a", value},
    "numbers and text": lambda value: [1, "1"][value],
    "truth and numbers": lambda value: [1, True][value],
    "floats": lambda value: [0.3, 0.1 + 0.2][value],
    "networks": linear,
    "functions": lambda value: [lambda x: x + 1, lambda x: x + 2][value],
    "closures": lambda value: lambda x: x + value,
    "arrays of objects": lambda value: np.array([Point(value), None], dtype=object),
    "masked arrays": masked,
    "texts with attributes": lambda value: with_attribute(Named("a"), value),
    "tensors with attributes": lambda value: with_attribute(torch.ones(2).as_subclass(Scaled), value),
    "conjugated tensors": lambda value: torch.tensor([1 + 2j]).conj() + value,
    "conjugated views": lambda value: torch.tensor([1 + 2j]).conj() if value else torch.tensor([1 + 2j]),
    "quantized tensors": quantized,
    "methods of dictionaries": lambda value: {"a": value}.get,
    "functions of NumPy": lambda value: [np.sin, np.cos][value],
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_items_of_other_content_are_other_items_and_equal_ones_are_found(tmp_path, name):
    make = DIFFERENT[name]
    calls = []

    def count(item):
        calls.append(1)
        return len(calls)

    assert quiet(count, [make(0)], folder=tmp_path) == [1]
    assert quiet(count, [make(1)], folder=tmp_path) == (
        [2] if name != "floats" else quiet(count, [make(1)], folder=tmp_path)
    )
    assert (
        quiet(count, [make(0), make(0)], folder=tmp_path)[0] == 1
    )  # the second of equal items has its own result
    assert quiet(count, [make(0)], folder=tmp_path) == [1]


def power(number, exponent):
    return number**exponent


class Times:
    """A function with a setting."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, item):
        return self.factor * item

    def plus(self, item):
        return self.factor + item


def times(factor):
    return lambda item: factor * item


FUNCTIONS = {
    "built in": (abs, float, -2),
    "partials": (partial(power, exponent=2), partial(power, exponent=3), 2),
    "closures": (times(2), times(3), 2),
    "lambdas": (lambda x: x + 1, lambda x: x + 2, 2),
    "objects": (Times(2), Times(5), 2),
    "methods": (Times(2).plus, Times(5).plus, 2),
    "method and object": (Times(3), Times(3).plus, 2),
    "networks": (linear(1.0), linear(2.0), torch.ones(2)),
    "defaults": (lambda x, k=1: x + k, lambda x, k=2: x + k, 2),
    "inside": (lambda x: [x + i for i in (1, 2)], lambda x: [x + i for i in (3, 4)], 2),
    "methods of dictionaries": ({2: "two"}.get, {2: "zwei"}.get, 2),
    "methods of tensors": (torch.eye(2).matmul, torch.ones(2, 2).matmul, torch.ones(2)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_another_function_gets_its_own_results(tmp_path, name):
    first, second, item = FUNCTIONS[name]
    with torch.no_grad():
        for _ in range(2):
            for function in (first, second):
                (got,), want = quiet(function, [item], folder=tmp_path), function(item)
                assert (
                    torch.equal(got, want)
                    if isinstance(want, Tensor)
                    else got == want and type(got) is type(want)
                )


def test_a_changed_helper_or_constant_of_the_module_is_another_function(tmp_path):
    def load(text):
        space = {}
        exec(text, space)
        return space["measure"]

    inner = "SCALE = 2\ndef inner(x): return SCALE * x\n"
    text = inner + "def helper(x): return inner(x)\ndef measure(x): return helper(x) + 1"
    assert quiet(load(text), [3], folder=tmp_path) == [7]
    assert quiet(load(text.replace("SCALE = 2", "SCALE = 5")), [3], folder=tmp_path) == [16]
    assert quiet(load(text.replace("SCALE * x", "SCALE - x")), [3], folder=tmp_path) == [0]
    assert quiet(load(text), [3], folder=tmp_path) == [7]


OTHER_CODE = {
    "dispatched by type": (
        "from functools import singledispatch\n"
        "@singledispatch\ndef inner(x): return 0\n"
        "@inner.register\ndef of_int(x: int): return 1\n"
        "def measure(x): return inner(x)"
    ),
    "metaclass": (
        "class Kind(type):\n    def __call__(self): return 1\n"
        "class Thing(metaclass=Kind): pass\n"
        "def measure(x): return Thing()"
    ),
}


def order(function):
    return functools.cmp_to_key(function)


# Objects that hold a function, or a number, where pickle does not look for it.
HIDING = {
    "key of a comparison": order,
    "key in a partial": lambda function: partial(sorted, key=order(function)),
    "attribute of a partial method": lambda function: functools.partialmethod(function, 1),
    "cache": functools.cache,
    "cache in a list": lambda function: [functools.lru_cache(8)(function)],
    "cached property": functools.cached_property,
    "static method": staticmethod,
    "class method": classmethod,
    "property": property,
    "function for singledispatch": functools.singledispatch,
    "method for singledispatch": functools.singledispatchmethod,
    "map": lambda function: map(function, [1]),
    "accumulate": lambda function: itertools.accumulate([1], function),
    "function of numpy": lambda function: np.frompyfunc(function, 2, 1),
    "cell of a closure": lambda function: types.CellType(function),
    "values": lambda function: {1: function}.values(),
}


@pytest.mark.filterwarnings("ignore:Pickle, copy, and deepcopy support will be removed from itertools")
@pytest.mark.parametrize("name", HIDING)
def test_no_object_hides_its_function(name):
    one, same, other = (HIDING[name](f) for f in (lambda a, b: a - b, lambda a, b: a - b, lambda a, b: b - a))
    assert content_hash(one) == content_hash(same) != content_hash(other)

    def parts(value):
        space = {"value": value, "__name__": "module_of_a_user"}
        exec("def measure(x): return value", space)
        return function_parts(space["measure"])

    assert parts(one) == parts(same) != parts(other)


OPERATORS = {
    "itemgetter": operator.itemgetter,
    "attrgetter": lambda number: operator.attrgetter(f"a{number}"),
    "methodcaller": lambda number: operator.methodcaller("get", number),
    "count": itertools.count,
    "struct": lambda number: struct.Struct("i" * number).pack,
    "bytes": lambda number: memoryview(bytes([number])),
    "bits": lambda number: [functools.lru_cache(number)(max)],
}


@pytest.mark.filterwarnings("ignore:Pickle, copy, and deepcopy support will be removed from itertools")
@pytest.mark.parametrize("name", OPERATORS)
def test_no_object_hides_its_numbers(name):
    one, same, other = map(OPERATORS[name], (1, 1, 2))
    assert content_hash(one) == content_hash(same) != content_hash(other)


def test_functions_beside_what_cannot_be_read_count():
    def parts(value):
        space = {"value": value, "__name__": "module_of_a_user"}
        exec("def measure(x): return value", space)
        return function_parts(space["measure"])

    for lock in (threading.Lock(), (x for x in [1])):
        one, same, other = ([lock, f] for f in (lambda x: x + 1, lambda x: x + 1, lambda x: x + 2))
        assert parts(one) == parts(same) != parts(other)
        with pytest.raises(ArgumentError, match="cannot be read"):
            content_hash(one)


def test_the_object_of_a_method_in_a_class_counts():
    def measure(number):
        return type(
            "Measure", (), {"method": Times(number).plus, "__call__": lambda self, x: self.method(x)}
        )()

    assert function_parts(measure(2)) == function_parts(measure(2)) != function_parts(measure(3))


@pytest.mark.parametrize("name", OTHER_CODE)
def test_code_that_is_reached_on_unusual_ways_counts(tmp_path, name, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    results = []
    for place, text in enumerate((OTHER_CODE[name], OTHER_CODE[name].replace("return 1", "return 25"))):
        (tmp_path / "module_of_a_user.py").write_text(text)
        monkeypatch.delitem(sys.modules, "module_of_a_user", raising=False)
        importlib.invalidate_caches()
        measure = importlib.import_module("module_of_a_user").measure
        results += quiet(measure, [3], folder=tmp_path / "kept")
        assert results == [1, 25][: place + 1]


def test_generators_of_the_process_do_not_tell_functions_apart():
    functions = random.random, random.choice, np.random.random, np.random.choice
    before = [content_hash(function) for function in functions]
    random.random(), np.random.random()
    assert [content_hash(function) for function in functions] == before and len(set(before)) == 4


def test_a_small_part_of_a_large_tensor_is_a_small_file(tmp_path):
    large = torch.arange(100_000.0)
    for _ in range(2):
        (found,) = quiet(lambda item: {"parts": [large[:2], (large[4:5],)]}, [1], folder=tmp_path)
        assert found["parts"][0].tolist() == [0, 1] and found["parts"][1][0].tolist() == [4]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 10_000


def test_results_are_found_in_another_order(tmp_path):
    made = []

    def square(item):
        made.append(item)
        return item * item

    assert quiet(square, [1, 2, 3], folder=tmp_path) == [1, 4, 9]
    assert quiet(square, [3, 4, 1], folder=tmp_path) == [9, 16, 1] and made == [1, 2, 3, 4]


def test_content_has_the_same_hash_in_another_process():
    text = """
from toumei.core.content import content_hash, function_parts
import torch
def measure(x, k={"a", "b", "c"}): return [x + i for i in (1, 2)] + sorted(k)
print(content_hash([{"a": {"x", "y", "z"}}, torch.arange(5), measure, 0.1]), function_parts(measure))
"""
    here = io.StringIO()
    with contextlib.redirect_stdout(here):
        exec(text, {"__name__": "__main__"})
    there = run_fresh(f"exec({text!r})")
    assert here.getvalue() == there.stdout, there.stderr


def test_what_the_function_changes_itself_does_not_make_it_another_one(tmp_path):
    class Counting:
        def __init__(self):
            self.cache, self.count, self.scale = {}, 0, 2

        def __call__(self, item):
            self.cache[item], self.count = item, self.count + 1
            return self.scale * item

    first, second, third = Counting(), Counting(), Counting()
    third.scale = 3
    assert quiet(first, [1, 2], folder=tmp_path) == [2, 4]
    assert quiet(first, [1, 2], folder=tmp_path) == [2, 4] and first.count == 2
    assert quiet(second, [1, 2, 3], folder=tmp_path) == [2, 4, 6] and second.count == 1
    assert quiet(third, [1], folder=tmp_path) == [3]


class Drawing:
    """A function that says what counts of it, which its calls change."""

    def __init__(self, scale):
        self.scale, self.draws = scale, 0

    @property
    def sweep_content(self):
        return self.scale, self.draws

    def __call__(self, item):
        self.draws += 1
        return self.scale * item


def test_what_tells_functions_apart_counts_even_if_calls_change_it(tmp_path):
    assert quiet(Drawing(2), [1, 2], folder=tmp_path) == [2, 4]
    assert quiet(Drawing(3), [1, 2], folder=tmp_path) == [3, 6]
    found = Drawing(2)
    assert quiet(found, [1, 2], folder=tmp_path) == [2, 4] and not found.draws


class OwnFormat:
    """A result with a format of its own."""

    def __init__(self, text):
        self.text = text

    def save(self, path):
        with open(path, "w") as file:
            file.write(self.text)

    @classmethod
    def load(cls, path):
        with open(path) as file:
            return cls(file.read())


def test_results_are_anything_that_can_be_saved_and_loaded(tmp_path):
    net, x = linear(1.0), torch.eye(2)
    attribute = lambda row: Saliency(net)(row[None], 1)  # noqa: E731
    (made, _), (found, _) = quiet(attribute, x, folder=tmp_path), quiet(attribute, x, folder=tmp_path)
    assert isinstance(found, Attribution) and torch.equal(found.values, made.values)
    for _ in range(2):
        (result,) = quiet(OwnFormat, ["text"], folder=tmp_path)
        assert isinstance(result, OwnFormat) and result.text == "text"


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"3", b'[1, "a"]', b'{"a": 1}'])
def test_a_damaged_note_of_what_calls_change_is_made_again(tmp_path, content):
    assert quiet(Drawn(), [1], folder=tmp_path) == [1]
    (path,) = tmp_path.glob("*.changing.json")
    path.write_bytes(content)
    assert quiet(Drawn(), [1, 2], folder=tmp_path) == [1, 2]
    assert json.loads(path.read_text()) == sorted({"count", *(["a"] if content[:4] == b"[1, " else [])})


class Drawn:
    """A function that counts its calls."""

    def __init__(self):
        self.count = 0

    def __call__(self, item):
        self.count += 1
        return item


@pytest.mark.parametrize("function", [abs, OwnFormat])
def test_a_damaged_file_is_made_again(tmp_path, function):
    quiet(function, [-2 if function is abs else "text"], folder=tmp_path)
    (path,) = tmp_path.glob("*.result")
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :]
    for content in (b"", whole[:100], whole[:-1], flipped):
        path.write_bytes(content)
        quiet(function, [-2 if function is abs else "text"], folder=tmp_path)
        assert path.read_bytes() == whole


def test_what_cannot_be_told_apart_or_kept_is_refused(tmp_path):
    with open(os.devnull) as file, pytest.raises(ArgumentError, match="content of TextIOWrapper"):
        quiet(str, [file], folder=tmp_path)
    with pytest.raises(ArgumentError, match="content of generator"):
        quiet(str, [(x for x in ())], folder=tmp_path)
    with pytest.raises(ArgumentError, match="cannot be kept on disk"):
        quiet(lambda item: object(), [1], folder=tmp_path)
    assert not list(tmp_path.glob("*.result"))
    inside = []
    inside.append(inside)
    assert quiet(len, [inside], folder=tmp_path) == [1]


# ---------------------------------------------------------------- backends


class Sending:
    """A function that says in a folder how often it was sent."""

    def __init__(self, folder):
        self.folder = folder

    def __getstate__(self):
        (self.folder / f"{os.getpid()}-{threading.get_ident()}-{os.urandom(4).hex()}").touch()
        return self.__dict__

    def __call__(self, item):
        return item + 1


class Listing(LokyBackend):
    """A backend that hands over lists only, as Ray's does."""

    supports_return_generator = False


class ThreadsOfACluster(ThreadingBackend):
    """A backend that toumei does not know."""

    supports_return_generator = False


@pytest.mark.parametrize("backend", [Listing, ThreadsOfACluster])
@pytest.mark.parametrize("kept", [False, True])
def test_a_backend_without_generators_runs_a_sweep_and_gets_the_function_once(tmp_path, backend, kept):
    joblib.register_parallel_backend("no generators", backend)
    (tmp_path / "sent").mkdir()
    with joblib.parallel_config("no generators"):
        folder = tmp_path / "kept" if kept else None
        assert quiet(Sending(tmp_path / "sent"), range(20), jobs=2, folder=folder) == list(range(1, 21))
    assert len(list((tmp_path / "sent").iterdir())) == 1


def test_dask_gets_the_function_once(tmp_path):
    distributed = pytest.importorskip("distributed")
    cluster = dict(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None)
    with distributed.LocalCluster(**cluster) as local, distributed.Client(local):
        with joblib.parallel_config("dask"):
            assert quiet(Sending(tmp_path), range(30), jobs=-1) == list(range(1, 31))
    assert len(list(tmp_path.iterdir())) == 1
