import pytest
import torch

from toumei.attribution.base import backward


class Backward(torch.autograd.Function):
    """Twice the input, with a backward pass of one's own."""

    @staticmethod
    def forward(ctx, x, passed):
        ctx.passed = passed
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return ctx.passed(gradient), None


def scores_of(passed):
    leaf = torch.arange(6.0).reshape(2, 3).requires_grad_()
    return Backward.apply(leaf, passed), leaf


@pytest.mark.parametrize(
    "passed",
    [
        lambda gradient: 2 * gradient,
        lambda gradient: gradient * (2 if float(gradient.sum()) else 3),
        lambda gradient: torch.from_numpy(2 * gradient.numpy()),
        lambda gradient: torch.zeros(2, 3).add_(gradient, alpha=2),
    ],
    ids=["batched", "a choice", "numpy", "in place"],
)
def test_scores_pass_back_also_where_torch_cannot_batch_them(passed):
    scores, leaf = scores_of(passed)
    (gradients,) = backward.differentiate(scores, [leaf])
    assert torch.equal(gradients, 2 * torch.eye(3)[:, None].expand(3, 2, 3))


def test_what_is_wrong_in_a_backward_pass_is_said():
    def broken(gradient):
        raise RuntimeError("the disk is full")

    scores, leaf = scores_of(broken)
    with pytest.raises(RuntimeError, match="the disk is full"):
        backward.differentiate(scores, [leaf])


def test_steps_that_cannot_be_batched_are_taken_one_target_after_the_other():
    sparse = torch.eye(4).to_sparse()
    leaf = torch.randn(2, 4, requires_grad=True)
    scores = torch.sparse.mm(sparse, leaf.square().T).T[:, :3]
    (gradients,) = backward.differentiate(scores, [leaf])
    expected = 2 * leaf.detach() * torch.eye(4)[:3, None]
    assert torch.equal(gradients, expected)
