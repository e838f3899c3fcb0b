import warnings

import pytest
import torch
from adding_up import COLUMNS, ROWS, WEIGHT, check, pair
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from toumei.attribution.propagation.engine import propagate
from toumei.core.errors import ArgumentError

UNKNOWN = {
    "cummax": lambda x: x.cummax(1).values,
    "cummin": lambda x: x.cummin(1).values,
    "logcumsumexp": lambda x: x.logcumsumexp(1),
    "norm": lambda x: x.norm(p=0, dim=1),
    "linalg_norm": lambda x: torch.linalg.norm(x, ord=2),
    "lp_pool1d": lambda x: F.lp_pool1d(x, torch.inf, 2),
    "logsumexp": lambda x: x.logsumexp((0, 1)),
    "div": lambda x: torch.div(x, x.roll(1, 1), rounding_mode="floor"),
    "where": lambda x: torch.where(x > 0, x, 2 * x),
    "getitem": lambda x: x[:, x.sum(0).argsort()],
    "masked_fill": lambda x: x.masked_fill(x > 0, 1.0),
    "dropout": lambda x: F.dropout(x, 0.5),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "grid_sample": lambda x: F.grid_sample(x[None, None], x.reshape(1, ROWS, -1, 2), align_corners=True),
    "pow": lambda x: x.abs() ** x,
    "einsum": lambda x: torch.einsum("ij,ij,ij->i", x, x, x),
    "max_unpool2d": lambda x: F.max_unpool2d(*F.max_pool2d(x[None], 1, return_indices=True), 1),
    "gelu' under torch.vmap": lambda x: torch.vmap(F.gelu)(x),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
    "scaled_dot_product_attention' with a mask": lambda x: F.scaled_dot_product_attention(
        x, x, x, x @ x.T > 0
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_no_rule_covers_is_named(name):
    x, x0 = pair(ROWS, COLUMNS)
    with pytest.raises(ArgumentError, match=f"no rule for '{name}"):
        propagate(UNKNOWN[name], (x.requires_grad_(),), (x0,))


def test_what_no_rule_covers_passes_by_its_gradient_with_a_warning_on_request():
    x, x0 = pair(ROWS, COLUMNS)
    x.requires_grad_()
    with pytest.warns(UserWarning, match="no rule for 'cummax'"):
        y, _ = propagate(lambda tensor: tensor.cummax(1).values, (x,), (x0,), "warn")
    (multiplier,) = torch.autograd.grad(y.sum(), x)
    (gradient,) = torch.autograd.grad(x.cummax(1).values.sum(), x)
    torch.testing.assert_close(multiplier, gradient)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


@pytest.fixture
def traced():
    """A square made by TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        yield torch.jit.trace(torch.square, torch.ones(2, dtype=torch.float64))


def test_functions_that_are_none_of_torch_are_named(traced):
    x, x0 = pair(ROWS, COLUMNS)
    x.requires_grad_()
    for function, name in ((Square.apply, "'Square'"), (traced, "'PowBackward0'")):
        for way in (
            function,
            lambda tensor, function=function: function(tensor.tanh()).sum(1) + tensor[:, 0],
        ):
            with pytest.raises(ArgumentError, match=f"no rule for {name}"):
                propagate(way, (x,), (x0,))
            with pytest.warns(UserWarning, match=f"no rule for {name}"):
                propagate(way, (x,), (x0,), "warn")


def test_functions_that_are_none_of_torch_are_no_matter_where_the_output_does_not_depend_on_them(traced):
    check(lambda x: x.tanh() + Square.apply(WEIGHT[:ROWS]) + traced(WEIGHT[:ROWS]))
    check(lambda x: (Square.apply(x), traced(x), x.tanh())[2])


def test_an_operation_without_a_rule_that_the_output_does_not_depend_on_is_no_matter():
    check(lambda x: x.tanh() + WEIGHT[:ROWS].cumprod(1) + WEIGHT[:ROWS].sort(1).values)


def test_another_way_at_the_baseline_is_an_error():
    def branching(x):
        return x.tanh() if float(x.detach().sum()) > 0 else x.sigmoid()

    with pytest.raises(ArgumentError, match="another way at the baseline"):
        propagate(branching, (torch.ones(2, 2, requires_grad=True),), (-torch.ones(2, 2),))


def test_inputs_and_baselines_are_left_as_they_are():
    x, x0 = pair(ROWS, COLUMNS)
    kept, kept0 = x.clone(), x0.clone()
    propagate(nn.ReLU(inplace=True), (x.requires_grad_(),), (x0,))
    assert torch.equal(x, kept) and torch.equal(x0, kept0)


def test_what_runs_again_in_the_backward_pass_is_an_error():
    block = nn.Sequential(nn.Linear(COLUMNS, 3), nn.GELU()).double()
    x, x0 = pair(ROWS, COLUMNS)
    with pytest.raises(ArgumentError, match="switch gradient checkpointing off"):
        propagate(lambda x: checkpoint(block, x.tanh(), use_reentrant=False), (x.requires_grad_(),), (x0,))


def test_numbers_may_be_drawn_in_place_and_layers_made_on_the_way():
    def function(x):
        torch.manual_seed(0)
        noise = torch.empty_like(x.detach()).normal_()
        return nn.Linear(COLUMNS, 4).double()(x.tanh() + noise)

    check(function)


def test_parameters_that_are_none_of_the_network_do_not_depend_on_the_input():
    weight, bias, slope = (
        nn.Parameter(values) for values in (WEIGHT[0].clone(), WEIGHT[1].clone(), WEIGHT[2, :1].clone())
    )
    check(lambda x: F.layer_norm(x, (COLUMNS,), weight, bias))
    check(lambda x: F.batch_norm(x, WEIGHT[3], WEIGHT[4].square(), weight, bias))
    check(lambda x: F.prelu(x, slope))
    check(lambda x: x.sin() * weight.exp())
