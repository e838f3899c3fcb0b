"""One name for each function of torch: what torch documents as an alias, and nothing else, shares it."""

import operator
import re
from collections import defaultdict

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.overrides import get_testing_overrides, resolve_name

from toumei.core.function_kinds import ELEMENTWISE, PROPERTIES, rectifier_ceiling
from toumei.core.functions import (
    FunctionMode,
    canonical_name,
    intercepted,
    overwrites,
    returns_indices,
    tensors_among,
)
from toumei.core.untracked import Untracked, transformed

HOMES = {
    "torch": torch,
    "torch.Tensor": Tensor,
    "torch.nn.functional": F,
    "torch.linalg": torch.linalg,
    "torch.special": torch.special,
}
ALIAS = re.compile(r"Alias (?:for|of) :(?:func|meth|attr):`~?\.?([\w.]+)`")
VARIANT = re.compile(r"In-place version of :(?:func|meth):`~?\.?([\w.]+)`")


def documented(pattern):
    """The pairs of a function and what its documentation says it is."""
    for home, where in HOMES.items():
        for name in dir(where):
            function = getattr(where, name)
            found = pattern.search(str(getattr(function, "__doc__", None)))
            if not callable(function) or not found or name.startswith("_"):
                continue
            path = found[1] if found[1].startswith("torch.") else f"{home}.{found[1].removeprefix('Tensor.')}"
            *parts, last = path.split(".")
            other = getattr(HOMES.get(".".join(parts)), last, None) or getattr(torch, last, None)
            if callable(other):
                yield f"{home}.{name}", function, other


ALIASES, VARIANTS = list(documented(ALIAS)), list(documented(VARIANT))


def test_torch_documents_many_aliases():
    assert len(ALIASES) > 60 and len(VARIANTS) > 60


@pytest.mark.parametrize(("function", "other"), [pair[1:] for pair in ALIASES], ids=[a[0] for a in ALIASES])
def test_aliases_that_torch_documents_have_one_name(function, other):
    assert canonical_name(function)[0] == canonical_name(other)[0]


@pytest.mark.parametrize(("function", "other"), [v[1:] for v in VARIANTS], ids=[v[0] for v in VARIANTS])
def test_variants_in_place_that_torch_documents_have_the_name_of_the_others(function, other):
    if function in (Tensor.bernoulli_, Tensor.normal_):
        return  # which are functions of other arguments
    assert canonical_name(function) == (canonical_name(other)[0], True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.div, Tensor.__rtruediv__),
        (torch.sub, torch.rsub),
        (Tensor.__sub__, Tensor.__rsub__),
        (torch.pow, Tensor.__rpow__),
        (torch.pow, torch.float_power),
        (Tensor.__mod__, Tensor.__rmod__),
        (Tensor.__floordiv__, Tensor.__rfloordiv__),
        (Tensor.__lshift__, Tensor.__rlshift__),
        (torch.matmul, Tensor.__rmatmul__),
        (torch.norm, torch.linalg.norm),
        (torch.cross, torch.linalg.cross),
        (torch.qr, torch.linalg.qr),
        (torch.svd, torch.linalg.svd),
        (torch.lu_solve, torch.linalg.lu_solve),
        (Tensor.bool, Tensor.__bool__),
        (Tensor.float, Tensor.__float__),
        (Tensor.nonzero, Tensor.__nonzero__),
        (Tensor.normal_, torch.normal),
        (Tensor.bernoulli_, torch.bernoulli),
        (Tensor.requires_grad_, Tensor.requires_grad.__get__),
        (Tensor.data.__get__, Tensor.data.__set__),
        (torch.max, torch.maximum),
        (F.max_pool2d, F.adaptive_max_pool2d),
        (F.max_pool2d, F.fractional_max_pool2d),
        (torch.abs, torch._foreach_abs),
        (torch.hstack, torch.vstack),
    ],
    ids=lambda function: resolve_name(function) or function.__name__,
)
def test_other_functions_have_other_names(one, other):
    assert canonical_name(one)[0] != canonical_name(other)[0]


def groups():
    """The functions of torch that take and give tensors, by their name."""
    found = defaultdict(list)
    functions = [*get_testing_overrides(), *vars(torch.special).values(), *vars(torch.linalg).values()]
    for function in functions:
        if callable(function):
            found[canonical_name(function)[0]].append(function)
    # losses of `torch` take the reduction as a number, and another one by default
    found = {
        name: members for name, members in found.items() if not name.endswith(("loss", "kl_div", "logits"))
    }
    return {name: members for name, members in found.items() if len(members) > 1}


def outcome(function, count):
    """What a function makes of square matrices, and whether it overwrites the first; None if it fails."""
    tensors = [torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(count)]
    before = tensors[0].clone()
    try:
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(0)
            value = function(*tensors).clone().double()
    except Exception:  # other arguments are wanted
        return None
    return value, not torch.equal(tensors[0], before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", [1, 2, 3])
def test_functions_of_one_name_do_the_same(count):
    compared = 0
    for name, members in groups().items():
        outcomes = {function: outcome(function, count) for function in members}
        outcomes = {function: found for function, found in outcomes.items() if found is not None}
        values = [value for value, _ in outcomes.values()]
        for value in values[1:]:
            torch.testing.assert_close(value, values[0], equal_nan=True, msg=f"{name}: {list(outcomes)}")
            compared += 1
        for function, (_, overwritten) in outcomes.items():
            assert canonical_name(function)[1] or not overwritten, f"{function} works in place"
    assert compared > 10


def seen(function, *args):
    """The names of the functions that a call hands to a mode, in order."""
    names = []

    def handler(called, args, kwargs):
        names.append((canonical_name(called)[0], overwrites(called, kwargs)))
        return called(*args, **kwargs)

    with FunctionMode(handler):
        function(*args)
    return names


def x():
    return torch.ones(2, 3, 8, 8)


CALLS = {
    "max_pool2d": (lambda x: F.max_pool2d(x, 2), lambda x: F.max_pool2d(x, 2, return_indices=True)),
    "max_pool1d": (
        lambda x: torch.max_pool1d(x[0], 2),
        lambda x: F.max_pool1d(input=x[0], kernel_size=2, return_indices=True),
    ),
    "fractional_max_pool2d": (
        lambda x: F.fractional_max_pool2d(x, 2, 2),
        lambda x: F.fractional_max_pool2d(x, 2, 2, return_indices=True),
    ),
    "adaptive_max_pool2d": (
        lambda x: F.adaptive_max_pool2d(x, 2),
        lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True),
    ),
    "threshold": (lambda x: F.threshold(x, 0, 0), lambda x: torch.threshold(x, 0, 0), nn.Threshold(0.0, 0.0)),
    "relu": (F.relu, torch.relu, Tensor.relu, torch.ops.aten.relu, torch.ops.aten.relu.default, nn.ReLU()),
    "log_sigmoid": (F.logsigmoid, nn.LogSigmoid()),
    "sigmoid": (torch.special.expit, torch.sigmoid, F.sigmoid),
    "rsub": (lambda x: 1 - x, lambda x: torch.rsub(x, 1)),
    "rdiv": (lambda x: 1 / x,),
    "mul": (lambda x: x * 2, lambda x: 2 * x, lambda x: x.multiply(2), lambda x: torch.multiply(x, 2)),
    "shape": (lambda x: x.shape,),
    "mT": (lambda x: x.mT,),
    "dim": (lambda x: x.ndim, lambda x: x.dim()),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_mode_sees_one_name_however_a_function_is_called(name):
    for function in CALLS[name]:
        assert (name, False) == seen(function, x())[-1]


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", lambda x: F.relu(x, True)),
        ("relu", torch.relu_),
        ("relu", nn.ReLU(inplace=True)),
        ("clamp", lambda x: x.clip_(0)),
        ("add", lambda x: operator.iadd(x, 1)),
        ("div", lambda x: operator.itruediv(x, 1)),
        ("pow", lambda x: operator.ipow(x, 2)),
        ("setitem", lambda x: operator.setitem(x, 0, 1.0)),
        ("threshold", nn.Threshold(0.1, 2.0, inplace=True)),
        ("relu", torch.ops.aten.relu_.default),
    ],
)
def test_a_mode_sees_what_works_in_place(name, function):
    assert (name, True) == seen(function, x())[-1]


def test_operators_that_fx_traces_have_the_names_of_methods():
    def forward(x):
        return (x & 1) + (x | 2) - x // 3 + -x % 5 + (x**2 / 7 @ x)[0] + ~x

    graph = fx.symbolic_trace(forward).graph
    names = [canonical_name(node.target)[0] for node in graph.nodes if node.op == "call_function"]
    assert sorted(set(names)) == sorted(
        {
            *("bitwise_and", "bitwise_or", "bitwise_not", "floor_divide", "remainder"),
            *("neg", "pow", "div", "matmul", "getitem", "add", "sub"),
        }
    )


def test_names_of_methods_do_as_well_as_functions():
    for name in dir(torch._C.TensorBase):
        function = getattr(torch._C.TensorBase, name)
        if (
            callable(function)
            and getattr(function, "__name__", "") == name
            and not isinstance(function, type)
        ):
            assert canonical_name(name) == canonical_name(function)


def test_properties_of_tensors_are_known():
    assert {"shape", "dtype", "device", "T", "mT", "data", "grad_fn", "is_cuda", "size", "dim"} <= PROPERTIES
    assert not PROPERTIES & ELEMENTWISE


def test_other_libraries_keep_their_functions_apart():
    library = torch.library.Library("toumei_test", "DEF")
    library.define("relu(Tensor x) -> Tensor")
    assert canonical_name(torch.ops.toumei_test.relu) == ("toumei_test_relu", False)
    assert canonical_name(torch.ops.toumei_test.relu.default) == ("toumei_test_relu", False)


def test_poolings_tell_whether_they_return_indices():
    assert returns_indices(F.max_pool2d_with_indices, {})
    assert returns_indices(F.max_pool2d, {"return_indices": True})
    assert not returns_indices(F.max_pool2d, {"return_indices": False})


CEILINGS = {
    "relu": (
        lambda x: torch.relu(x),
        lambda x: x.clip(0),
        lambda x: x.clamp(min=0),
        lambda x: x.clamp_min(0),
    ),
    "threshold": (lambda x: F.threshold(x, 0, 0), lambda x: torch.clip(x, 0.0, None)),
    "relu6": (F.relu6, nn.ReLU6(), lambda x: x.clamp(0, 6), lambda x: F.hardtanh(x, 0, 6)),
    "other": (
        *(lambda x: x.clamp(1, 6), lambda x: x.clamp(max=6), lambda x: x.clamp(min=torch.zeros(3))),
        *(F.hardtanh, lambda x: F.threshold(x, 0, 1), F.gelu, lambda x: x.clamp(0, -1)),
    ),
}


@pytest.mark.parametrize("kind", CEILINGS)
def test_rectifiers_that_cut_at_zero_are_told_by_their_arguments(kind):
    values = 10 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    for function in CEILINGS[kind]:
        found = []

        def handler(called, args, kwargs, found=found):
            found.append(rectifier_ceiling(canonical_name(called)[0], args, kwargs))
            return called(*args, **kwargs)

        with FunctionMode(handler):
            output = function(values)
        if kind == "other":
            assert set(found) == {None}
        else:
            assert found == [6.0 if kind == "relu6" else float("inf")]
            assert torch.equal(output, values.clamp(0, found[0]))


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


def test_custom_functions_are_untracked_and_functions_of_torch_are_not():
    untracked, leaf = Untracked(), torch.ones(2, requires_grad=True)

    def handler(function, args, kwargs):
        with untracked:
            return function(*args, **kwargs)

    with FunctionMode(handler):
        plain, custom = leaf.exp().sum(), Square.apply(leaf.exp()).sum()
    assert untracked.described(plain) == "" and untracked.among(custom) == ["Square"]
    assert untracked.described(custom).startswith("'Square' (of TorchScript, or a custom function")


def test_transforms_hide_what_depends_on_a_leaf():
    found = []
    torch.vmap(lambda x: found.append(transformed((1, [x]))) or x)(torch.ones(2, requires_grad=True))
    torch.vmap(lambda x: found.append(transformed((1, [x]))) or x)(torch.ones(2))
    assert found == [True, False]


def test_tensors_are_found_in_lists_and_tuples():
    one, two = torch.ones(1), torch.zeros(1)
    assert [id(tensor) for tensor in tensors_among((one, "text", [2, (two,)]))] == [id(one), id(two)]


def test_functions_are_heard_after_a_block_that_was_interrupted_while_a_handler_did_not_listen():
    with (
        pytest.raises(KeyboardInterrupt),
        intercepted(lambda function, args, kwargs: function(*args, **kwargs)),
    ):
        torch._C.DisableTorchFunction().__enter__()
        raise KeyboardInterrupt
    assert torch._C._is_torch_function_enabled()
