import math

import pytest
import torch
from torch.nn import functional as F

from toumei.attribution.propagation import rules


def pair(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, x0 = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), x0


def explained(y, x, x0, weights):
    """What multipliers say the change of a weighted sum of y is."""
    (multiplier,) = torch.autograd.grad((y * weights).sum(), x)
    return (multiplier * (x - x0)).sum().detach()


@pytest.mark.parametrize("function", [torch.relu, torch.tanh, torch.exp, torch.abs, torch.nn.functional.gelu])
def test_rescale_gives_the_slope_of_the_chord(function):
    x, x0 = pair(50)
    y = rules.rescale(function, x, x0)
    assert torch.equal(y, function(x))
    (multiplier,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(multiplier * (x.detach() - x0), (function(x) - function(x0)).detach())


def test_rescale_gives_the_derivative_where_nothing_changes():
    x = torch.tensor([0.3, -2.0], dtype=torch.float64, requires_grad=True)
    (multiplier,) = torch.autograd.grad(rules.rescale(torch.tanh, x, x.detach().clone()).sum(), x)
    torch.testing.assert_close(multiplier, 1 - x.detach().tanh().square())


CURVES = (
    *(torch.relu, torch.tanh, torch.sigmoid, torch.abs, torch.square, torch.log1p, torch.sin, torch.rsqrt),
    *(F.gelu, F.silu, F.leaky_relu, F.hardswish, F.elu, F.softshrink, F.softplus, torch.sqrt, torch.log),
)
POSITIVE = (torch.log1p, torch.rsqrt, torch.sqrt, torch.log)


@pytest.mark.parametrize("function", CURVES, ids=lambda tensor: tensor.__name__)
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_rescale_adds_up_whatever_the_scale_and_however_near_the_inputs_are(function, scale, kind):
    x, x0 = pair(40, 30)
    x, x0 = (tensor.detach().to(kind) * scale for tensor in (x, x0))
    steps = torch.arange(30).to(kind) - 15
    x0[20:] = x[20:] * (1 + steps * torch.finfo(kind).eps)
    if function in POSITIVE:
        x, x0 = x.abs(), x0.abs()
    y = rules.rescale(function, x.requires_grad_(), x0)
    (multiplier,) = torch.autograd.grad(y.sum(), x)
    y, y0, change = function(x).detach(), function(x0), multiplier * (x.detach() - x0)
    rounding = 8 * torch.finfo(kind).eps * torch.maximum(y.abs(), y0.abs())
    # an input that is known to its last digit says no more of a function that oscillates
    rounding += 8 * torch.finfo(kind).eps * x.detach().abs() * multiplier.abs()
    assert ((change - (y - y0)).abs() <= rounding).all()


@pytest.mark.parametrize("apart", [0.0, 1e-9, 1e-8, 1e-7])
def test_a_slope_that_rounding_hides_is_the_derivative(apart):
    x = torch.linspace(-1, 1, 9).requires_grad_()
    y = rules.rescale(torch.sigmoid, x, x.detach() + apart)
    (multiplier,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(multiplier, (y * (1 - y)).detach())


def test_a_jump_between_two_inputs_is_seen_however_near_they_are():
    x = torch.tensor([0.5 + 1e-7, 1e-30, 3.0], dtype=torch.float64).requires_grad_()
    x0 = torch.tensor([0.5 - 1e-7, -1e-30, 3.0], dtype=torch.float64)
    y = rules.rescale(torch.sign, x, x0, sharp=True) + rules.rescale(F.hardshrink, x, x0, sharp=True)
    (multiplier,) = torch.autograd.grad(y.sum(), x)
    expected = torch.tensor([0.5 + 1e-7, 2.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(multiplier * (x.detach() - x0), expected)


def test_infinite_inputs_and_slopes_change_nothing():
    x = torch.tensor([[-torch.inf, 0.0, 1.0], [2.0, 3.0, 4.0]], requires_grad=True)
    x0 = torch.tensor([[-torch.inf, 0.0, 2.0], [2.0, 1.0, 9.0]])
    (multiplier,) = torch.autograd.grad(rules.rescale(torch.exp, x, x0)[0, 0], x)
    assert torch.equal(multiplier, torch.zeros(2, 3))
    (multiplier,) = torch.autograd.grad(rules.rescale(torch.sqrt, x[:, 1:], x0[:, 1:]).sum(), x)
    expected = torch.tensor([[0.0, 0.0, 2**0.5 - 1], [0.0, (3**0.5 - 1) / 2, 0.2]])
    torch.testing.assert_close(multiplier, expected)


def test_what_works_in_place_is_rescaled_as_elsewhere():
    x, x0 = pair(100)
    x0[:10] = x.detach()[:10]
    written = x.clone()
    plain = rules.rescale(torch.relu, x, x0)
    there = rules.rescale(torch.relu_, written, x0.clone(), in_place=True)
    assert there is written and torch.equal(plain, there)
    weights = torch.arange(100.0)
    assert torch.equal(*(torch.autograd.grad((y * weights).sum(), x)[0] for y in (plain, there)))


def test_rescale_of_what_is_broadcast_against_another_argument():
    x, x0 = pair(4, 1)
    x0[1] = x.detach()[1]
    exponents = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    y = rules.rescale(lambda tensor: tensor**exponents, x, x0, alike=False)
    (multiplier,) = torch.autograd.grad((y * torch.arange(3.0)).sum(), x)
    expected = ((x**2 - x0**2 + 2 * (x**3 - x0**3)) / (x - x0)).detach()
    expected[1] = (2 * x + 6 * x**2)[1].detach()
    torch.testing.assert_close(multiplier, expected)


def test_a_product_gives_each_factor_half_of_what_both_change():
    (a, a0), (b, b0) = pair(seed=0), pair(seed=1)
    y = rules.product(torch.mul, a, b, a0, b0)
    to_a, to_b = torch.autograd.grad(y, (a, b))
    shapley_a = ((a - a0) * b0 + (a - a0) * b) / 2  # the mean over the two orders
    torch.testing.assert_close(to_a * (a - a0), shapley_a)
    torch.testing.assert_close(to_a * (a - a0) + to_b * (b - b0), a * b - a0 * b0)


def test_a_square_as_a_product_is_the_rescaled_square():
    x, x0 = pair(5)
    product = torch.autograd.grad(rules.product(torch.mul, x, x, x0, x0).sum(), x)[0]
    rescaled = torch.autograd.grad(rules.rescale(torch.square, x, x0).sum(), x)[0]
    torch.testing.assert_close(product, rescaled)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_softmaxes_add_up(name, axis):
    x, x0 = pair(4, 6)
    y, plain = getattr(rules, name)(x, x0, axis), getattr(torch, name)
    torch.testing.assert_close(y, plain(x, axis))
    weights = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    change = ((plain(x, axis) - plain(x0, axis)) * weights).sum().detach()
    torch.testing.assert_close(explained(y, x, x0, weights), change)


def test_softmax_is_invariant_to_a_shift_and_survives_large_numbers():
    x, x0 = pair(4, 6)
    (gradient,) = torch.autograd.grad(rules.softmax(x, x0, 1)[:, 0].sum(), x)
    (shifted,) = torch.autograd.grad(rules.softmax(x + 500, x0 - 300, 1)[:, 0].sum(), x)
    torch.testing.assert_close(gradient, shifted)
    far = torch.tensor([[2000.0, -2000.0, 0.0]], requires_grad=True)
    (multiplier,) = torch.autograd.grad(rules.softmax(far, torch.zeros(1, 3), 1)[0, 0], far)
    assert float((multiplier * far.detach()).sum()) == pytest.approx(2 / 3, abs=1e-4)


def test_the_logarithmic_mean_against_its_definition():
    a, b = torch.tensor([[3.0, 2.0, 1.0, 0.0], [1.0, 2.0, 0.0, 0.0]], dtype=torch.float64)
    mean = rules.logarithmic_mean(a.log(), b.log())
    expected = [2 / math.log(3), 2.0, 0.0, 0.0]
    torch.testing.assert_close(mean, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("size, stride", [(2, 2), (3, 2), (3, 1)])
def test_max_pools_add_up_also_where_windows_overlap(size, stride):
    x, x0 = pair(2, 3, 9, 9)

    def pool(tensor):
        return torch.nn.functional.max_pool2d(tensor, size, stride, return_indices=True)

    y = rules.max_pool(pool, x, x0)
    assert torch.equal(y, pool(x)[0])
    weights = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    change = ((y - pool(x0)[0]) * weights).sum().detach()
    torch.testing.assert_close(explained(y, x, x0, weights), change)


def test_a_rising_maximum_owes_it_to_its_place_and_a_falling_one_to_where_it_was():
    x = torch.tensor([[[1.0, 5.0, 2.0], [1.0, 0.0, 2.0]]], requires_grad=True)
    x0 = torch.tensor([[[3.0, 0.0, 0.0], [1.5, 4.0, 0.0]]])
    y = rules.max_pool(lambda tensor: tensor.max(2, keepdim=True), x, x0)
    (multiplier,) = torch.autograd.grad(y.sum(), x)
    expected = torch.tensor([[[0.0, 2.0, 0.0], [0.0, -2.0, 0.0]]])
    torch.testing.assert_close(multiplier * (x.detach() - x0), expected)


def test_a_maximum_that_stays_follows_its_place():
    x = torch.tensor([[[1.0, 5.0, 2.0], [4.0, 1.0, 0.0]]], requires_grad=True)
    x0 = torch.tensor([[[3.0, 5.0, 0.0], [1.0, 4.0, 2.0]]])
    y = rules.max_pool(lambda tensor: tensor.max(2, keepdim=True), x, x0)
    (multiplier,) = torch.autograd.grad(y.sum(), x)
    # in the second window another place has reached what the maximum was
    torch.testing.assert_close(multiplier, torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]))


BATCHED = {
    "rescale": lambda x, x0: rules.rescale(torch.tanh, x, x0),
    "rescale in place": lambda x, x0: rules.rescale(torch.tanh_, x * 1, x0.clone(), in_place=True),
    "product": lambda x, x0: rules.product(torch.matmul, x, x.mT, x0, x0.mT),
    "softmax": lambda x, x0: rules.softmax(x, x0, 1),
    "logsumexp": lambda x, x0: rules.logsumexp(x, x0, 1),
    "standardized": lambda x, x0: rules.standardized(x, x0, 1, 1e-5),
    "pool": lambda x, x0: rules.max_pool(
        lambda tensor: F.max_pool2d(tensor, 3, 2, return_indices=True), x, x0
    ),
}


@pytest.mark.parametrize("name", BATCHED)
def test_backward_passes_can_be_batched(name):
    x, x0 = pair(2, 3, 7, 7)
    y = BATCHED[name](x, x0)
    weights = torch.randn(4, *y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (together,) = torch.autograd.grad(y, x, weights, is_grads_batched=True, retain_graph=True)
    alone = [torch.autograd.grad(y, x, weight, retain_graph=True)[0] for weight in weights]
    torch.testing.assert_close(together, torch.stack(alone))
