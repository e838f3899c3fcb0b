"""Networks that are known to say the same twice, by what they are made of."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils import parametrizations

from toumei.attribution import GradCam, Saliency
from toumei.core import hooked
from toumei.core.functions import intercepted
from toumei.core.repeats import _DRAWING, _ROOMS, always_repeats, repeat_gap

CLASSIFIERS = [
    f"torchvision.models.{path.stem}" for path in Path(torchvision.models.__path__[0]).glob("*.py")
]
DRAWS = ("rand", "bernoulli", "multinomial", "normal", "uniform", "exponential", "permutation")
ELSEWHERE = ("self.", "nn.init.", "init.")  # submodules and methods are looked at themselves


class Subclass(nn.Sequential):
    """Its forward is that of torch, but somebody could write another."""


def network():
    return nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2)).eval()


def methods(module):
    """The methods of the classes in a file, but not of those that draw."""
    for node in ast.walk(ast.parse(inspect.getsource(import_module(module)))):
        if isinstance(node, ast.ClassDef) and node.name not in [kind.__name__ for kind in _DRAWING]:
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name != "__init__":
                    yield node.name, method


@pytest.mark.parametrize("module", [*sorted(_ROOMS), *sorted(CLASSIFIERS)])
def test_known_modules_neither_draw_nor_keep_anything(module):
    for name, method in methods(module):
        for node in ast.walk(method):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else "self."
            if not called.startswith(ELSEWHERE):
                function = called.rpartition(".")[2]
                draws = function.startswith(DRAWS) or "dropout" in function or "stochastic" in function
                assert not draws or "training" in ast.unparse(node), (name, function)
            stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            assert not (stored and method.name == "forward" and ast.unparse(node).startswith("self.")), name


def test_networks_of_modules_of_torch_are_known():
    assert always_repeats(network())
    assert always_repeats(torchvision.models.resnet18().eval())
    assert always_repeats(
        torchvision.models.VisionTransformer(
            image_size=8, patch_size=4, num_layers=1, num_heads=1, hidden_dim=4, mlp_dim=4
        ).eval()
    )


def test_what_anybody_put_into_a_network_makes_it_unknown(watched):
    net = watched(network())
    assert not always_repeats(Subclass(*net))
    assert not always_repeats(network().train())
    assert not always_repeats(nn.Sequential(nn.FractionalMaxPool2d(2, output_size=3)).eval())
    assert not always_repeats(nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2))).eval())
    with hooked(net, edit={"0": torch.abs}):
        assert not always_repeats(net)
        net(torch.ones(1, 4))
    with hooked(net, edit={"0/linear": torch.abs}):
        assert not always_repeats(net)
        net(torch.ones(1, 4))
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert not always_repeats(net)
    handle.remove()
    assert always_repeats(net)


def passes(call):
    """How often a call runs the linear layer."""
    found = []

    def note(function, args, kwargs):
        found.extend([function] * (function is nn.functional.linear))
        return function(*args, **kwargs)

    with intercepted(note):
        result = call()
    assert result.repeat_gap == 0
    return len(found)


@pytest.mark.parametrize(("rows", "expected"), [(1, 1), (3, 2)])
def test_a_row_of_a_known_network_passes_once(rows, expected):
    layers = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    x = torch.rand(rows, 3, 6, 6)
    assert passes(lambda: Saliency(nn.Sequential(*layers))(x, 1)) == expected
    assert passes(lambda: Saliency(Subclass(*layers))(x, 1)) == 2
    assert passes(lambda: Saliency(nn.Sequential(*layers))(x, lambda out: out[:, 0] + 0)) == 2
    assert passes(lambda: Saliency(nn.Sequential(*layers), None, nn.Identity())(x, 1)) == 2
    first = passes(lambda: GradCam(nn.Sequential(*layers), "0")(x, 1))
    assert first == passes(lambda: GradCam(Subclass(*layers), "0")(x, 1)) - (rows == 1)


def test_gaps_are_those_of_more_than_rounding():
    ones = torch.ones(3)
    assert repeat_gap(ones, ones.clone()) == repeat_gap(ones, ones + 1e-6) == 0
    assert repeat_gap(ones, ones + 1e-3) == pytest.approx(1e-3, rel=1e-3)
    assert repeat_gap(ones, torch.ones(2)) == float("inf")
    assert repeat_gap(torch.tensor([torch.nan, 1.0]), torch.tensor([torch.nan, 1.0])) == 0
