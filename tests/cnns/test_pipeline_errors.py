"""Bad input: what the error says, when it comes, and that nothing is left behind on the model."""

import pytest
import torch
from torch import nn

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.cnns import Pipeline, robustness
from toumei.cnns import optimization as optimize
from toumei.core.errors import (
    ArgumentError,
    DeviceError,
    LayerError,
    NonFiniteError,
    NotAttachedError,
    ShapeError,
    UnitError,
    UnreachedLayerError,
)


def generator(images=1, kind=param.FFTImage):
    return kind(images, 3, 12, 9, seed=1)


def attached(model, objective="conv2:1", images=1):
    return Pipeline(generator(images), objective).attach(model)


def run(fv, epochs=5, **options):
    return fv.optimize(epochs, verbose=False, **options)


def check_usable(model):
    """The model can be attached and run after an error as if nothing had been."""
    assert run(attached(model), 2).steps == 2


# ---------------------------------------------------------------- at construction


class Flat(param.Generator):
    """Forgets the batch."""

    def __init__(self):
        self.pixels = torch.zeros(3, 8, 8, requires_grad=True)

    @property
    def parameters(self):
        return [self.pixels]

    def get_image(self):
        return self.pixels.sigmoid()

    def to(self, device):
        return self


def test_an_image_of_a_wrong_rank_is_an_error_at_construction():
    with pytest.raises(ShapeError, match=r"Flat.get_image must return .*\(N, C, H, W\), got \(3, 8, 8\)"):
        Pipeline(Flat(), "conv1:0")


@pytest.mark.parametrize(
    ("objective", "images"),
    [
        (obj.Channel("conv1", channels=[1, 2, 3]), 2),
        (["conv1:0", "conv1:1"], 1),
        (["conv1:0"], 2),
        (obj.Direction("conv1", torch.ones(4, 6)), 3),
        (2 * obj.PerImage("conv1:0", "conv1:1") - obj.L1(), 3),
    ],
)
def test_a_number_of_pictures_that_does_not_fit_is_an_error_at_construction(objective, images):
    wanted = obj.as_objective(objective).images
    with pytest.raises(
        ShapeError, match=f"for {wanted} pictures?,.*makes {images}: give.* a batch of {wanted}"
    ):
        Pipeline(generator(images), objective)


@pytest.mark.parametrize("unit", ["", "conv1:x", "conv1:-1", "conv1:1:2:3:4:5", ":2"])
def test_a_malformed_unit_is_an_error_at_construction(unit):
    with pytest.raises(UnitError, match="cannot read the unit .*expected 'layer', 'layer:channel'"):
        Pipeline(generator(), unit)


def test_nonsense_in_place_of_an_objective_is_an_error_at_construction():
    with pytest.raises(ArgumentError, match="expected an objective, a unit string"):
        Pipeline(generator(), None)


# ---------------------------------------------------------------- at attach


@pytest.mark.parametrize(
    ("layer", "near"),
    [
        ("conv", "did you mean conv1, conv2"),
        ("relu", "did you mean relu1, relu2"),
        ("xyz", "it has conv1, relu1"),
    ],
)
def test_an_unknown_layer_is_an_error_at_attach_with_near_matches(small_cnn, layer, near):
    for objective in (f"{layer}:0", obj.Layer("conv1") + obj.Layer(layer), ["conv1:0", f"{layer}:0"]):
        fv = Pipeline(generator(2 if isinstance(objective, list) else 1), objective)
        with pytest.raises(LayerError, match=f"no layer '{layer}' in Sequential: {near}"):
            fv.attach(small_cnn)
        assert fv.model is None
    check_usable(small_cnn)


@pytest.mark.parametrize(
    ("objective", "match"),
    [
        ("conv1:6", "no channel 6 in layer 'conv1': it has 6 channels, 0 to 5"),
        ("head:99", "no channel 99 in layer 'head': it has 4 channels, 0 to 3"),
        (obj.Channel("conv2", channels=[0, 5]), "no channel 5 in layer 'conv2': it has 5 channels"),
        (["conv1:5", "conv2:5"], "no channel 5 in layer 'conv2': it has 5 channels"),
        (obj.Neuron("conv1:6"), "no channel 6 in layer 'conv1'"),
        ("conv2:0:6:0", r"no position 6:0 in layer 'conv2': its positions are \(6, 5\)"),
        ("conv2:0:0:5", r"no position 0:5 in layer 'conv2': its positions are \(6, 5\)"),
        (obj.ClassLogit(4), "no channel 4 in layer 'output': it has 4 channels"),
    ],
)
def test_a_unit_that_its_layer_does_not_have_is_an_error_at_attach(small_cnn, objective, match):
    with pytest.raises(UnitError, match=match):
        attached(small_cnn, objective, obj.as_objective(objective).images or 1)
    check_usable(small_cnn)


def test_a_direction_that_does_not_fit_is_an_error_at_attach(small_cnn):
    with pytest.raises(ShapeError, match="a direction of 7 channels does not fit layer 'conv1', which has 6"):
        attached(small_cnn, obj.Direction("conv1", torch.ones(7)))
    check_usable(small_cnn)


class Detour(nn.Module):
    """Has a layer that the forward pass never reaches."""

    def __init__(self):
        super().__init__()
        self.conv2, self.auxiliary = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv2(x)


def test_a_layer_that_the_forward_pass_never_reaches_is_an_error_at_attach(watched):
    model = watched(Detour())
    for objective in ("auxiliary:0", obj.Layer("conv2") + "auxiliary:0"):
        with pytest.raises(UnreachedLayerError, match="'auxiliary' was never reached in the forward pass"):
            attached(model, objective)
    check_usable(model)


def test_an_error_of_the_model_in_front_of_the_layer_comes_through_at_attach(small_cnn):
    gray = Pipeline(param.FFTImage(1, 1, 12, 9), "conv2:0")
    with pytest.raises(RuntimeError, match="expected input.* to have 3 channels, but got 1 channels"):
        gray.attach(small_cnn)
    assert gray.model is None
    check_usable(small_cnn)


def test_a_transform_that_returns_no_batch_is_an_error_at_attach(small_cnn):
    fv = Pipeline(param.Transform(generator(2), lambda x: x[0]), "conv2:0")
    with pytest.raises(ShapeError, match="<lambda>.* must return 2 pictures"):
        fv.attach(small_cnn)
    shrinking = Pipeline(param.Transform(generator(2), robustness.Jitter(9)), "conv2:0")
    with pytest.raises(ShapeError, match="nothing is left of a picture"):
        shrinking.attach(small_cnn)


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda activations: activations["conv2"], r"\(3, 5, 6, 5\)"),
        (lambda activations: activations["conv2"].mean((2, 3)), r"\(3, 5\)"),
        (lambda activations: activations["conv2"][:2].mean((1, 2, 3)), r"\(2,\)"),
        (lambda activations: activations["conv2"].sum().item(), "float"),
        (lambda activations: None, "NoneType"),
    ],
)
def test_a_function_that_returns_no_score_is_an_error_at_attach(small_cnn, function, got):
    match = rf"the score of Function\('mine'\) must be a tensor \(3,\) or of one number, got {got}"
    with pytest.raises(ShapeError, match=match):
        attached(small_cnn, obj.Function(function, "conv2", name="mine"), images=3)
    check_usable(small_cnn)


def test_a_failed_attach_keeps_the_model_that_was_attached(small_cnn, watched):
    fv = attached(small_cnn)
    with pytest.raises(LayerError):
        fv.attach(watched(nn.Sequential(nn.Conv2d(3, 4, 3))))
    assert fv.model is small_cnn
    assert run(fv, 2).steps == 2


# ---------------------------------------------------------------- at the call of optimize


def test_optimize_before_attach_says_what_to_call(small_cnn):
    fv = Pipeline(generator(), "conv2:1")
    with pytest.raises(NotAttachedError, match=r"call attach\(model\) before optimize\(\)"):
        fv.optimize()
    fv.attach(small_cnn).detach()
    with pytest.raises(NotAttachedError):
        fv.optimize()


def test_a_model_on_another_device_is_an_error_that_names_both():
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).to("meta")
    fv = attached(model, "0:1")
    with pytest.raises(
        DeviceError, match=r"model is on meta and the pictures are on cpu: Pipeline.to\('meta'\)"
    ):
        run(fv)
    assert all(p.requires_grad for p in model.parameters())
    assert model.training


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"epochs": -1}, "a number of steps, 0 or more, got -1"),
        ({"snapshots": [0, 6, 9]}, r"snapshots at \[6, 9\] are not among the steps 0 to 5"),
        ({"snapshots": [-1]}, r"snapshots at \[-1\] are not among the steps 0 to 5"),
        ({"snapshots": 0}, "n is at least 1, got 0"),
        ({"snapshots": -2}, "n is at least 1, got -2"),
    ],
)
def test_steps_that_make_no_sense_are_errors_before_the_first_step(small_cnn, options, match):
    fv = attached(small_cnn)
    before, first = fv.image, run(fv, 0)
    with pytest.raises(ArgumentError, match=match):
        run(fv, **options)
    assert torch.equal(fv.image, before)
    assert fv.result is first


def test_an_optimizer_that_refuses_its_arguments_leaves_nothing_behind(small_cnn):
    fv = attached(small_cnn)
    with pytest.raises(ValueError, match="Invalid learning rate"):
        run(fv, lr=-1.0)
    check_usable(small_cnn)


# ---------------------------------------------------------------- numbers that are not finite


class Breaking:
    """An objective's function that starts to return what it is told to at a chosen call."""

    def __init__(self, factor):
        self.factor, self.broken = factor, False

    def __call__(self, activations):
        score = activations["conv2"].flatten(1).mean(1)
        return torch.cat([score[:1], score[1:] * self.factor]) if self.broken else score


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", [1, 2, 5])
@pytest.mark.parametrize("kind", [param.FFTImage, param.PixelImage, param.Neural])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_pictures(small_cnn, factor, at, kind):
    breaking = Breaking(factor)
    fv = Pipeline(generator(2, kind), obj.Function(breaking, "conv2")).attach(small_cnn)
    images = {0: fv.image}

    def callback(progress):
        images[progress.step] = progress.image
        breaking.broken = progress.step == at - 1

    breaking.broken = at == 1
    with pytest.raises(
        NonFiniteError, match=rf"the loss became .*(nan|inf)\] at step {at}; .*'conv2'"
    ) as caught:
        run(fv, callback=callback)
    assert isinstance(caught.value, ArithmeticError)
    assert max(images) == at - 1
    assert torch.equal(fv.image, images[max(at - 2, 0)])  # which gave the last finite loss
    assert fv.image.isfinite().all()
    assert fv.result is None
    assert all(p.is_leaf and p.requires_grad and p.grad is None for p in fv.generator.parameters)
    breaking.broken = False
    assert run(fv, 2).losses.isfinite().all()


def test_a_loss_that_is_looked_at_late_as_on_an_accelerator_names_the_first_bad_step(small_cnn, monkeypatch):
    class Late(optimize._Guard):
        def __init__(self, task, pictures):
            super().__init__(task, pictures)
            self.every = 32

    monkeypatch.setattr(optimize, "_Guard", Late)
    breaking, images = Breaking(float("nan")), {}
    fv = Pipeline(generator(2), obj.Function(breaking, "conv2")).attach(small_cnn)

    def callback(progress):
        images[progress.step] = progress.image
        breaking.broken = progress.step == 2

    with pytest.raises(NonFiniteError, match=r"the loss became .*nan\] at step 3;"):
        run(fv, 7, callback=callback)
    assert max(images) == 7
    assert torch.equal(fv.image, images[1])


def without_gradient(activations):
    """Finite, and with a gradient of 0 times infinity."""
    score = activations["conv2"].flatten(1).mean(1)
    return score + (score - score.detach()).abs().sqrt()


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_gradient_that_is_not_finite_stops_and_keeps_the_last_good_pictures(small_cnn, epochs):
    fv = attached(small_cnn, obj.Function(without_gradient, "conv2"))
    before = fv.image
    with pytest.raises(NonFiniteError, match="at step 1;" if epochs == 1 else "at step 2;"):
        run(fv, epochs)
    assert torch.equal(fv.image, before)
    check_usable(small_cnn)


def test_a_network_that_overflows_names_the_layer(watched):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with torch.no_grad():
        model[0].weight.fill_(3e38)
    with pytest.raises(NonFiniteError, match="infinite activations in '1'"):
        run(attached(watched(model), "1:0"))


def test_the_last_good_pictures_are_what_is_shown_after_an_error(small_cnn, tmp_path):
    breaking = Breaking(float("nan"))
    fv = Pipeline(generator(2), obj.Function(breaking, "conv2")).attach(small_cnn)
    stale = run(fv, 1).images
    with pytest.raises(NonFiniteError):
        run(fv, callback=lambda progress: setattr(breaking, "broken", progress.step == 3))
    fv.save(tmp_path / "shown.safetensors")
    shown = type(run(fv, 0)).load(tmp_path / "shown.safetensors")
    assert torch.equal(shown.images, fv.image)
    assert not torch.equal(shown.images, stale)


def test_a_seeded_run_that_fails_gives_the_global_generator_back(small_cnn):
    fv = Pipeline(param.Transform(generator(2), robustness.light()), obj.Function(Breaking(1.0), "conv2"))
    fv.attach(small_cnn)
    state = torch.get_rng_state()

    def fail(progress):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(fv, seed=3, callback=fail)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_score_without_gradient_is_named_and_nothing_is_left_behind(small_cnn):
    constant = obj.Function(
        lambda activations: activations["conv1"].detach().mean(), ["conv1"], name="cut off"
    )
    pipeline = obj.Pipeline(param.PixelImage(1, 3, 8, 8, seed=0), constant).attach(small_cnn)
    with pytest.raises(ArgumentError, match=r"nothing to optimize: the score of Function\('cut off'\)"):
        pipeline.optimize(2, verbose=False)
