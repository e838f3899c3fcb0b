"""Names of modules, and states that are changed for a while."""

import pytest
import torch
from torch import nn

from toumei.core import evaluating, find_module, find_modules, frozen
from toumei.core.errors import LayerError, ToumeiError
from toumei.core.modules import device_and_dtype


def test_names_are_found_as_torch_names_them(small_cnn):
    assert find_module(nn.Sequential(small_cnn), "0.conv1") is small_cnn.conv1
    assert find_module(small_cnn, "") is small_cnn
    assert find_modules(small_cnn, ["relu2", "conv1"]) == {"relu2": small_cnn.relu2, "conv1": small_cnn.conv1}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("conv", "did you mean conv1, conv2?"),
        ("con1", "did you mean conv1"),
        ("zzz", "it has conv1, relu1"),
        ("conv1.weight", "no layer 'conv1.weight' in Sequential"),
    ],
)
def test_an_unknown_name_shows_what_exists(small_cnn, name, message):
    with pytest.raises(LayerError, match="no layer") as error:
        find_module(small_cnn, name)
    assert message in str(error.value)
    assert isinstance(error.value, KeyError) and isinstance(error.value, ToumeiError)


def test_mixed_flags_come_back_each_as_it_was(small_cnn):
    small_cnn.conv1.weight.requires_grad_(False)
    small_cnn.relu1.eval()
    small_cnn.head.eval()

    def flags():
        return [p.requires_grad for p in small_cnn.parameters()], [m.training for m in small_cnn.modules()]

    before = flags()
    with pytest.raises(ZeroDivisionError), frozen(small_cnn), evaluating(small_cnn):
        assert not any(flags()[0]) and not any(flags()[1])
        raise ZeroDivisionError
    assert flags() == before
    assert set(before[0]) == set(before[1]) == {True, False}
    small_cnn.conv1.weight.requires_grad_(True)
    small_cnn.relu1.train()
    small_cnn.head.train()


def test_flags_come_back_where_a_pass_puts_other_parameters(small_cnn):
    """As accelerate does, which loads offloaded weights before a module runs."""
    small_cnn.conv1.bias.requires_grad_(False)
    before = [parameter.requires_grad for parameter in small_cnn.parameters()]
    first = small_cnn.conv1.weight
    with frozen(small_cnn):
        for layer in (small_cnn.conv1, small_cnn.head):
            for name, parameter in list(layer.named_parameters()):
                setattr(layer, name, nn.Parameter(parameter.detach(), parameter.requires_grad))
        assert not any(parameter.requires_grad for parameter in small_cnn.parameters())
    assert [parameter.requires_grad for parameter in small_cnn.parameters()] == before
    assert first is not small_cnn.conv1.weight and first.requires_grad
    small_cnn.conv1.bias.requires_grad_(True)


def test_modes_come_back_when_eval_itself_fails(small_cnn):
    class Stubborn(nn.ReLU):
        def train(self, mode=True):
            if not mode:
                raise ZeroDivisionError
            return super().train(mode)

    model = nn.Sequential(nn.Dropout(), Stubborn())
    with pytest.raises(ZeroDivisionError), evaluating(model):
        pass
    assert [module.training for module in model.modules()] == [True, True, True]


def test_device_and_dtype_follow_the_weights():
    assert device_and_dtype(nn.Linear(2, 2).half()) == (torch.device("cpu"), torch.float16)
    assert device_and_dtype(nn.Linear(2, 2, device="meta")) == (torch.device("meta"), torch.float32)
    assert device_and_dtype(nn.ReLU()) == (torch.device("cpu"), torch.float32)
