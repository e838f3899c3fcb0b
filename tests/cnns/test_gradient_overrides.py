"""Gradients for dead units: lucid's rules, however a network calls its operations; nothing left behind."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.cnns.gradient_overrides import redirected_relu, relaxed_max_pool
from toumei.core.errors import ArgumentError
from toumei.core.hooks import run


def random(*size, seed=1):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def lucid(x, gradient, ceiling=float("inf")):
    """lucid's rule, sample by sample and number by number, for a loss that is minimized."""
    result = torch.zeros_like(gradient)
    for sample in range(len(x)):
        pairs = list(zip(x[sample].flatten().tolist(), gradient[sample].flatten().tolist(), strict=True))
        ordinary = [g if 0 < value < ceiling else 0.0 for value, g in pairs]
        redirected = [
            0.0 if (value < 0 and g > 0) or (value > ceiling and g < 0) else g for value, g in pairs
        ]
        chosen = redirected if all(g == 0 for g in ordinary) else ordinary
        result[sample] = torch.tensor(chosen).view_as(result[sample])
    return result


class Called(nn.Module):
    """A network of one operation, called in one of the ways that there are."""

    def __init__(self, operation):
        super().__init__()
        self.operation = operation

    def forward(self, x):
        return self.operation(x * 1)


RELUS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "function": F.relu,
    "function in place": lambda x: F.relu(x, inplace=True),
    "torch": torch.relu,
    "torch in place": torch.relu_,
    "functional_": F.relu_,
    "method": lambda x: x.relu(),
    "method in place": lambda x: (x.relu_(), x)[1],
    "by name": lambda x: torch.relu(input=x),
    "clamp": lambda x: x.clamp(min=0),
    "clip in place": lambda x: x.clip_(0.0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "threshold": nn.Threshold(0, 0, inplace=True),
    "operator": torch.ops.aten.relu,
}
RELU6 = {
    "module": nn.ReLU6(),
    "module in place": nn.ReLU6(inplace=True),
    "function": F.relu6,
    "function in place": lambda x: F.relu6(x, inplace=True),
    "hardtanh": lambda x: F.hardtanh(x, 0, 6),
    "clamp": lambda x: torch.clamp(x, 0, max=6),
    "clip in place": lambda x: x.clip_(0, 6),
}


def batch(*size):
    """Samples that are dead below, dead above, both, mixed, and at zero."""
    x = 4 * random(5, *size)
    x[0], x[1], x[2] = -x[0].abs() - 0.1, x[1].abs() + 6.1, torch.where(x[2] > 0, x[2] + 6, x[2] - 0.1)
    x[3].flatten()[0] = 2.0
    x[4] = 0.0
    return x


def value_and_gradient(network, x, gradient, context):
    x = x.clone().requires_grad_()
    with context(network):
        y = network(x)
    y.backward(gradient)
    return y.detach(), x.grad


# ---------------------------------------------------------------- redirected ReLU


@pytest.mark.parametrize("size", [(6,), (3, 4, 5)])
@pytest.mark.parametrize("way", RELUS)
def test_a_relu_has_lucids_gradient_however_it_is_called(way, size):
    x, gradient = batch(*size), random(5, *size, seed=2)
    y, found = value_and_gradient(Called(RELUS[way]), x, gradient, redirected_relu)
    assert torch.equal(y, x.clamp(min=0))
    torch.testing.assert_close(found, lucid(x, gradient), atol=1e-6, rtol=0)


@pytest.mark.parametrize("way", RELU6)
def test_a_relu6_is_redirected_from_above_as_well(way):
    x, gradient = batch(3, 4, 5), random(5, 3, 4, 5, seed=2)
    y, found = value_and_gradient(Called(RELU6[way]), x, gradient, redirected_relu)
    assert torch.equal(y, x.clamp(0, 6))
    torch.testing.assert_close(found, lucid(x, gradient, 6.0), atol=1e-6, rtol=0)


def test_only_gradients_that_push_up_pass_and_only_for_dead_samples():
    x = torch.tensor([[-1.0, -2.0], [-1.0, 3.0]])
    gradient = torch.tensor([[-0.5, 0.7], [-0.5, 0.7]])
    _, found = value_and_gradient(Called(F.relu), x, gradient, redirected_relu)
    assert torch.equal(found, torch.tensor([[-0.5, 0.0], [0.0, 0.7]]))


def test_other_hardtanhs_keep_their_gradient():
    x, gradient = 3 * random(5, 4), random(5, 4, seed=2)
    _, found = value_and_gradient(Called(nn.Hardtanh()), x, gradient, redirected_relu)
    assert torch.equal(found, gradient * (x.abs() < 1))


def test_channels_last_stays_channels_last():
    x = batch(3, 4, 5).contiguous(memory_format=torch.channels_last)
    gradient = random(5, 3, 4, 5, seed=2)
    y, found = value_and_gradient(Called(F.relu), x, gradient, redirected_relu)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, lucid(x, gradient), atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_only_the_first_passes_with_gradients_are_redirected(steps):
    network, x, gradient = Called(F.relu), -torch.ones(1, 3), -torch.ones(1, 3)
    found = []
    with redirected_relu(network, steps):
        for _ in range(5):
            with torch.no_grad():
                network(x)
            leaf = x.clone().requires_grad_()
            network(leaf).backward(gradient)
            found.append(bool(leaf.grad.any()))
    assert found == [step < steps for step in range(5)]


def test_a_number_of_steps_is_not_negative():
    with pytest.raises(ArgumentError, match="from 0 on, got -1"), redirected_relu(nn.ReLU(), -1):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_an_accelerator_is_not_waited_for():
    x, gradient = batch(3, 4, 5), random(5, 3, 4, 5, seed=2)
    leaf, gradient_there = x.to("cuda").requires_grad_(), gradient.to("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        with redirected_relu(network := Called(F.relu)):
            network(leaf).backward(gradient_there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(leaf.grad.cpu(), lucid(x, gradient), atol=1e-6, rtol=0)


class ThreeKinds(nn.Module):
    """Dead everywhere, through a module in place, a function and a method."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        for layer in (self.first, self.second):
            nn.init.constant_(layer.bias, -9.0)

    def forward(self, x):
        return self.relu(self.second(F.relu(self.first(x)))).amax((2, 3)).relu()


def gradient_of(network, x):
    leaf = x.clone().requires_grad_()
    (-network(leaf)).sum().backward()
    return leaf.grad


def test_it_ends_with_the_block_and_with_errors_and_nests(watched):
    network, x = watched(ThreeKinds()).requires_grad_(False), random(2, 3, 9, 8)
    watched.models.clear()
    watched(network)
    assert not gradient_of(network, x).any()
    with pytest.raises(ValueError, match="stop"), redirected_relu(network):
        assert gradient_of(network, x).any()
        with redirected_relu(network, 1), relaxed_max_pool(network):
            once = gradient_of(network, x)
        assert torch.equal(gradient_of(network, x), once)
        with pytest.raises(RuntimeError, match="channels"):
            network(x[:, :2])
        raise ValueError("stop")
    assert "forward" not in vars(network)
    assert not gradient_of(network, x).any()


def test_a_forward_of_the_models_own_comes_back():
    network = Called(F.relu)
    network.forward = forward = lambda x: x
    with redirected_relu(network):
        pass
    assert network.forward is forward


def test_the_engine_sees_the_same_activations(watched):
    network, x = watched(ThreeKinds()), random(2, 3, 9, 8).requires_grad_()
    plain = run(network, x, record=["second", "relu"])
    with redirected_relu(network):
        found = run(network, x, record=["second", "relu"])
    for layer in ("second", "relu"):
        assert torch.equal(found[layer], plain[layer])
    assert not torch.autograd.grad(-plain["relu"].sum(), x)[0].any()
    assert torch.autograd.grad(-found["relu"].sum(), x)[0].any()


def test_a_hugging_face_model_is_redirected(watched):
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    model = watched(ResNetForImageClassification(config))
    model.eval()
    watched.models.clear()
    watched(model)
    layer = next(name for name, module in model.named_modules() if name.endswith("embedder.normalization"))
    nn.init.constant_(model.get_submodule(layer).bias, -9.0)
    watched.models.clear()
    watched(model)
    x = random(2, 3, 16, 16).requires_grad_()
    before = model(x).logits
    assert not torch.autograd.grad(before.sum(), x)[0].any()
    with redirected_relu(model):
        after = model(x).logits
    assert torch.equal(after, before)
    assert torch.autograd.grad(after.sum(), x)[0].any()


# ---------------------------------------------------------------- relaxed max-pooling


def relaxed(x, kernel, stride, padding, kind):
    """lucid's smooth pooling of (N, C, H, W), window by window; padding does not count."""
    rows = []
    for y in range(-padding, x.shape[2] + padding - kernel + 1, stride):
        row = []
        for left in range(-padding, x.shape[3] + padding - kernel + 1, stride):
            window = x[:, :, max(y, 0) : y + kernel, max(left, 0) : left + kernel].flatten(2)
            square = window.square().mean(2) / (0.01 + window.abs().mean(2))
            row.append(square if kind == "l2" else window.mean(2))
        rows.append(torch.stack(row, 2))
    return torch.stack(rows, 2)


@pytest.mark.parametrize("kind", ["l2", "average"])
@pytest.mark.parametrize("window", [(2, 2, 0), (3, 2, 1), (3, 1, 0)])
def test_a_max_pooling_has_the_gradient_of_the_smooth_one_and_its_own_value(kind, window):
    x = random(2, 3, 7, 6).double().requires_grad_()
    for operation in (
        nn.MaxPool2d(*window),
        lambda x: F.max_pool2d(x, *window),
        lambda x: torch.max_pool2d(x, *window),
        lambda x: torch.ops.aten.max_pool2d(x, *([size, size] for size in window)),
    ):
        network = Called(operation)
        with relaxed_max_pool(network, kind):
            y = network(x)
        smooth = relaxed(x, *window, kind)
        assert torch.equal(y, F.max_pool2d(x, *window))
        weight = random(*y.shape, seed=3).double()
        expected = torch.autograd.grad((smooth * weight).sum(), x)[0]
        torch.testing.assert_close(torch.autograd.grad((y * weight).sum(), x)[0], expected, atol=1e-6, rtol=0)


def test_poolings_that_cannot_be_relaxed_keep_their_gradient():
    x = random(2, 3, 8, 8).requires_grad_()
    for operation in (
        nn.MaxPool2d(2, dilation=2),
        nn.AdaptiveMaxPool2d(2),
        lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
        lambda x: F.max_pool2d_with_indices(x, 2)[0],
    ):
        network = Called(operation)
        with relaxed_max_pool(network):
            y = network(x)
        ordinary = torch.autograd.grad(network(x).sum(), x)[0]
        assert torch.equal(torch.autograd.grad(y.sum(), x)[0], ordinary)


def test_poolings_of_lines_and_volumes_are_relaxed():
    for pool, size in ((nn.MaxPool1d(2), (6,)), (nn.MaxPool3d(2, ceil_mode=True), (5, 4, 6))):
        x = random(2, 3, *size).requires_grad_()
        with relaxed_max_pool(pool, "average"):
            y = pool(x)
        assert torch.equal(y, pool(x))
        assert torch.autograd.grad(y.sum(), x)[0].ne(0).all()


def test_an_unknown_relaxation_is_an_error():
    with (
        pytest.raises(ArgumentError, match="kind is one of .*'l2'.*got 'max'"),
        relaxed_max_pool(nn.ReLU(), "max"),
    ):
        pass


# ---------------------------------------------------------------- in the pipeline


@pytest.fixture
def half_dead(watched):
    """Two units behind a ReLU in place: the first alive, the second dead on anything near gray."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3), nn.ReLU(inplace=True))
    with torch.no_grad():
        model[2].bias.copy_(torch.tensor([0.5, -0.2]))
    return watched(model)


def pictures(model, objective, **options):
    generator = param.FFTImage(1, 3, 16, 16, seed=0)
    fv = obj.Pipeline(generator, objective).attach(model)
    return fv.optimize(40, verbose=False, seed=0, **options)


@pytest.mark.filterwarnings("ignore:.*did not move")
def test_a_dead_unit_wakes_with_it_and_not_without(half_dead):
    without = pictures(half_dead, obj.Neuron("3:1"), redirect=0)
    assert not without.losses.any()
    woken = pictures(half_dead, obj.Neuron("3:1"))
    assert woken.losses[0] == 0 and woken.losses[-1] < 0
    assert "forward" not in vars(half_dead)


def test_a_unit_that_is_alive_has_the_same_pictures_bit_for_bit(half_dead):
    for objective in (obj.Neuron("3:0"), obj.Channel("2:0"), obj.Layer("1")):
        without, woken = pictures(half_dead, objective, redirect=0), pictures(half_dead, objective)
        assert torch.equal(without.images, woken.images)


def test_each_picture_of_a_batch_is_woken_on_its_own(half_dead):
    generator = param.FFTImage(2, 3, 16, 16, seed=0)
    fv = obj.Pipeline(generator, [obj.Neuron("3:0"), obj.Neuron("3:1")]).attach(half_dead)
    losses = fv.optimize(40, verbose=False).losses
    assert (losses[-1] < losses[0]).all()


def test_the_pipeline_refuses_a_negative_number(half_dead):
    with pytest.raises(ArgumentError, match="from 0 on, got -2"):
        pictures(half_dead, "3:0", redirect=-2)


@pytest.mark.filterwarnings("ignore:.*did not move")
def test_units_of_a_real_network_wake(realdata):
    from safetensors.torch import load_file
    from torchvision.models import squeezenet1_1

    model = squeezenet1_1()
    model.load_state_dict(load_file(realdata / "squeezenet1_1" / "model.safetensors"))
    objective = [obj.Neuron(f"features.10:{unit}") for unit in (0, 1)]
    ends = {}
    for steps in (0, 16):
        fv = obj.Pipeline(param.FFTImage(2, 3, 64, 64, seed=0), objective).attach(model)
        ends[steps] = fv.optimize(20, verbose=False, redirect=steps).losses[-1]
    assert (ends[0] == 0).any()
    assert (ends[16] < 0).all()


@pytest.mark.parametrize("kind", ["l2", "average"])
def test_a_relaxed_pool_keeps_values_whose_squares_leave_half_precision(kind):
    x = torch.full((1, 1, 2, 2), 30000.0, dtype=torch.float16).requires_grad_()
    pool = nn.MaxPool2d(2)
    with relaxed_max_pool(pool, kind):
        pooled = pool(x)
    pooled.sum().backward()
    assert pooled.item() == 30000 and x.grad.isfinite().all()
