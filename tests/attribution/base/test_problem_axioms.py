"""What holds for every method there is: a new one is found by its base class."""

import inspect

import pytest
import torch
from torch import nn

from toumei import attribution
from toumei.attribution import Attribution, Method
from toumei.attribution.base.inputs import parts_of
from toumei.core.errors import ArgumentError, LayerError

METHODS = [
    method
    for name in attribution.__all__
    for method in [getattr(attribution, name)]
    if inspect.isclass(method) and issubclass(method, Method) and not inspect.isabstract(method)
]
OF_LAYERS = [
    method
    for method in METHODS
    if inspect.signature(method).parameters.get("layer", inspect.Parameter("layer", 1, default=None)).default
    is inspect.Parameter.empty
]


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 3))


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Dropout(0.3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


@pytest.fixture(params=METHODS, ids=lambda method: method.__name__)
def case(request, watched):
    """A method of a model in training mode, and inputs for it."""
    generator = torch.Generator().manual_seed(1)
    if (
        "Occlusion" in request.param.__name__
        or "Rise" in request.param.__name__
        or request.param in OF_LAYERS
    ):
        model, inputs = watched(cnn()), torch.rand(3, 2, 8, 6, generator=generator)
    else:
        model, inputs = watched(mlp()), torch.randn(3, 6, generator=generator)
    options = ("0",) if request.param in OF_LAYERS else ()
    return request.param(model, *options, **fewer(request.param)), inputs


def fewer(method):
    """RISE has 4,000 masks by default."""
    return {"samples": 300} if method is attribution.Rise else {}


class Shared(nn.Module):
    """Two convolutions, each followed by a ReLU: the same one twice, or two."""

    def __init__(self, apart):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.other = nn.ReLU(), nn.ReLU()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        self.apart = apart

    def forward(self, x):
        hidden = (self.other if self.apart else self.relu)(self.first(x))
        return self.head(self.relu(self.second(hidden)))


def close(found, other):
    for part, expected in zip(parts_of(found), parts_of(other), strict=True):
        assert torch.allclose(part, expected, atol=2e-5), (part - expected).abs().max()


def test_methods_are_found():
    assert len(METHODS) >= 14 and attribution.GradCam in OF_LAYERS and attribution.Saliency not in OF_LAYERS


def test_the_model_is_left_alone_and_dropout_is_off(case):
    method, inputs = case
    given = inputs.clone()
    first, second = (method(inputs, target=1) for _ in range(2))
    close(first.values, second.values)
    assert torch.equal(given, inputs) and inputs.grad is None
    assert all(not part.requires_grad for part in parts_of(first.values))


def test_an_input_does_not_depend_on_the_others(case):
    method, inputs = case
    together = method(inputs, target=torch.tensor([0, 2, 1]))
    for index, target in enumerate([0, 2, 1]):
        alone = method(inputs[index : index + 1], target=target)
        close(together.values[index], alone.values[0])


def test_several_targets_are_what_each_is_alone(case):
    method, inputs = case
    if "steps" in inspect.signature(type(method)).parameters:
        # a fixed number of steps: an adaptive one is that of the target which needs most
        layer = {} if method.layer is None else {"layer": method.layer}
        method = type(method)(method.model, **layer, steps=16)
    together = method(inputs, target=[2, torch.tensor([0, 2, 1])])
    assert together.several and together.output.shape == (2, 3)
    for index, target in enumerate([2, torch.tensor([0, 2, 1])]):
        alone = method(inputs, target=target)
        close(together[index].values, alone.values)
        assert torch.allclose(alone.output, together[index].output, atol=1e-6)


def test_the_output_is_the_score_and_contributions_add_up(case):
    method, inputs = case
    result = method(inputs, target=1)
    method.model.eval()
    assert torch.allclose(result.output, method.model(inputs)[:, 1].detach(), atol=1e-6)
    method.model.train()
    if result.gap is not None and result.standard_error is None:
        wanted = (result.output - result.baseline_output).abs().clamp(min=1e-3)
        assert (result.gap.abs() <= 1.1e-2 * wanted).all()


def test_results_are_kept_and_shown(case, tmp_path):
    method, inputs = case
    result = method(inputs, target=1)
    result.save(tmp_path / "kept.safetensors")
    loaded = Attribution.load(tmp_path / "kept.safetensors")
    close(loaded.values, result.values)
    assert repr(loaded) == repr(result) and result.method in repr(result)
    assert type(method).__name__ in repr(method)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_results_do_not_depend_on_the_grad_mode_of_the_caller(case, mode):
    method, inputs = case
    targets, baseline = torch.tensor([0, 2, 1]), torch.full_like(inputs[0], 0.1)
    expected = method(inputs, targets, baseline)
    with mode():
        made = inputs.clone(), targets.clone(), baseline.clone()
        first = method(*made)
    for result in (first, method(*made)):
        close(result.values, expected.values)
        assert torch.allclose(result.output, expected.output, atol=1e-6)


def test_a_network_made_in_inference_mode_is_refused():
    with torch.inference_mode():
        model = nn.Linear(6, 3)
    with pytest.raises(ArgumentError, match="made in inference mode"):
        attribution.Saliency(model)(torch.randn(2, 6), target=0)
    assert model.weight.requires_grad


def test_results_do_not_depend_on_the_size_of_batches(case):
    method, inputs = case
    if isinstance(method, attribution.LRP):
        pytest.skip("captum takes all inputs at once")
    sizes, forward = [], method.model.forward
    method.model.forward = lambda x: (sizes.append(len(x)), forward(x))[1]
    targets = torch.tensor([0, 2, 1])
    options = fewer(type(method)) | ({} if method.layer is None else {"layer": method.layer})
    small = type(method)(method.model, **options, batch_size=2)(inputs, targets)
    # the two ends of a step of conductance pass at once
    assert max(sizes) <= (4 if isinstance(method, attribution.LayerConductance) else 2)
    del method.model.forward
    large = type(method)(method.model, **options, batch_size=1000)(inputs, targets)
    close(small.values, large.values)
    assert torch.allclose(small.output, large.output, atol=1e-6)
    with pytest.raises(ArgumentError, match="batch_?.?size"):
        type(method)(method.model, **options, batch_size=0)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_of_a_layer_that_runs_twice_the_last_run_is_explained(method, watched):
    if method is attribution.LRP:
        pytest.skip("it takes no layer, and no layer that runs twice")
    images = torch.rand(2, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    shared, apart = watched(Shared(apart=False)), watched(Shared(apart=True))
    found, expected = (method(model, layer="relu")(images, target=1) for model in (shared, apart))
    assert torch.allclose(found.output, shared(images)[:, 1].detach(), atol=1e-6)
    close(found.values, expected.values)


def test_inputs_are_left_alone_by_a_network_that_works_in_place(case):
    method, inputs = case
    given = inputs - 0.5
    before = given.clone()
    model = nn.Sequential(nn.ReLU(inplace=True), method.model)
    layer = ("1.0",) if type(method) in OF_LAYERS else ()
    type(method)(model, *layer)(given, target=1)
    assert torch.equal(given, before)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_settings_are_named_typed_and_kept_under_their_names(method):
    parameters = list(inspect.signature(method).parameters.values())
    names = [parameter.name for parameter in parameters]
    assert names[: names.index("preprocess") + 1] in (
        ["model", "layer", "preprocess"],
        ["model", "preprocess"],
    )
    settings = parameters[names.index("preprocess") + 1 :]
    assert all(setting.kind is inspect.Parameter.KEYWORD_ONLY for setting in settings)
    assert all(setting.annotation is not inspect.Parameter.empty for setting in parameters)
    made = method(cnn(), *(("0",) if method in OF_LAYERS else ()))
    assert all(getattr(made, setting.name) is setting.default for setting in settings)
    if method is not attribution.VarGrad and not issubclass(method, attribution.GradCam):
        assert all(f"\n    {setting.name}: " in inspect.getdoc(method) for setting in settings)
    call = list(inspect.signature(made).parameters)
    assert call == ["inputs", "target", "baselines", "feature_names", "class_names", "row_names"]


def test_the_repr_shows_the_settings_that_are_not_the_defaults():
    model = nn.Sequential(nn.Linear(6, 3))
    assert repr(attribution.Saliency(model)) == "Saliency(Sequential)"
    assert repr(attribution.KernelShap(model, samples=200, seed=0)) == "KernelShap(Sequential, samples=200)"
    method = attribution.SmoothGrad(model, "0", nn.Identity(), of=attribution.InputXGradient, seed=None)
    wanted = "SmoothGrad(Sequential, layer='0', preprocess=Identity, of=InputXGradient, seed=None)"
    assert repr(method) == wanted
    features = torch.arange(6)
    assert repr(attribution.Lime(model, features=features)) == "Lime(Sequential, features=Tensor(6,))"


def test_a_copy_for_another_model_keeps_the_settings(case):
    method, inputs = case
    other = mlp() if inputs.dim() == 2 else cnn()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    moved = method.with_model(other, method.layer)
    options = fewer(type(method)) | ({} if method.layer is None else {"layer": method.layer})
    close(moved(inputs, 1).values, type(method)(other, **options)(inputs, 1).values)
    assert method.model is not other and repr(moved) == repr(method)
    with (
        pytest.raises(LayerError, match="nowhere")
        if not isinstance(method, attribution.LRP)
        else (pytest.raises(ArgumentError, match="LRP takes no layer, got 'nowhere'"))
    ):
        method.with_model(other, "nowhere")
