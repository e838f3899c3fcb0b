"""The gradient of a score, as it is or times the input."""

from torch import Tensor

from ..base.baselines import BaselineLike
from ..base.batching import BATCH_SIZE
from ..base.method import Method
from ..base.problem import Problem
from ..base.result import Attribution


class Saliency(Method):
    """How strongly a score depends on each number: the absolute gradient (Simonyan et al., 2013).

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs.
        preprocess: Applied to the inputs before the network.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> method = Saliency(nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)))
        >>> method(torch.randn(5, 4), target=[0, 1]).values.shape
        torch.Size([2, 5, 4])
    """

    differentiates = True

    def attribute(
        self,
        problem: Problem,
        baselines: BaselineLike,
        *,
        absolute: bool = True,
        batch_size: int = BATCH_SIZE,
    ) -> Attribution:
        """Returns the gradients.

        Args:
            problem: The network and its inputs.
            baselines: Not used.
            absolute: Without the sign.
            batch_size: How many inputs pass through the network at a time.

        Raises:
            ArgumentError: Inputs that are whole numbers.
        """
        scores, gradients = problem.in_batches(self.gradients, batch_size)
        own = [gradient.abs() if absolute else gradient for gradient in gradients]
        return Attribution(
            problem.restore(own),
            problem.per_input(scores),
            method=type(self).__name__,
            several=problem.several,
        )

    def gradients(self, problem: Problem) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the scores (N, T) and what counts as their gradients, each (T, N, ...)."""
        return problem.gradients(problem.tensors)


class InputXGradient(Method):
    """The gradient times the input: a first-order guess at what taking a number away would do.

    Exact for linear functions of the input without bias, and then complete (Shrikumar et al., 2016).

    Args:
        model: The network.
        layer: Attribute to the activation of this layer instead of the inputs.
        preprocess: Applied to the inputs before the network.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> linear = nn.Linear(4, 1, bias=False)
        >>> result = InputXGradient(linear)(torch.ones(1, 4))
        >>> torch.equal(result.values, linear.weight)
        True
    """

    differentiates = True

    def attribute(
        self, problem: Problem, baselines: BaselineLike, *, batch_size: int = BATCH_SIZE
    ) -> Attribution:
        """Returns the products.

        Args:
            problem: The network and its inputs.
            baselines: Not used.
            batch_size: How many inputs pass through the network at a time.

        Raises:
            ArgumentError: Inputs that are whole numbers.
        """
        scores, gradients = problem.in_batches(lambda own: own.gradients(own.tensors), batch_size)
        own = [gradient * tensor for gradient, tensor in zip(gradients, problem.tensors, strict=True)]
        return Attribution(
            problem.restore(own),
            problem.per_input(scores),
            method="InputXGradient",
            several=problem.several,
        )
