"""Code and variables that are reached: another result is another version of an experiment or sweep."""

import importlib
import linecache
import sys

import pytest
import torch

from toumei.bench import Bench
from toumei.core import sweep

HELPERS = """
import functools
K = 2
def times(x): return x * K
class Base:
    def of_base(self): return 1
class Child(Base):
    def run(self): return self.of_base()
class Conf:
    def __init__(self): self.scale = 1
    def apply(self, x): return x * 1
def around(function):
    @functools.wraps(function)
    def wrapper(*args): return function(*args) * 1
    return wrapper
class Around:
    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function
        self.scale = 1 + 0
    def __call__(self, *args): return self.function(*args) * self.scale + 0
class Kind(type):
    def __call__(cls, *args): return 1
@functools.singledispatch
def by_type(x): return 0
@by_type.register
def _(x: int): return x * 1
class Whole(int):
    def scaled(self): return self * 1 + 4
def __getattr__(name):
    if name == "made_when_asked": return 1 + 5
    raise AttributeError(name)
conf = Conf()
table = {"times": times}
"""
MEASURES = """
import contextvars
import functools
import re
import types
import weakref
import torch
import helpers_of_test
from helpers_of_test import Around, Child, Conf, Kind, around, by_type, times
conf, K = Conf(), 10
whole = helpers_of_test.Whole(2)
modules = {"helpers": helpers_of_test}
pattern = re.compile("a+b")
kept = types.MappingProxyType({"a": 1 + 6})
pointed = weakref.ref(conf)
variable = contextvars.ContextVar("variable", default=1 + 7)
part = functools.partial(times, 3)
activation = torch.relu
@functools.cache
def cached(): return times(1)
@torch.no_grad()
def without_gradient(): return times(1)
class Runner:
    def go(self): return times(1)
    @property
    def value(self): return times(1)
class Net(torch.nn.Module):
    def forward(self, x): return x * 1
@around
def wrapped(): return 1
@Around
def wrapped_by_an_object(): return 1
class Made(metaclass=Kind): pass
class Dispatching:
    @functools.singledispatchmethod
    def of(self, x): return 0
    @of.register
    def _(self, x: int): return times(x)
def default(x, factor=K): return x * factor

def direct(): return times(1)
def both(): return times(1) + K
def of_module(): return helpers_of_test.times(1)
def inherited(): return Child().run()
def of_instance(): return conf.apply(1)
def of_instance_there(): return helpers_of_test.conf.apply(1)
def of_partial(): return part()
def of_table(): return helpers_of_test.table["times"](1)
@around
def decorated(): return 1
@Around
def decorated_by_an_object(): return 1
def calls_decorated_by_an_object(): return wrapped_by_an_object()
def of_a_subclass_of_int(): return whole.scaled()
def of_a_module_in_a_table(): return modules["helpers"].times(1)
def of_a_module_that_makes_names(): return helpers_of_test.made_when_asked
def of_a_pattern(): return bool(pattern.fullmatch("aab"))
def of_a_view(): return kept["a"]
def of_a_reference(): return pointed().apply(1)
def of_a_context(): return variable.get()
def of_metaclass(): return Made()
def of_type(): return by_type(1)
def of_type_in_a_class(): return Dispatching().of(1)
def calls_decorated(): return wrapped()
def calls_cached(): return cached.__wrapped__() + 0 * cached()
def calls_without_gradient(): return without_gradient()
def of_import():
    from helpers_of_test import times as again
    return again(1)
def of_import_of_module():
    import helpers_of_test as there
    return there.times(1)
def function_given(function=times): return function(2)
def object_given(given=conf): return given.apply(2)
def class_given(kind=Conf): return kind().apply(2)
def model_given(model=Net()): return model(1)
def inside():
    def inner(x): return times(x)
    return inner(2)
def of_lambda(): return (lambda x: times(x))(2)
def of_method(): return Runner().go()
def of_property(): return Runner().value
def of_installed(): return activation(torch.tensor(-1.0)).item()
def of_default(): return default(1)
def writes():
    global written
    written = 5
    return written
"""
CHANGES = {
    "nothing": ("", ""),
    "a helper": ("return x * K", "return x * K + 1"),
    "a number of the other module": ("K = 2", "K = 3"),
    "a number": ("conf, K = Conf(), 10", "conf, K = Conf(), 11"),
    "a base class": ("of_base(self): return 1", "of_base(self): return 2"),
    "a decorator": ("function(*args) * 1", "function(*args) * 2"),
    "a decorator that is an object": ("* self.scale + 0", "* self.scale + 1"),
    "an attribute of a decorator": ("self.scale = 1 + 0", "self.scale = 2 + 0"),
    "a method of a subclass of int": ("self * 1 + 4", "self * 2 + 4"),
    "a name that a module makes": ("return 1 + 5", "return 2 + 5"),
    "a pattern": ("a+b", "a{3}b"),
    "a view of a dictionary": ("1 + 6", "2 + 6"),
    "a variable of the context": ("1 + 7", "2 + 7"),
    "a metaclass": ("__call__(cls, *args): return 1", "__call__(cls, *args): return 2"),
    "a function for a type": ("x: int): return x * 1", "x: int): return x * 2"),
    "a method": ("apply(self, x): return x * 1", "apply(self, x): return x * 2"),
    "a model": ("forward(self, x): return x * 1", "forward(self, x): return x * 2"),
    "a function of a package": ("activation = torch.relu", "activation = torch.abs"),
}
NAMES = [
    line.split("(")[0][4:] for line in MEASURES.split("def default")[1].splitlines() if line[:3] == "def"
]


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = ("helpers_of_test", "measures_of_test")

    def loaded(old="", new=""):
        for name, text in zip(names, (HELPERS, MEASURES), strict=True):
            sys.modules.pop(name, None)
            (tmp_path / f"{name}.py").write_text(text.replace(old, new) if old else text)
            linecache.cache.pop(str(tmp_path / f"{name}.py"), None)
        importlib.invalidate_caches()
        return importlib.import_module("measures_of_test")

    yield loaded
    for name in names:
        sys.modules.pop(name, None)


def results(module):
    return {name: getattr(module, name)() for name in NAMES}


@pytest.mark.parametrize("change", CHANGES)
def test_another_result_is_another_version(load, tmp_path, change):
    bench = Bench(tmp_path / "bench")

    def versions(module):
        for name in NAMES:
            bench.log_experiment(getattr(module, name))()
        return {name: bench.runs(name)[-1].version for name in NAMES}

    module = load()
    before, first = results(module), versions(module)
    module = load(*CHANGES[change])
    after, second = results(module), versions(module)
    assert {name for name in NAMES if before[name] != after[name]} <= {
        name for name in NAMES if first[name] != second[name]
    }
    if change == "nothing":
        assert first == second == versions(module)
    else:
        assert before != after and any(first[name] == second[name] for name in NAMES)


@pytest.mark.parametrize("change", CHANGES)
def test_another_result_is_another_sweep(load, tmp_path, change):
    def swept(module):
        functions = {name: getattr(module, name) for name in NAMES}
        return {
            name: sweep(lambda _, function=function: function(), [0], folder=tmp_path / name, verbose=False)[
                0
            ]
            for name, function in functions.items()
        }

    module = load()
    before = results(module)
    assert swept(module) == before
    files = len(list(tmp_path.glob("*/*.result")))
    assert swept(module) == before and len(list(tmp_path.glob("*/*.result"))) == files == len(NAMES)
    module = load(*CHANGES[change])
    assert swept(module) == results(module)


def test_the_source_of_what_is_reached_is_kept(load, tmp_path):
    bench, module = Bench(tmp_path / "bench"), load()
    for name in ("of_instance", "model_given", "decorated", "both"):
        bench.log_experiment(getattr(module, name))()
    records = {name: bench.runs(name)[0].record for name in bench.list_experiments()}
    assert list(records["of_instance"]["helpers"]) == ["helpers_of_test.Conf"]
    assert "def forward" in records["model_given"]["helpers"]["Net"]
    assert ["* 1" in text for text in records["decorated"]["helpers"].values()] == [True]
    assert set(records["both"]["values"]) == {"K", "helpers_of_test.K"}


def test_a_module_that_is_imported_by_a_run_counts_for_this_run_too(load, tmp_path):
    bench, module = Bench(tmp_path / "bench"), load()
    measure = bench.log_experiment(module.of_import)
    sys.modules.pop("helpers_of_test")
    measure()
    measure()
    first, second = bench.runs("of_import")
    assert first.version == second.version and set(first.record["values"]) == {"helpers_of_test.K"}


def test_what_decorators_are_given_counts(tmp_path):
    def null():
        return 0.0

    def first():
        return torch.rand(()).item()

    def second():
        return torch.randn(()).item()

    def measure():
        return 1

    bench = Bench(tmp_path / "bench")
    for group, samples in ((first, 4), (first, 4), (second, 4), (first, 5)):
        bench.log_experiment(bench.test_hypothesis(null, group, samples)(measure))()
    versions = [run.version for run in bench.runs("measure")]
    assert versions[0] == versions[1] and len(set(versions)) == 3
    assert "n_samples" in str(bench.diff(versions[0], versions[3]))
