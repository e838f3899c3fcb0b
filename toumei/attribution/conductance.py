"""How much of integrated gradients flows through each unit of a layer (Dhamdhere et al., 2018)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .baselines import BaselineLike
from .integrated_gradients import between, check_steps, one_baseline, refine
from .method import Method
from .problem import Problem
from .result import Attribution


class LayerConductance(Method):
    """The conductance of a layer's units: how a score moves because of each, on the way from a baseline.

    The inputs go straight from the baseline; at each step the change of a unit is multiplied with the mean of
    the score's gradient by it at both ends. The sums are refined until they add up to the difference of the
    scores, within a tolerance: they do for a layer that everything passes through.

    Args:
        model: The network.
        layer: The layer.
        preprocess: Applied to the inputs before the network.

    Example:
        >>> method = LayerConductance(nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)), "1")
        >>> result = method(torch.randn(5, 4), target=1, baselines=torch.randn(4))
        >>> result.values.shape, bool(result.gap.abs().max() < 1e-2)
        (torch.Size([5, 3]), True)
    """

    differentiates = True

    def __init__(self, model: nn.Module, layer: str, preprocess: Callable[..., Any] | None = None) -> None:
        super().__init__(model, layer, preprocess)

    def attribute(
        self,
        problem: Problem,
        baselines: BaselineLike,
        *,
        tolerance: float = 1e-3,
        max_steps: int = 512,
        steps: int | None = None,
        batch_size: int = 64,
    ) -> Attribution:
        """Returns the conductances against one baseline for each input.

        Args:
            problem: The network and its inputs.
            baselines: One for each input, not a distribution.
            tolerance: As for `IntegratedGradients`.
            max_steps: Most steps for an input; where they do not reach the tolerance, a warning says so.
            steps: A fixed number of steps instead.
            batch_size: How many points on the way pass through the network at a time.

        Raises:
            ArgumentError: A distribution of baselines, inputs that are whole numbers, or numbers below 1.
        """
        check_steps(tolerance, max_steps, steps, batch_size)
        own = problem.of_inputs()
        own.leaves(own.tensors)  # a path leads through numbers that have gradients
        references = one_baseline(own, baselines, "LayerConductance", "no other")
        with torch.no_grad():
            output, at_baseline = (own.scores(ends) for ends in (own.tensors, references))
        values = refine(
            lambda rows, count: [_conductances(own, str(self.layer), references, rows, count, batch_size)],
            (output.double() - at_baseline.double()).cpu(),
            steps,
            max_steps,
            tolerance,
        )
        return Attribution(
            problem.restore([values[0].to(problem.tensors[0].dtype)]),
            problem.per_input(output),
            problem.per_input(at_baseline),
            method="LayerConductance",
            several=problem.several,
            complete=True,
        )


def _conductances(
    problem: Problem, layer: str, references: Sequence[Tensor], rows: Tensor, count: int, batch_size: int
) -> Tensor:
    """Conductances (T, R, ...) of the inputs in rows (R,), by the trapezoid rule in so many steps."""
    finished = []
    for some in rows.split(batch_size):
        total = None
        last: tuple[Tensor, Tensor] | None = None
        for steps in torch.arange(count + 1).split(max(1, batch_size // len(some))):
            own = some.repeat(len(steps))
            shares = steps.repeat_interleave(len(some)).double() / count
            start, end = (
                [tensor[own.to(tensor.device)] for tensor in tensors]
                for tensors in (references, problem.tensors)
            )
            activation, _, gradients = problem.through_layer(between(start, end, shares), own, layer)
            activation = activation.unflatten(0, (len(steps), len(some)))
            gradients = gradients.unflatten(1, (len(steps), len(some)))
            if last is not None:
                activation = torch.cat([last[0], activation])
                gradients = torch.cat([last[1], gradients], 1)
            last = activation[-1:], gradients[:, -1:]
            change = activation.diff(dim=0)
            part = (change * (gradients[:, 1:] + gradients[:, :-1]) / 2).sum(1)
            total = part if total is None else total + part
        assert total is not None
        finished.append(total)
    return torch.cat(finished, 1)
