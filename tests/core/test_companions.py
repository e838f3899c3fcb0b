"""Seeds, optional packages, sweeps and outputs."""

import os
import random
import time
from collections import namedtuple

import numpy as np
import pytest
import torch

from toumei.core import main_tensor, make_generator, seeded, sweep, with_main_tensor
from toumei.core.errors import ArgumentError, MissingDependencyError, OutputError
from toumei.core.optional import require


def draws():
    return torch.rand(1).item(), random.random(), np.random.rand()


def test_a_seeded_block_repeats_and_leaves_the_global_state_alone():
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    expected = draws()
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    with seeded(5):
        first = draws()
    with pytest.raises(ZeroDivisionError), seeded(5):
        assert draws() == first
        raise ZeroDivisionError
    assert draws() == expected != first


def test_without_a_seed_the_global_state_moves_on():
    torch.manual_seed(1)
    with seeded(None):
        first = torch.rand(1)
    assert first != torch.rand(1) and make_generator(None) is None


def test_a_missing_package_says_how_to_get_it():
    with pytest.raises(
        MissingDependencyError, match="the atlas needs the package 'no_such_thing': pip install x"
    ):
        require("no_such_thing", "the atlas", "x")


def test_a_broken_package_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import no_such_thing")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_thing") as error:
        require("broken_package", "the test")
    assert not isinstance(error.value, MissingDependencyError)


class Counted:
    """A function that is interrupted after some calls, if the environment says so."""

    def __init__(self):
        self.calls = []

    def __call__(self, item):
        if len(self.calls) == int(os.environ.get("ALLOWED_CALLS", 9)):
            raise KeyboardInterrupt
        self.calls.append(item)
        return {"square": torch.tensor(item) ** 2, "item": item}


def test_a_killed_sweep_goes_on_where_it_was(tmp_path, monkeypatch):
    items = [1, 2, 3, 4]
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setenv("ALLOWED_CALLS", "2")
        sweep(Counted(), items, folder=tmp_path, verbose=False)
    rest = Counted()
    results = sweep(rest, items, folder=tmp_path, verbose=False)
    assert rest.calls == [3, 4]
    assert [result["square"].item() for result in results] == [1, 4, 9, 16]


def test_a_changed_item_is_computed_again(tmp_path):
    sweep(Counted(), [1, 2], folder=tmp_path, verbose=False)
    again = Counted()
    assert [r["item"] for r in sweep(again, [1, 5], folder=tmp_path, verbose=False)] == [1, 5]
    assert again.calls == [5]


def test_a_result_that_cannot_be_kept_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(ArgumentError, match="the result for 1 cannot be kept on disk"):
        sweep(lambda item: random.Random(item), [1], folder=tmp_path, verbose=False)
    assert not list(tmp_path.iterdir())


def test_processes_give_the_same_in_the_same_order():
    assert sweep(abs, range(-6, 0), jobs=2, verbose=False) == [6, 5, 4, 3, 2, 1]


class Heavy:
    """A function that says how often it arrived in another process."""

    def __init__(self, folder):
        self.folder = folder

    def __getstate__(self):
        (self.folder / f"sent {time.time_ns()}").touch()
        return self.__dict__

    def __setstate__(self, state):
        self.__dict__.update(state)
        (self.folder / f"arrived {os.getpid()} {time.time_ns()}").touch()

    def __call__(self, item):
        return item + 1


def test_a_function_is_written_once_and_read_once_by_each_process(tmp_path):
    assert sweep(Heavy(tmp_path), range(20), jobs=2, verbose=False) == list(range(1, 21))
    arrived = [path.name.split()[1] for path in tmp_path.glob("arrived*")]
    assert len(list(tmp_path.glob("sent*"))) == 1 and 1 <= len(arrived) == len(set(arrived)) <= 2


Pair = namedtuple("Pair", "first second")


@pytest.mark.parametrize(
    "output",
    [(None, torch.ones(1)), [torch.ones(1), 2], Pair(None, torch.ones(1)), {"a": 1, "b": torch.ones(1)}],
)
def test_replacing_the_main_tensor_keeps_the_rest(output):
    replaced = with_main_tensor(output, torch.zeros(2))
    assert type(replaced) is type(output) and torch.equal(main_tensor(replaced), torch.zeros(2))
    assert torch.equal(main_tensor(output), torch.ones(1))
    assert with_main_tensor(replaced, main_tensor(output)) == output


def test_logits_come_before_the_loss():
    assert main_tensor({"loss": torch.zeros(()), "logits": torch.ones(2)}).shape == (2,)


@pytest.mark.parametrize("output", [None, "text", (), {"a": 1}])
def test_an_output_without_tensors_is_refused(output):
    with pytest.raises(OutputError, match=type(output).__name__):
        main_tensor(output)
