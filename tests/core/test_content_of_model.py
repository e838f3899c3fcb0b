"""What the results of a model depend on: its weights, buffers, settings and code, and nothing else."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from toumei.core import sweep
from toumei.core.content import content_hash, content_of_model


class Power(nn.Module):
    """A module with a parameter, a setting, and a buffer that is in no state dict."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.exponent, self.calls, self.change = 2, [], None
        self.register_buffer("offset", torch.zeros(3), persistent=False)

    def forward(self, given):
        return self.weight * given**self.exponent + self.offset


class Task:
    """A function of a sweep that says what counts of it."""

    def __init__(self, model):
        self.model = model

    @property
    def sweep_content(self):
        return content_of_model(self.model)

    def __call__(self, item):
        return self.model(item)


def other_code(model):
    kind = type("Power", (Power,), {"forward": lambda self, given: self.weight * given})
    kind.__qualname__, kind.__module__ = Power.__qualname__, Power.__module__
    model.__class__ = kind


def other_weight(model):
    model.weight.data[1] = 2


def other_setting(model):
    model.exponent = 3


def other_buffer(model):
    model.offset += 1


def other_function(model):
    model.change = lambda given: given + 1


OTHERS = [other_code, other_weight, other_setting, other_buffer, other_function]


@pytest.mark.parametrize("change", OTHERS)
def test_other_models_never_get_the_results_of_this_one(change, tmp_path):
    def made(model):
        found = sweep(Task(model), [torch.full((3,), 3.0)], folder=tmp_path, verbose=False)
        assert torch.equal(found[0], model(torch.full((3,), 3.0)))
        return len(list(tmp_path.glob("*.result")))

    model = Power()
    assert made(model) == 1 and made(deepcopy(model).eval()) == 1
    change(other := deepcopy(model))
    assert made(other) == 2 and made(model) == 2


@pytest.mark.parametrize("kind", ["longdouble", "clongdouble", [("flag", "i1"), ("number", "f8")]])
def test_what_fills_the_gaps_between_numbers_does_not_count(kind):
    kind = np.dtype(kind, align=True)
    one, other = (np.frombuffer(bytes([filling]) * (3 * kind.itemsize), kind).copy() for filling in (0, 255))
    for array in (one, other):
        if kind.names:
            array["flag"], array["number"] = [1, 2, 3], [0.5, 1, 2]
        else:
            array[:] = [0.1, 1e-30, 2]
    assert content_hash(one) == content_hash(other) and content_hash(one[0]) == content_hash(other[0])
    assert content_hash(one) != content_hash(one[::-1]) and content_hash(one[0]) != content_hash(one[1])
