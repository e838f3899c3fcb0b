"""`repeated_run` against `run`, and what it leaves alone."""

import pytest
import torch
from torch import nn

from toumei.core import hooked, run
from toumei.core.errors import LayerError, UnreachedLayerError
from toumei.core.hooks import repeated_run
from toumei.models import SimpleCNN


def pictures(seed):
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


class Twice(nn.Module):
    """Runs one module as often as it is asked to, adds, and counts its own passes to the end."""

    def __init__(self):
        super().__init__()
        self.inner, self.ends = nn.Linear(3, 3), 0

    def forward(self, inputs, times=2):
        for _ in range(times):
            inputs = inputs + self.inner(inputs)
        self.ends += 1
        return inputs


@pytest.mark.parametrize(
    "names", [["conv1"], ["conv1#0", "fc"], {"first": "conv1", "sum": "fc/linear"}, [""]]
)
def test_each_pass_gives_what_run_gives(names):
    model = SimpleCNN(3, 10)
    with repeated_run(model, names) as forward:
        found = [forward(pictures(seed)) for seed in range(3)]
    for seed, activations in enumerate(found):
        alone = run(model, pictures(seed), record=names)
        assert list(activations) == list(alone)
        for name in alone:
            assert torch.equal(activations[name], alone[name])


def test_the_last_run_is_that_of_each_pass():
    model, inputs = Twice(), torch.rand(2, 3)
    with repeated_run(model, ["inner", "/add"]) as forward:
        for times in (2, 3, 1):
            found = forward(inputs, times)
            assert torch.equal(found["/add"], model(inputs, times))
            assert found.runs("inner") == times


def test_other_passes_are_not_recorded_and_run_to_their_ends():
    model, inputs = Twice(), torch.rand(2, 3)
    with repeated_run(model, ["inner#0"]) as forward:
        first = forward(inputs)
        assert model.ends == 0  # it stopped after the layer
        model(torch.zeros(2, 3))
        with hooked(model, ["inner#1"], stop=True) as other:
            model(torch.ones(2, 3))
        assert model.ends == 1
        assert torch.equal(first["inner#0"], model.inner(inputs))
        assert torch.equal(other["inner#1"], run(model, torch.ones(2, 3), record=["inner#1"])["inner#1"])
        assert torch.equal(forward(2 * inputs)["inner#0"], model.inner(2 * inputs))


def test_a_recorded_tensor_is_given_free_after_its_pass():
    model = SimpleCNN(3, 10)
    with repeated_run(model, ["conv1"]) as forward:
        assert "conv1" in forward(pictures(0))
        hooks = [hook for hook in model.conv1._forward_hooks.values()]
        assert len(hooks) == 1 and not list(hooks[0].__self__._pass.activations)


def test_gradients_flow_as_in_run():
    model = SimpleCNN(3, 10)
    gradients = []
    with repeated_run(model, ["conv1"]) as forward:
        for read in (forward, lambda shown: run(model, shown, record=["conv1"])):
            shown = pictures(1).requires_grad_()
            read(shown)["conv1"].square().sum().backward()
            gradients.append(shown.grad)
    assert torch.equal(*gradients)


def test_errors_leave_nothing_behind():
    model = Twice()
    with pytest.raises(LayerError, match="inner"), repeated_run(model, ["iner"]):
        pass
    with pytest.raises(UnreachedLayerError, match="ran 2 times"), repeated_run(model, ["inner#5"]) as forward:
        forward(torch.rand(2, 3))["inner#5"]
    with pytest.raises(KeyboardInterrupt), repeated_run(model, ["inner"]) as forward:
        forward(torch.rand(2, 3))
        raise KeyboardInterrupt
    assert not model.inner._forward_hooks and "forward" not in vars(model)
