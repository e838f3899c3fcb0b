"""The pipeline: what a run computes, what it leaves alone, and how it is watched, stopped and repeated."""

from functools import partial

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from torch import nn

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.cnns import Pipeline, robustness

SIZE = (12, 9)


def pipeline(model, objective="conv2:1", images=1, size=SIZE, transform=None, sd=0.1):
    generator = param.FFTImage(images, 3, *size, sd=sd, seed=1)
    if transform is not None:
        generator = param.Transform(generator, transform)
    return Pipeline(generator, objective).attach(model)


def run(fv, epochs=5, **options):
    return fv.optimize(epochs, verbose=False, **options)


def moved(image):
    """A fixed transform, so that runs can be compared."""
    return nn.functional.pad(image.flip(-1), (1, 2, 0, 1), value=0.5) * 1.1


class Spy(nn.Module):
    """Notes what it sees in each of its calls, and the state of other modules then."""

    def __init__(self):
        super().__init__()
        self.others, self.notes, self.states = [], [], []

    def forward(self, x):
        self.notes.append(x.detach().clone())
        for module in self.others:
            self.states.append((any(p.requires_grad for p in module.parameters()), module.training))
        return x


def network(*layers):
    torch.manual_seed(0)
    return nn.Sequential(*layers)


# ---------------------------------------------------------------- the loop


class CountingAdam(torch.optim.Adam):
    steps = 0

    def step(self, *args, **kwargs):
        type(self).steps += 1
        return super().step(*args, **kwargs)


@pytest.mark.parametrize("epochs", [0, 1, 7])
def test_one_optimizer_step_an_epoch(small_cnn, epochs, monkeypatch):
    monkeypatch.setattr(CountingAdam, "steps", 0)
    result = run(pipeline(small_cnn, images=2), epochs, optimizer=CountingAdam)
    assert CountingAdam.steps == epochs
    assert result.steps == epochs
    assert result.losses.shape == (epochs, 2)
    assert result.ended == "finished"


def test_the_first_losses_are_minus_the_scores_of_the_start(small_cnn):
    fv = pipeline(small_cnn, images=2)
    with torch.no_grad():
        activation = nn.Sequential(small_cnn.conv1, nn.ReLU(), small_cnn.conv2)(fv.image)
    torch.testing.assert_close(run(fv).losses[0], -activation[:, 1].mean((1, 2)))


def test_a_layer_in_front_of_a_relu_in_place_is_seen_as_it_left_the_layer(small_cnn):
    for objective in ("conv1:0", obj.Channel("conv1:0") + 0 * obj.Layer("conv2")):
        fv = pipeline(small_cnn, objective)
        with torch.no_grad():
            activation = small_cnn.conv1(fv.image)
        assert activation[:, 0].min() < 0
        torch.testing.assert_close(run(fv).losses[0], -activation[:, 0].mean((1, 2)))


def test_a_step_of_plain_gradient_descent_is_the_gradient_of_the_score(small_cnn):
    fv = pipeline(small_cnn, images=2)
    before = fv.generator.parameters[0].detach().clone()
    reference = param.FFTImage(2, 3, *SIZE, sd=0.1, seed=1)
    activation = nn.Sequential(small_cnn.conv1, nn.ReLU(), small_cnn.conv2)(reference.get_image())
    (gradient,) = torch.autograd.grad(activation[:, 1].mean((1, 2)).sum(), reference.parameters[0])
    run(fv, 1, optimizer=torch.optim.SGD, lr=2.0)
    torch.testing.assert_close(fv.generator.parameters[0].detach(), before + 2 * gradient)


def test_optimizer_and_learning_rate_are_the_users(small_cnn):
    fv = pipeline(small_cnn)
    before = fv.image
    with pytest.warns(UserWarning, match="did not move in 2 steps"):
        run(fv, 2, lr=0.0)
    assert torch.equal(fv.image, before)
    run(fv, 2, optimizer=partial(torch.optim.AdamW, weight_decay=0.1), lr=0.01)
    assert not torch.equal(fv.image, before)


def test_a_run_raises_the_score(small_cnn):
    losses = run(pipeline(small_cnn, images=2), 20).losses
    assert (losses[-1] < losses[0] - 0.01).all()


def test_a_second_run_goes_on_from_the_first(small_cnn):
    options = {"optimizer": torch.optim.SGD, "lr": 5.0}  # which has no memory
    once, twice = pipeline(small_cnn), pipeline(small_cnn)
    whole = run(once, 6, **options)
    first = run(twice, 4, **options)
    second = run(twice, 2, **options)
    assert torch.equal(second.images, whole.images)
    assert torch.equal(torch.cat([first.losses, second.losses]), whole.losses)
    assert twice.result is second


def test_the_result_is_a_copy_on_the_cpu_without_graph(small_cnn):
    fv = pipeline(small_cnn)
    result = run(fv)
    assert torch.equal(result.images, fv.image)
    images = result.images.clone()
    run(fv)
    assert torch.equal(result.images, images)
    for tensor in (result.images, result.losses):
        assert not tensor.requires_grad
        assert tensor.device.type == "cpu"


def test_it_runs_where_gradients_are_switched_off(small_cnn):
    with torch.no_grad():
        losses = run(pipeline(small_cnn)).losses
        assert not torch.is_grad_enabled()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (17, 30), (31, 20)])
@pytest.mark.parametrize(
    "kind", [param.FFTImage, param.PixelImage, partial(param.Neural, hidden=4, layers=2)]
)
def test_odd_and_oblong_sizes_and_batches(small_cnn, size, kind):
    for transform in (None, robustness.light(), T.Compose([T.Pad(3), T.RandomRotation((-10, 11))])):
        generator = kind(2, 3, *size, seed=1)
        shown = generator if transform is None else param.Transform(generator, transform)
        result = run(Pipeline(shown, "conv2:1").attach(small_cnn), 2)
        assert result.images.shape == (2, 3, *size)
        assert result.losses.shape == (2, 2)


def test_the_pipeline_of_the_readme_runs_with_every_kind_of_transform(small_cnn):
    transform = T.Compose([T.Pad(12), T.RandomRotation((-10, 11)), T.Lambda(lambda x: x * 255 - 117)])
    fv = obj.Pipeline(param.Transform(param.FFTImage(1, 3, 22, 22), transform), obj.Channel("conv2:3"))
    fv.attach(small_cnn)
    fv.to(torch.device("cpu"))
    assert fv.optimize(2, verbose=False).images.shape == (1, 3, 22, 22)


def test_the_network_sees_the_transformed_picture_and_the_objective_the_plain_one(watched):
    spy = Spy()
    model = watched(network(spy, nn.Conv2d(3, 2, 3)))
    fv = pipeline(model, obj.Layer("1") - obj.TotalVariation(), transform=moved)
    start = fv.image
    spy.notes.clear()
    result = run(fv, 1)
    torch.testing.assert_close(spy.notes, [moved(start)])
    with torch.no_grad():
        expected = model(moved(start)).flatten(1).mean(1) - obj.TotalVariation().score({obj.IMAGE: start})
    torch.testing.assert_close(-result.losses[0], expected)


# ---------------------------------------------------------------- what is left alone


def test_nothing_of_a_partly_frozen_partly_training_model_changes(watched):
    model = network(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 2, 3))
    model[0].weight.requires_grad_(False)
    model[1].eval()
    model[4].eval()
    model[4].bias.grad = torch.ones(2)
    watched(model)
    run(pipeline(model, obj.Channel("4:1") + "1:0"))
    assert torch.equal(model[4].bias.grad, torch.ones(2))


def test_batch_normalization_in_training_mode_keeps_its_statistics(watched):
    model = watched(network(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).train(), nn.ReLU()))
    assert model.training
    run(pipeline(model, "2:1"))
    assert model[1].num_batches_tracked == 0


def test_the_model_is_frozen_and_in_evaluation_mode_meanwhile(watched):
    spy = Spy()
    model = watched(network(nn.Conv2d(3, 4, 3), spy, nn.Dropout(), nn.Conv2d(4, 2, 3)))
    fv = pipeline(model, "3:1")
    spy.others = [model[0], model[2], model[3]]
    run(fv, 3)
    assert spy.states == [(False, False)] * 9


def test_no_gradient_is_left_on_the_parameters_of_the_pictures(small_cnn):
    fv = pipeline(small_cnn)
    run(fv)
    assert all(parameter.grad is None for parameter in fv.generator.parameters)
    assert all(parameter.requires_grad for parameter in fv.generator.parameters)


def test_attach_leaves_pictures_and_global_generators_alone(small_cnn):
    generator = param.Transform(param.FFTImage(1, 3, *SIZE, seed=1), robustness.light())
    fv, before, state = Pipeline(generator, "conv1:0"), generator.numpy(), torch.get_rng_state()
    assert fv.attach(small_cnn) is fv
    np.testing.assert_array_equal(generator.numpy(), before)
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------- cut off


def test_modules_behind_the_deepest_layer_never_run(watched):
    spies = [Spy() for _ in range(4)]
    convs = [nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)]
    model = watched(network(spies[0], convs[0], spies[1], convs[1], spies[2], convs[2], spies[3]))
    for objective, reached in [("1:0", 1), (obj.Layer("3") + "1:0", 2), (["5:0"], 3), (obj.ClassLogit(0), 4)]:
        fv = pipeline(model, objective)
        for spy in spies:
            spy.notes.clear()
        run(fv, 3)
        assert [len(spy.notes) for spy in spies] == [3] * reached + [0] * (4 - reached)


def test_an_objective_on_the_picture_alone_never_runs_the_model(watched):
    spy = Spy()
    fv = pipeline(watched(network(spy)), -obj.TotalVariation())
    spy.notes.clear()
    losses = run(fv, 3).losses
    assert losses[-1] < losses[0]
    assert spy.notes == []


def test_a_head_that_takes_one_size_only_does_not_matter_behind_the_layer(watched):
    model = watched(network(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 2)))
    assert run(pipeline(model, "0:1", size=(13, 9))).steps == 5
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        pipeline(model, "2:1", size=(13, 9))


class SharedReLU(nn.Module):
    """One ReLU called twice, as in a basic block of a ResNet, and a tail."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.tail = nn.ReLU(inplace=True), Spy()

    def forward(self, x):
        hidden = self.relu(self.conv1(x))
        return self.tail(self.relu(self.conv2(hidden) + hidden))


@pytest.mark.parametrize("objective", ["relu:2", obj.Channel("relu:2") + 0 * obj.Layer("conv1")])
def test_a_layer_that_runs_twice_gives_its_last_run_and_the_pass_ends_there(watched, objective):
    model = watched(SharedReLU())
    fv = pipeline(model, objective)
    with torch.no_grad():
        expected = model(fv.image)[:, 2].mean((1, 2))
    model.tail.notes.clear()
    torch.testing.assert_close(run(fv).losses[0], -expected)
    assert model.tail.notes == []


class Reshaping(nn.Module):
    """Reshapes its maps with `view`, which maps with the channels last cannot take."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        maps = self.conv(x)
        return self.linear(maps.view(len(x), 4, -1).mean(2))


def test_networks_and_functions_that_reshape_maps_with_view_run(watched, small_cnn):
    losses = run(pipeline(watched(Reshaping()), "linear:1")).losses
    assert losses[-1] < losses[0]
    flat = obj.Function(lambda activations: activations["conv1"].view(2, -1).mean(1), "conv1")
    losses = run(pipeline(small_cnn, flat, images=2)).losses
    assert (losses[-1] < losses[0]).all()


# ---------------------------------------------------------------- watching and stopping


def test_snapshots_are_the_pictures_after_the_steps_that_were_asked_for(small_cnn):
    seen = {}
    fv = pipeline(small_cnn)
    seen[0] = fv.image
    result = run(fv, 7, snapshots=[0, 3, 7], callback=lambda progress: seen.update({progress.step: fv.image}))
    assert list(result.snapshots) == [0, 3, 7]
    for step, picture in result.snapshots.items():
        assert torch.equal(picture, seen[step])
    assert torch.equal(result.snapshots[7], result.images)


@pytest.mark.parametrize(("every", "steps"), [(1, [0, 1, 2, 3, 4, 5, 6, 7]), (3, [0, 3, 6]), (9, [0])])
def test_snapshots_every_so_many_steps_begin_with_the_start(small_cnn, every, steps):
    assert list(run(pipeline(small_cnn), 7, snapshots=every).snapshots) == steps


def test_snapshots_may_be_any_iterable(small_cnn):
    assert list(run(pipeline(small_cnn), 4, snapshots=iter((4, 2))).snapshots) == [2, 4]
    assert list(run(pipeline(small_cnn), 4, snapshots=np.arange(0, 5, 2)).snapshots) == [0, 2, 4]
    assert run(pipeline(small_cnn), 4).snapshots == {}


def test_a_callback_sees_each_step(small_cnn):
    seen = []
    fv = pipeline(small_cnn, images=2)

    def callback(progress):
        assert progress.losses.shape == (progress.step, 2)
        assert torch.equal(progress.image, fv.image)
        assert not progress.image.requires_grad
        seen.append((progress.step, progress.losses.clone()))

    result = run(fv, 4, callback=callback)
    assert [step for step, _ in seen] == [1, 2, 3, 4]
    assert torch.equal(seen[-1][1], result.losses)


def test_a_stop_criterion_ends_the_run(small_cnn):
    result = run(pipeline(small_cnn), 50, stop=lambda progress: progress.step == 3, snapshots=2)
    assert (result.ended, result.steps, list(result.snapshots)) == ("stopped", 3, [0, 2])
    enough = result.losses[0].item() - 0.02
    threshold = run(pipeline(small_cnn), 200, stop=lambda progress: progress.losses[-1].item() < enough)
    assert threshold.losses[-1].item() < enough
    assert (threshold.losses[:-1] >= enough).all()


class Interrupting(nn.Module):
    """Presses Ctrl-C in the pass of this number."""

    def __init__(self, at):
        super().__init__()
        self.left = at

    def forward(self, x):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return x


class InterruptedAdam(CountingAdam):
    def step(self, *args, **kwargs):
        if type(self).steps == 3:
            raise KeyboardInterrupt
        return super().step(*args, **kwargs)


@pytest.mark.parametrize("where", ["callback", "forward", "optimizer"])
def test_ctrl_c_returns_what_there_is(watched, where, monkeypatch):
    monkeypatch.setattr(InterruptedAdam, "steps", 0)
    breaker = Interrupting(at=0)
    model = watched(network(breaker, nn.Conv2d(3, 4, 3)))
    images = {}

    def callback(progress):
        images[progress.step] = progress.image
        if where == "callback" and progress.step == 3:
            raise KeyboardInterrupt

    fv = pipeline(model, "1:2")
    breaker.left = 4 if where == "forward" else 0
    optimizer = InterruptedAdam if where == "optimizer" else torch.optim.Adam
    result = run(fv, 50, callback=callback, snapshots=[2], optimizer=optimizer)
    assert (result.ended, result.steps, list(images)) == ("interrupted", 3, [1, 2, 3])
    assert torch.equal(result.images, images[3])
    assert torch.equal(result.snapshots[2], images[2])
    assert fv.result is result


def test_an_exception_of_a_callback_comes_through_and_leaves_nothing_behind(small_cnn):
    def callback(progress):
        raise ZeroDivisionError

    fv = pipeline(small_cnn)
    with pytest.raises(ZeroDivisionError):
        run(fv, callback=callback)
    assert all(parameter.grad is None for parameter in fv.generator.parameters)


def test_verbose_shows_a_bar_and_otherwise_nothing_is_printed(small_cnn, capsys):
    fv = pipeline(small_cnn)
    fv.optimize(40, verbose=False)
    assert capsys.readouterr() == ("", "")
    fv.optimize(40)
    assert "40/40" in capsys.readouterr().err


# ---------------------------------------------------------------- seeds


def test_one_seed_gives_one_result_and_leaves_the_global_generator_alone(small_cnn):
    runs = []
    for seed in (7, 7, 8):
        fv = pipeline(small_cnn, transform=robustness.light())
        torch.manual_seed(len(runs))
        state = torch.get_rng_state()
        runs.append(run(fv, seed=seed))
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(runs[0].images, runs[1].images)
    assert torch.equal(runs[0].losses, runs[1].losses)
    assert not torch.equal(runs[0].images, runs[2].images)


def test_without_a_seed_transforms_draw_from_the_global_generator(small_cnn):
    runs = []
    for seed in (7, 7, 8):
        fv = pipeline(small_cnn, transform=robustness.light())
        torch.manual_seed(seed)
        runs.append(run(fv).images)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


# ---------------------------------------------------------------- precision


def test_autocast_is_around_the_model_alone(watched):
    spy, seen = Spy(), []
    model = watched(network(nn.Conv2d(3, 4, 3), spy, nn.Conv2d(4, 2, 3)))

    def transform(image):
        seen.append((image.dtype, torch.is_autocast_enabled("cpu")))
        return image

    def function(activations):
        seen.append((activations["2"].dtype, torch.is_autocast_enabled("cpu")))
        return activations["2"].flatten(1).mean(1)

    fv = pipeline(model, obj.Function(function, "2"), transform=transform)
    spy.notes.clear()
    seen.clear()
    result = run(fv, 3, autocast=torch.bfloat16)
    assert [note.dtype for note in spy.notes] == [torch.bfloat16] * 3
    assert seen == [(torch.float32, False)] * 6
    assert result.images.dtype == result.losses.dtype == torch.float32
    plain = run(pipeline(model, "2"), 3)
    torch.testing.assert_close(result.losses, plain.losses, atol=0.02, rtol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_network_may_have_another_precision_than_the_picture(watched, dtype):
    spy = Spy()
    model = watched(network(spy, nn.Conv2d(3, 4, 3), nn.ReLU()).to(dtype))
    fv = pipeline(model, obj.Layer("2") - 0.001 * obj.TotalVariation(), images=2)
    result = run(fv, 10)
    assert {note.dtype for note in spy.notes} == {dtype}
    assert fv.generator.parameters[0].dtype == result.images.dtype == result.losses.dtype == torch.float32
    assert (result.losses[-1] < result.losses[0]).all()


# ---------------------------------------------------------------- many units at once


def single(model, objective, coefficients, index, transform):
    fv = pipeline(model, objective, transform=transform)
    with torch.no_grad():
        fv.generator.parameters[0].copy_(coefficients[index : index + 1])
    return run(fv, 8)


MANY = [
    (obj.Channel("conv2", channels=[3, 0, 3]), ["conv2:3", "conv2:0", "conv2:3"]),
    (["conv2:3", "conv2:0:1:2", "conv2"], ["conv2:3", "conv2:0:1:2", "conv2"]),
    (["head:2", "conv1:5", "conv2:4"], ["head:2", "conv1:5", "conv2:4"]),
    (
        obj.PerImage("conv1:5", obj.DeepDream("conv2"), "relu1:0") - 0.001 * obj.TotalVariation(),
        [part - 0.001 * obj.TotalVariation() for part in (obj.Channel("conv1:5"), obj.DeepDream("conv2"))]
        + [obj.Channel("relu1:0") - 0.001 * obj.TotalVariation()],
    ),
    (obj.Direction("conv2", torch.eye(5)[:3]), [obj.Direction("conv2", row) for row in torch.eye(5)[:3]]),
]


@pytest.mark.parametrize(("together", "alone"), MANY, ids=[str(pair[0]) for pair in MANY])
@pytest.mark.parametrize("transform", [None, moved])
def test_many_units_in_one_batch_equal_single_runs(small_cnn, together, alone, transform):
    fv = pipeline(small_cnn, together, images=3, transform=transform)
    coefficients = fv.generator.parameters[0].detach().clone()
    batch = run(fv, 8)
    for index, objective in enumerate(alone):
        one = single(small_cnn, objective, coefficients, index, transform)
        torch.testing.assert_close(batch.losses[:, index], one.losses[:, 0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(batch.images[index], one.images[0], atol=1e-3, rtol=0)


def test_many_units_have_their_titles(small_cnn):
    assert run(pipeline(small_cnn, ["conv1:2", "head:3"], images=2), 1).titles == ("conv1:2", "head:3")
    assert run(pipeline(small_cnn), 1, tv_loss=True).titles == ("conv2:1",)
    channels = obj.Channel("conv2", channels=[3, 0])
    assert run(pipeline(small_cnn, channels, images=2), 1, tv_loss=True).titles == ("conv2:3", "conv2:0")


# ---------------------------------------------------------------- weights and regularizers


def total_variation(images):
    return obj.TotalVariation().score({obj.IMAGE: images})


def test_tv_loss_lowers_the_total_variation(small_cnn):
    plain = run(pipeline(small_cnn, images=2), 20)
    start = total_variation(pipeline(small_cnn, images=2).image)
    for given, weight, share in ((True, 0.001, 1.0), (0.15, 0.15, 0.9)):
        smooth = run(pipeline(small_cnn, images=2), 20, tv_loss=given)
        assert (total_variation(smooth.images) < share * total_variation(plain.images)).all()
        torch.testing.assert_close(smooth.losses[0], plain.losses[0] + weight * start)


@pytest.mark.filterwarnings("ignore:the picture did not move")
def test_tv_loss_holds_for_one_run_only(small_cnn):
    fv = pipeline(small_cnn)
    plain = run(fv, 1, lr=0.0).losses
    run(fv, 1, lr=0.0, tv_loss=True)
    assert torch.equal(run(fv, 1, lr=0.0).losses, plain)


def test_weights_weigh(small_cnn):
    plain = run(pipeline(small_cnn, obj.Channel("conv2:1")), 1).losses
    doubled = run(pipeline(small_cnn, 2 * obj.Channel("conv2:1") + 3), 1).losses
    torch.testing.assert_close(doubled, 2 * plain - 3)


def test_a_function_may_give_one_number_for_all_pictures(small_cnn):
    coupled = obj.Function(lambda activations: activations["conv2"].mean(), "conv2")
    losses = run(pipeline(small_cnn, coupled, images=3)).losses
    assert losses.shape == (5, 3)
    assert torch.equal(losses, losses[:, :1].expand(5, 3))
    assert losses[-1, 0] < losses[0, 0]


# ---------------------------------------------------------------- the object


def test_a_pipeline_can_be_attached_to_one_model_after_another(small_cnn, watched):
    other = watched(network(nn.Conv2d(3, 4, 3), nn.ReLU()))
    other.conv2 = other[0]
    fv = pipeline(small_cnn)
    run(fv, 2)
    picture = fv.image
    assert fv.model is small_cnn
    assert fv.detach().model is None
    assert fv.attach(other).model is other
    assert torch.equal(fv.image, picture)
    assert run(fv, 2).steps == 2


def test_to_moves_pictures_and_model():
    fv = pipeline(network(nn.Conv2d(3, 4, 3)), "0:1")
    assert fv.to("meta") is fv
    assert fv.generator.device.type == "meta"
    assert fv.model[0].weight.device.type == "meta"


def test_it_prints_what_it_is(small_cnn):
    fv = Pipeline(param.FFTImage(1, 3, 8, 8), obj.Channel("conv1:2") - 0.1 * obj.L1())
    assert repr(fv) == "Pipeline(FFTImage, Channel('conv1:2') - 0.1*L1())"
    assert repr(fv.attach(small_cnn)).endswith("0.1*L1(), attached to Sequential)")


def test_plot_and_save_show_the_start_before_a_run_and_the_result_after_it(small_cnn, tmp_path):
    from matplotlib import pyplot
    from PIL import Image

    fv = pipeline(small_cnn)
    for file in ("start.png", "end.png"):
        fv.save(tmp_path / file)
        pixels = np.asarray(Image.open(tmp_path / file)) / 255
        np.testing.assert_allclose(pixels, fv.generator.numpy()[0], atol=0.5 / 255 + 1e-6)
        axes = fv.plot()
        shown = axes.images[0].get_array()[-SIZE[0] :]  # below the title
        np.testing.assert_allclose(shown, fv.generator.numpy()[0], atol=1e-6)
        assert [text.get_text() for text in axes.texts] == ["conv2:1"]
        assert fv.plot(ax=axes) is axes
        pyplot.close(axes.figure)
        run(fv)
