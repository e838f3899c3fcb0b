"""The gradient of a score, and the gradient times the input."""

from torch import Tensor, nn

from ..base.baselines import BaselineLike
from ..base.batching import BATCH_SIZE
from ..base.inputs import Layers, Preprocess
from ..base.method import Method
from ..base.problem import Problem
from ..base.result import Attribution


class Saliency(Method):
    """How strongly a score depends on each number: the absolute gradient (Simonyan et al., 2013).

    Args:
        model: The network.
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs.
        preprocess: Applied to the inputs before the network.
        absolute: Take absolute values; else the gradient with its sign.
        batch_size: How many inputs pass through the network at a time.

    Example:
        >>> import torch
        >>> method = Saliency(nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)))
        >>> method(torch.randn(5, 4), target=[0, 1]).values.shape
        torch.Size([2, 5, 4])
    """

    differentiates = True

    def __init__(
        self,
        model: nn.Module,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        absolute: bool = True,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        super().__init__(model, layer, preprocess, batch_size=batch_size)
        self.absolute = absolute

    def attribute(self, problem: Problem, baselines: BaselineLike) -> Attribution:
        """Returns the gradients.

        Args:
            problem: The network and its inputs.
            baselines: Not used.

        Raises:
            ArgumentError: Inputs that are whole numbers.
        """
        scores, gradients = problem.in_batches(self.gradients, self.batch_size)
        values = [gradient.abs() if self.absolute else gradient for gradient in gradients]
        return self.result(problem, values, scores)

    def gradients(self, problem: Problem) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the scores (N, T) and their gradients by the rule of the method, each (T, N, ...)."""
        return problem.gradients(problem.tensors)


class InputXGradient(Method):
    """The gradient times the input: a first-order estimate of the change when a number is set to zero.

    Exact for linear functions of the input without bias, and complete for them (Shrikumar et al., 2016).

    Args:
        model: The network.
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs.
        preprocess: Applied to the inputs before the network.
        batch_size: How many inputs pass through the network at a time.

    Example:
        >>> import torch
        >>> linear = nn.Linear(4, 1, bias=False)
        >>> result = InputXGradient(linear)(torch.ones(1, 4))
        >>> torch.equal(result.values, linear.weight)
        True
    """

    differentiates = True

    def attribute(self, problem: Problem, baselines: BaselineLike) -> Attribution:
        """Returns the products.

        Args:
            problem: The network and its inputs.
            baselines: Not used.

        Raises:
            ArgumentError: Inputs that are whole numbers.
        """
        scores, gradients = problem.in_batches(lambda batch: batch.gradients(batch.tensors), self.batch_size)
        values = [gradient * tensor for gradient, tensor in zip(gradients, problem.tensors, strict=True)]
        return self.result(problem, values, scores)
