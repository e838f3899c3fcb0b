"""Threads do not disturb each other: on one model the second waits, and each has its own random numbers."""

import random
import threading
import time
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from toumei.attribution import IntegratedGradients, Saliency
from toumei.cnns import Pipeline, parameterization, robustness
from toumei.core import evaluating, frozen, hooked, run, seeded, survey
from toumei.core.errors import BusyModelError, ToumeiError
from toumei.core.modules import wrapped_forward
from toumei.core.threads import alone
from toumei.instrument import Probe, fmrai, instrument, instrument_model


def together(*calls, apart=0.0):
    """Runs calls in a thread each; returns their results, or errors."""
    results = [None] * len(calls)

    def go(index):
        time.sleep(apart * index)
        try:
            results[index] = calls[index]()
        except Exception as error:
            results[index] = error

    workers = [threading.Thread(target=go, args=(index,), daemon=True) for index in range(len(calls))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert not any(worker.is_alive() for worker in workers), "threads wait for each other for ever"
    return results


class Pause(nn.Module):
    """Lets other threads run in the middle of a pass."""

    def forward(self, x):
        time.sleep(0.02)
        return x


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 4), Pause(), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


# ---------------------------------------------------------------- one model


BLOCKS = {
    "alone": alone,
    "hooked": lambda net: hooked(net, ["0"]),
    "evaluating": evaluating,
    "frozen": frozen,
    "wrapped_forward": lambda net: wrapped_forward(net, lambda forward, args, kwargs: forward(*args)),
    "track": lambda net: Probe(net).track(),
    "track by name": lambda net: Probe(net).track(["0"]),
}


@pytest.mark.parametrize("first", BLOCKS)
@pytest.mark.parametrize("second", ["hooked", "evaluating", "track", "track by name"])
def test_the_second_thread_waits_for_the_first(first, second):
    net, events = network(), []

    def work(name, block):
        with block(net):
            events.append(f"{name} begins")
            time.sleep(0.03)
            events.append(f"{name} ends")

    together(lambda: work("one", BLOCKS[first]), lambda: work("two", BLOCKS[second]), apart=0.01)
    assert events == ["one begins", "one ends", "two begins", "two ends"]


def test_a_part_of_a_model_is_the_same_model_and_another_model_is_not():
    net, other, order = network(), network(), []

    def work(model, name):
        with alone(model):
            time.sleep(0.04)
            order.append(name)

    together(
        lambda: work(net, "whole"),
        lambda: work(net[0], "part"),
        lambda: work(nn.Sequential(net[4], nn.ReLU()), "shared"),
        lambda: (time.sleep(0.01), order.append("other")) if alone(other).__enter__() is None else None,
        apart=0.002,
    )
    assert order.index("other") == 0 and order.index("whole") == 1


def test_attributions_of_one_model_in_training_mode_are_those_of_one_thread():
    net, x = network().train(), torch.randn(3, 4)
    running = net[2].running_mean.clone()
    want = [method(network().train())(x, 1).values for method in (Saliency, IntegratedGradients)]
    calls = [lambda: Saliency(net)(x, 1).values, lambda: IntegratedGradients(net)(x, 1).values] * 2
    for index, got in enumerate(together(*calls, apart=0.01)):
        assert torch.allclose(got, want[index % 2])
    assert all(module.training for module in net.modules())
    assert all(one.requires_grad for one in net.parameters()) and torch.equal(net[2].running_mean, running)


@pytest.mark.parametrize("layer", ["0", "0/linear", "2"])
def test_recordings_of_one_model_hold_the_input_of_their_own_thread(layer):
    net, inputs = network().eval(), torch.randn(4, 2, 4)
    results = together(*[lambda x=x: run(net, x, record=[layer])[layer] for x in inputs], apart=0.005)
    for got, x in zip(results, inputs, strict=True):
        assert torch.equal(got, run(net, x, record=[layer])[layer])


@pytest.mark.parametrize("layer", ["0", "0/linear"])
def test_a_plain_pass_of_another_thread_is_neither_recorded_nor_edited(layer):
    net, x = network().eval(), torch.randn(2, 4)
    plain = net(x)

    def edited():
        with hooked(net, {"seen": layer}, edit={layer: torch.zeros_like}, every=True) as seen:
            net(x)
            time.sleep(0.05)
            return len(seen.calls("seen"))

    count, *others = together(edited, *[lambda: net(x)] * 3, apart=0.01)
    assert count == 1 and all(torch.equal(other, plain) for other in others)


def test_threads_that_would_wait_for_each_other_are_told_so():
    one, two = network(), network()

    def work(first, second):
        with alone(first):
            time.sleep(0.03)
            with alone(second):
                return "done"

    results = together(lambda: work(one, two), lambda: work(two, one))
    assert sorted(type(result).__name__ for result in results) == ["BusyModelError", "str"]
    assert issubclass(BusyModelError, ToumeiError)
    with alone(one), alone(two):
        pass


def test_a_thread_that_died_with_a_model_holds_nobody_up():
    net, block = network(), [None]

    def leave_open():
        block[0] = alone(net)
        block[0].__enter__()

    together(leave_open)
    assert together(lambda: run(net, torch.ones(2, 4), record=["0"])["0"].shape) == [(2, 4)]


# ---------------------------------------------------------------- graphs


def graph_of(net, x):
    with instrument(net) as probe, probe.track() as tracker:
        output = net(x)
    return output, tracker


@pytest.mark.parametrize("models", [1, 2])
def test_graphs_that_are_tracked_at_once_hold_the_pass_of_their_thread(models):
    nets = [network(seed).eval() for seed in range(models)] * 2
    inputs = torch.randn(4, 3, 4)
    calls = [lambda x=x, net=net: graph_of(net, x) for x, net in zip(inputs, nets * 2, strict=False)]
    for (output, tracker), x, net in zip(together(*calls, apart=0.003), inputs, nets * 2, strict=False):
        graph = tracker.build_graph()
        assert torch.equal(output, net(x)) and torch.equal(graph.replay(), output)
        assert list(graph.operations) == list(graph_of(net, x)[1].build_graph().operations)
        assert torch.equal(tracker.build_map()["0/linear#0"], net[0](x))


@pytest.mark.parametrize("only", [None, ["0"]])
def test_a_plain_pass_of_another_thread_is_not_tracked(only):
    net, x = network().eval(), torch.randn(2, 4)
    plain = net(x)

    def tracked():
        with Probe(net).track(only, batched=True) as tracker:
            net(x)
            time.sleep(0.05)
        return tracker.build_map()

    found, *others = together(tracked, *[lambda: net(2 * x)] * 3, apart=0.01)
    assert all(torch.equal(one, net(2 * x)) for one in others) and not torch.equal(others[0], plain)
    assert len(found["0/linear#0" if only is None else "0"]) == 1


def test_each_thread_has_the_scope_of_fmrai_that_it_entered():
    def work(seed):
        net, x = network(seed).eval(), torch.randn(2, 4)
        with fmrai() as scope:
            instrument_model(net)
            time.sleep(0.02)
            with scope.track() as tracker:
                output = net(x)
        return torch.equal(tracker.build_graph().replay(), output)

    assert together(*[partial(work, seed) for seed in range(3)], apart=0.005) == [True] * 3


# ---------------------------------------------------------------- random numbers


def picture(seed):
    """A call that makes a picture for a network, which is another one for each call of this function."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Pause(), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
    moves = robustness.Jitter(2), robustness.Noise(0.2, 0.2)
    shown = parameterization.Transform(parameterization.FFTImage(1, 3, 12, 12, seed=0), *moves)
    pipeline = Pipeline(shown, "3:1").attach(net)
    return lambda: pipeline.optimize(4, verbose=False, seed=seed).images


def test_pictures_of_several_models_at_once_are_those_that_come_out_alone():
    want = [picture(seed)() for seed in (3, 4, 3)]
    got = together(*[picture(seed) for seed in (3, 4, 3)], apart=0.003)
    assert all(map(torch.equal, got, want)) and not torch.equal(want[0], want[1])


THREE = [torch.ones(1, 3, 2)] * 3
DRAWS = {
    "rand": lambda: torch.rand(3),
    "randn": lambda: torch.randn(3),
    "randint": lambda: torch.randint(100, (3,)),
    "randperm": lambda: torch.randperm(9),
    "normal": lambda: torch.normal(torch.zeros(3), torch.ones(3)),
    "bernoulli": lambda: torch.bernoulli(torch.full((9,), 0.5)),
    "multinomial": lambda: torch.ones(9).multinomial(3),
    "uniform_": lambda: torch.empty(3).uniform_(),
    "normal_": lambda: nn.init.normal_(torch.empty(3)),
    "exponential_": lambda: torch.empty(3).exponential_(),
    "rand_like": lambda: torch.rand_like(torch.empty(3)),
    "dropout": lambda: nn.functional.dropout(torch.ones(9), 0.5),
    "dropout module": lambda: nn.Dropout(0.5)(torch.ones(9)),
    "attention": lambda: nn.functional.scaled_dot_product_attention(*THREE, dropout_p=0.5),
    "a layer": lambda: nn.Linear(2, 2).weight.detach(),
    "gumbel": lambda: nn.functional.gumbel_softmax(torch.zeros(4)),
    "distribution": lambda: torch.distributions.Beta(torch.ones(3), torch.ones(3)).sample(),
    "rrelu": lambda: nn.functional.rrelu(-torch.ones(4), training=True),
    "lstm": lambda: nn.LSTM(2, 2, 2, dropout=0.5)(torch.ones(3, 2))[0].detach(),
}


@pytest.mark.parametrize("name", DRAWS)
def test_what_is_drawn_depends_on_the_seed_alone_and_moves_no_global_generator(name):
    draw = DRAWS[name]
    torch.manual_seed(7)
    want = draw()  # as from the global generator with this seed
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with seeded(7):
        got = draw()
    assert torch.equal(got, want) and torch.equal(torch.get_rng_state(), before)


def test_seeded_blocks_of_several_threads_and_the_global_generator_are_apart():
    def draws(seed):
        with seeded(seed) if seed is not None else nullcontext():
            return [one for _ in range(10) for one in (draw(), nn.functional.dropout(torch.ones(4)))]

    def draw():
        time.sleep(0.002)
        return torch.rand(2)

    torch.manual_seed(0)
    want = [draws(None), draws(1), draws(2)]
    torch.manual_seed(0)
    got = together(lambda: draws(None), lambda: draws(1), lambda: draws(2))
    assert all(
        torch.equal(torch.cat(some), torch.cat(others)) for some, others in zip(got, want, strict=True)
    )


def test_the_states_of_numpy_and_random_come_back_whichever_block_ends_first():
    np.random.seed(0)
    random.seed(0)
    states = np.random.get_state()[1].copy(), random.getstate()

    def block(seconds):
        with seeded(3):
            np.random.rand()
            random.random()
            time.sleep(seconds)

    for first, second in ((0.02, 0.05), (0.05, 0.02)):
        together(partial(block, first), partial(block, second), apart=0.01)
        assert (np.random.get_state()[1] == states[0]).all() and random.getstate() == states[1]


def test_blocks_in_each_other_go_on_where_they_were():
    def draws():
        return [torch.rand(2), nn.functional.alpha_dropout(torch.ones(9)), torch.tensor(np.random.rand())]

    with seeded(2):
        inner = draws()
    with seeded(1):
        want = draws() + draws()
    with seeded(1):
        got = draws()
        with seeded(2):
            assert all(map(torch.equal, draws(), inner))
        got += draws()
    assert all(map(torch.equal, got, want))


def test_a_survey_draws_what_the_pass_after_it_draws():
    net = nn.Sequential(Drawing())
    x = torch.ones(3)
    for block in (nullcontext(), seeded(4)):
        with block:
            found = survey(net, ["0"], lambda: net(x)).activations["0"]
            assert torch.equal(found, net(x))
            assert not torch.equal(torch.rand(2), torch.rand(2))


class Drawing(nn.Module):
    """A network that draws random numbers in evaluation mode, too."""

    def forward(self, x):
        return nn.functional.dropout(x) + torch.rand(3)
