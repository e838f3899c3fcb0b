"""Sharpness, tangent kernels and ranks against closed forms of linear models."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from toumei.core.errors import ArgumentError, ShapeError
from toumei.misc.rank import effective_rank, participation_ratio
from toumei.misc.sharpness import hessian_trace, perturbation_sharpness, top_eigenvalue
from toumei.misc.tangent_kernels import kernel_distance, kernel_velocity, neural_tangent_kernel
from toumei.models import SimpleMLP


@pytest.fixture
def regression(watched):
    """A linear regression in float64; the Hessian over its weights is 2 X'X / N."""
    torch.manual_seed(0)
    model = watched(nn.Linear(6, 1).double())
    inputs = torch.randn(200, 6, dtype=torch.float64) * torch.arange(1, 7)
    return model, inputs, torch.randn(200, 1, dtype=torch.float64), 2 * inputs.T @ inputs / 200


def test_the_loss_of_a_regression_rises_by_half_the_variance_times_the_trace(regression):
    model, inputs, targets, hessian = regression
    result = perturbation_sharpness(model, F.mse_loss, inputs, targets, (0.01, 0.1), samples=400)
    expected = result.sigmas.square() / 2 * hessian.trace()
    assert ((result.rise - expected).abs() < 4 * result.standard_error).all()
    assert (result.standard_error < 0.1 * expected).all()
    # all sizes share their draws, and pairs cancel the slope: in a quadratic the rises are exact multiples
    assert result.rise[1] / result.rise[0] == pytest.approx(100, rel=1e-6)
    assert result.loss == pytest.approx(F.mse_loss(model(inputs), targets).item())
    assert result.plot().get_ylabel().startswith("rise of the loss") and "rises by" in repr(result)


def test_trace_and_top_eigenvalue_of_a_regression(regression):
    model, inputs, targets, hessian = regression
    trace, error = hessian_trace(model, F.mse_loss, inputs, targets, samples=200)
    assert abs(trace - hessian.trace()) < 4 * error and 0 < error < 0.1 * trace
    top = top_eigenvalue(model, F.mse_loss, inputs, targets, tolerance=1e-9, steps=500)
    assert top == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item(), rel=1e-4)


def test_one_seed_one_sharpness(watched):
    model, inputs = watched(SimpleMLP(4, 8, 3)), torch.randn(20, 4)
    targets = torch.randint(3, (20,))
    first, again = (
        perturbation_sharpness(model, F.cross_entropy, inputs, targets, 0.1, seed=5) for _ in range(2)
    )
    assert torch.equal(first.rise, again.rise)


def test_the_kernel_of_a_linear_model_is_that_of_its_inputs():
    inputs, others = torch.randn(5, 3), torch.randn(4, 3)
    expected = inputs @ others.T + 1  # the bias
    for outputs in ("trace", "sum"):
        kernel = neural_tangent_kernel(nn.Linear(3, 1), inputs, others, outputs=outputs, batch_size=2)
        torch.testing.assert_close(kernel, expected)


def test_the_kernel_is_the_product_of_gradients(watched):
    model, inputs = watched(SimpleMLP(3, 6, 2)), torch.randn(4, 3)
    gradients = []
    for single in inputs:
        for output in model(single[None])[0]:
            gradients.append(
                torch.cat(
                    [g.flatten() for g in torch.autograd.grad(output, model.parameters(), retain_graph=True)]
                )
            )
    full = (torch.stack(gradients) @ torch.stack(gradients).T).reshape(4, 2, 4, 2).permute(0, 2, 1, 3)
    torch.testing.assert_close(neural_tangent_kernel(model, inputs, outputs="full"), full)
    torch.testing.assert_close(neural_tangent_kernel(model, inputs), full.diagonal(dim1=2, dim2=3).mean(2))
    torch.testing.assert_close(neural_tangent_kernel(model, inputs, outputs="sum"), full.sum((2, 3)))


def test_distances_of_kernels():
    first, second = torch.eye(3), torch.ones(3, 3)
    assert kernel_distance(first, second) == pytest.approx(1 - 3 / (3**0.5 * 3))
    assert kernel_velocity([first, first, second]) == [0.0, kernel_distance(first, second)]
    with pytest.raises(ShapeError, match="one shape"):
        kernel_distance(first, torch.eye(2))
    with pytest.raises(ArgumentError, match="at least two kernels"):
        kernel_velocity([first])


def test_ranks_count_the_dimensions_that_are_used():
    base = torch.linalg.qr(torch.randn(100, 5)).Q
    embedded = base @ torch.linalg.qr(torch.randn(12, 5)).Q.T
    assert effective_rank(embedded) == pytest.approx(5, rel=1e-4)
    assert participation_ratio(embedded, centred=False) == pytest.approx(5, rel=1e-4)
    shares = torch.tensor([3.0, 1.0]) / 4
    activation = torch.diag(torch.tensor([3.0, 1.0]))
    assert effective_rank(activation) == pytest.approx(
        (-(shares * shares.log()).sum()).exp().item(), rel=1e-6
    )
    assert participation_ratio(activation, centred=False) == pytest.approx(100 / 82, rel=1e-6)
    maps = embedded.reshape(4, 25, 12).movedim(2, 1).reshape(4, 12, 5, 5)
    assert effective_rank(maps) == pytest.approx(effective_rank(embedded), rel=1e-5)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: effective_rank(torch.zeros(3, 2)), "zeros has no rank"),
        (lambda: neural_tangent_kernel(nn.ReLU(), torch.ones(2, 3)), "ReLU has no parameters"),
        (
            lambda: neural_tangent_kernel(nn.Linear(3, 1), torch.ones(2, 3), outputs="all"),
            "outputs is one of",
        ),
        (
            lambda: perturbation_sharpness(nn.ReLU(), F.mse_loss, torch.ones(1), torch.ones(1)),
            "no weights to",
        ),
        (
            lambda: hessian_trace(nn.Linear(1, 1), F.mse_loss, torch.ones(1), torch.ones(1), samples=1),
            "2 samples",
        ),
    ],
)
def test_bad_arguments_say_what_is_wrong(action, message):
    with pytest.raises(ArgumentError, match=message):
        action()
