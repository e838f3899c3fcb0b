"""The empirical neural tangent kernel: which inputs change together when a network learns."""

from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from ..core.checks import checked
from ..core.errors import ArgumentError, ShapeError
from ..core.finite import check_finite
from ..core.forward import check_differentiable, forward_errors
from ..core.kinds import shown
from ..core.modules import evaluating
from ..core.repeats import check_repeats

Outputs = Literal["trace", "sum", "full"]


@torch.inference_mode(False)  # which has no gradients
@checked
def neural_tangent_kernel(
    model: nn.Module,
    inputs: Tensor,
    others: Tensor | None = None,
    *,
    outputs: Outputs = "trace",
    batch_size: int = 32,
) -> Tensor:
    """Returns the kernel of inner products of the outputs' gradients (Jacot et al., 2018).

    Args:
        model: A network with outputs (N, K) or (N,).
        inputs: (N, ...).
        others: (M, ...), by default the inputs themselves.
        outputs: ``"trace"`` averages the K products of each output with itself, ``"sum"`` takes the
            gradient of the sum of the outputs, ``"full"`` keeps all pairs.
        batch_size: How many inputs and how many others have their gradients in memory at once.

    Returns:
        (N, M), or (N, M, K, K) for ``"full"``.

    Raises:
        ArgumentError: An unknown value of `outputs`, or a model without parameters that are trained, or that
            computes without gradients.
        NonFiniteError: Inputs or gradients that are NaN or infinite.

    Example:
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
        >>> neural_tangent_kernel(nn.Linear(2, 1, bias=False), x)
        tensor([[5., 3.],
                [3., 9.]])
    """
    if outputs not in get_args(Outputs):
        raise ArgumentError(f"outputs is one of {get_args(Outputs)}, got {outputs!r}")
    gradients = _Gradients(model, summed=outputs == "sum")
    columns = inputs if others is None else others
    for name, rows_of in (("inputs", inputs), ("others", columns)):
        if not rows_of.dim() or rows_of.is_complex():
            raise ShapeError(f"expected {name} (N, ...) of real numbers, got {shown(rows_of)}")
        check_finite(rows_of, f"the {name}")
    with evaluating(model), torch.no_grad():
        check_repeats(model, inputs[:1])
        if len(inputs):
            gradients.checked_outputs(inputs[0])
        rows = []
        for batch in inputs.split(batch_size):
            left = gradients(batch)
            parts = [_products(left, gradients(part), outputs) for part in columns.split(batch_size)]
            rows.append(torch.cat(parts, 1))
    kernel = torch.cat(rows)
    check_finite(kernel, "gradients of the outputs")
    return kernel


class _Gradients:
    """The gradients of a network's outputs by its weights, a tensor (N, K, numbers) for each weight.

    Args:
        model: The network.
        summed: Whether the outputs are summed first, so that K is 1.

    Raises:
        ArgumentError: The network has no weights that are trained.
    """

    def __init__(self, model: nn.Module, summed: bool) -> None:
        self.model, self.summed = model, summed
        self.weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        if not self.weights:
            raise ArgumentError(
                f"{type(model).__name__} has no parameters with requires_grad, so no tangent kernel"
            )
        self.recurrent = any(isinstance(part, nn.RNNBase) for part in model.modules())  # vmap knows none

    def __call__(self, batch: Tensor) -> list[Tensor]:
        if self.recurrent:
            return [torch.stack(parts) for parts in zip(*map(self._of_one, batch), strict=True)]
        jacobians = vmap(jacrev(self._outputs), (None, 0))(self.weights, batch)
        return [jacobian.flatten(2) for jacobian in jacobians.values()]

    @torch.enable_grad()
    def checked_outputs(self, single: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns the outputs for an input, (K,), and the weights that they depend on.

        Raises:
            ArgumentError: They have no gradient.
            ForwardError: The network cannot run on the input.
        """
        leaves = {name: one.detach().requires_grad_() for name, one in self.weights.items()}
        values = self._outputs(leaves, single)
        check_differentiable(values, self.model)
        return values, [*leaves.values()]

    @torch.enable_grad()
    def _of_one(self, single: Tensor) -> list[Tensor]:
        """The gradients for an input, (K, numbers) for each weight."""
        values, leaves = self.checked_outputs(single)
        found = [
            torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True) for value in values
        ]
        return [torch.stack([part.flatten() for part in parts]) for parts in zip(*found, strict=True)]

    def _outputs(self, weights: dict[str, Tensor], single: Tensor) -> Tensor:
        with forward_errors(self.model, (single[None],)):
            values: Tensor = functional_call(self.model, weights, (single[None],))[0].flatten()
        return values.sum(0, keepdim=True) if self.summed else values


def _products(first: list[Tensor], second: list[Tensor], outputs: Outputs) -> Tensor:
    """The inner products of gradients of some inputs with those of others."""
    pattern = "nkp,mlp->nmkl" if outputs == "full" else "nkp,mkp->nm"
    parts = [torch.einsum(pattern, one, other) for one, other in zip(first, second, strict=True)]
    total = torch.stack(parts).sum(0)
    return total / first[0].shape[1] if outputs == "trace" else total


@checked
def kernel_distance(first: Tensor, second: Tensor) -> float:
    """Returns 1 minus the cosine of two kernels, 0 if they differ only in scale (Fort et al., 2020).

    Args:
        first: A kernel.
        second: Another one of its shape.

    Raises:
        ShapeError: Kernels of different shapes.
        ArgumentError: A kernel of zeros, which has no direction.
        NonFiniteError: Kernels with NaN or infinite numbers.

    Example:
        >>> kernel_distance(torch.eye(2), 3 * torch.eye(2))
        0.0
    """
    if first.shape != second.shape:
        raise ShapeError(f"kernels must have one shape, got {tuple(first.shape)} and {tuple(second.shape)}")
    for kernel in (first, second):
        check_finite(kernel, "kernels")
        if not kernel.any():
            raise ArgumentError("a kernel of zeros has no direction to compare")
    first, second = first.double().flatten(), second.double().flatten()
    norms = torch.linalg.vector_norm(first) * torch.linalg.vector_norm(second)
    return float((1 - first @ second / norms).clamp(min=0))


@checked
def kernel_velocity(kernels: list[Tensor]) -> list[float]:
    """Returns the `kernel_distance` of each kernel of a training from the one before.

    Raises:
        ArgumentError: Fewer than two kernels.

    Example:
        >>> [round(step, 3) for step in kernel_velocity([torch.eye(2), 2 * torch.eye(2), torch.ones(2, 2)])]
        [0.0, 0.293]
    """
    if len(kernels) < 2:
        raise ArgumentError(f"a change needs at least two kernels, got {len(kernels)}")
    return [kernel_distance(before, after) for before, after in pairwise(kernels)]
