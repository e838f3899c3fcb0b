"""Graphs that compute their pass again, with the same and with other values."""

from contextlib import nullcontext
from functools import cache

import pytest
import torch
from models_to_trace import TOKENS, Tricky, network, scripted
from torch import nn
from torch.nn import functional as F

from toumei.core import hooked
from toumei.core.errors import ArgumentError, LayerError, ReplayError, ShapeError
from toumei.core.seeding import seeded
from toumei.instrument import instrument


def graph_of(model, *args, **kwargs):
    with instrument(model) as probe, probe.track([]) as tracker:
        model(*args, **kwargs)
    return tracker.build_graph()


@pytest.mark.parametrize("name", ["swin", "lstm", "llama", "bert"])
def test_other_inputs_give_what_the_model_gives(name):
    model, inputs = network(name)
    (x,), _ = inputs()
    graph = graph_of(model, x)
    other = x.flip(1).contiguous()
    with torch.no_grad():
        wanted = model(other)
    wanted = wanted if isinstance(wanted, torch.Tensor) else wanted[0]
    assert torch.equal(graph.replay(other, record=[graph.outputs[0]])[graph.outputs[0].name], wanted)


def test_a_changed_tensor_changes_what_an_edit_changes():
    """The same as an edit of the engine at every tensor of a language model."""
    model, _ = network("gpt2")
    graph = graph_of(model, TOKENS)
    places = [one for one in graph if one.kind == "function" and one.outputs[0].dtype == torch.float32]
    values = graph.replay(record=[one.outputs[0] for one in places])
    for operation in places[::7]:
        node = operation.outputs[0]
        if node.nbytes == 0:  # an edit hands on a copy, a replay changes the view's memory as well
            continue
        value = values[node.name] * 1.5
        with torch.no_grad(), hooked(model, edit={node.name: lambda _, value=value: value}):
            wanted = model(TOKENS).logits
        assert torch.equal(graph.replay({node: value})["logits"], wanted), node.name


def test_training_mode_draws_the_same_numbers_and_changes_nothing(watched):
    model = watched(Tricky().train())
    before = {name: one.clone() for name, one in model.state_dict().items()}
    with instrument(model) as probe, probe.track() as tracker:
        output = model(torch.ones(4, 3))
    model.load_state_dict(before)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    graph = tracker.build_graph()
    first, second = graph.replay(), graph.replay()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first["main"], output["main"]) and torch.equal(second["main"], output["main"])
    assert torch.equal(first["others"][0], output["others"][0]) and first["others"][1:] == (None, 3)


def test_autocast_inside_the_pass():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.randn(2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(x)
        graph = graph_of(model, x)
    assert output.dtype == torch.bfloat16 and torch.equal(graph.replay(), output)


class Switching(nn.Module):
    """Switches gradients off where an operation cannot have them, and on for one that it returns."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        result = torch.empty(2, 3)
        with torch.no_grad():
            torch.add(self.linear(x), 1, out=result)
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.linear(y).pow(2).sum(), y)
        return self.linear(x) + result - gradient


@pytest.mark.parametrize("grad", [False, True])
def test_operations_have_gradients_as_in_the_pass(grad):
    model, x = Switching(), torch.randn(2, 3)
    with torch.set_grad_enabled(grad):
        graph, output = graph_of(model, x), model(x)
        assert torch.equal(graph.replay(), output)
        assert graph.operation("/add#0").gradients is (False if grad else None)
        assert graph.operation("/grad").gradients is (None if grad else True)
        assert not graph.replay(record=["/add#0"])["/add#0"].requires_grad


def test_a_pass_in_inference_mode_is_computed_again_outside_of_it():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.randn(2, 3)
    with torch.inference_mode():
        graph, output = graph_of(model, x.clone()), model(x)
        value = torch.zeros(2, 3)
    assert torch.equal(graph.replay(), output)
    assert torch.equal(graph.replay({"0/linear": value}), value)


class Drawing(nn.Module):
    """Draws from a generator of its own, which it seeds anew in between."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator()

    def forward(self, x):
        first = torch.rand(3, generator=self.generator)
        self.generator.manual_seed(4)
        return x + first + torch.rand(3) + x.clone().uniform_(generator=self.generator)


class Dropping(nn.Module):
    """Draws in three places from the generator of the thread."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        first, second = F.dropout(self.a(x)), F.dropout(self.b(x))
        return first + 2 * second + torch.rand_like(second)


@pytest.mark.parametrize("during", [nullcontext, lambda: seeded(3), lambda: seeded(4)])
@pytest.mark.parametrize("afterwards", [nullcontext, lambda: seeded(3)])
def test_every_part_of_a_pass_draws_its_numbers_again(during, afterwards):
    model, x = Dropping(), torch.randn(2, 4)
    with during(), instrument(model) as probe, probe.track() as tracker:
        output = model(x)
    graph, values = tracker.build_graph(), tracker.build_map()
    with afterwards():
        for name, value in values.items():
            assert torch.equal(graph.replay(record=[name])[name], value), name
            assert torch.equal(graph.replay({name: value}), output), name
        changed = graph.replay({"/dropout#0": values["/dropout#0"] + 1})
    assert torch.allclose(changed, output + 1)


def test_a_replay_disturbs_nothing_that_is_drawn_later():
    model, x = Dropping(), torch.randn(2, 4)
    with seeded(3), instrument(model) as probe, probe.track() as tracker:
        model(x)
        graph, state = tracker.build_graph(), torch.get_rng_state()
        expected = torch.rand(3)
    with seeded(3), instrument(model) as probe, probe.track([]) as tracker:
        model(x)
        graph.replay()
        with seeded(5):
            tracker.build_graph().replay()
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_generators_of_the_model_draw_the_same_numbers_and_go_back():
    model, x = Drawing(), torch.zeros(3)
    with instrument(model) as probe, probe.track([]) as tracker:
        output = model(x)
    state = model.generator.get_state()
    assert torch.equal(tracker.build_graph().replay(), output)
    assert torch.equal(model.generator.get_state(), state)


def test_tensors_in_place_of_parameters_are_those_of_the_pass():
    model, x = nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.randn(4, 3)
    other = {"0.weight": torch.randn(2, 3)}
    with instrument(model) as probe, probe.track([]) as tracker:
        output = torch.func.functional_call(model, other, (x,))
    graph = tracker.build_graph()
    assert graph.tensor("0.weight").kind == "parameter"
    assert torch.equal(graph.replay(), output)


def test_a_pass_without_numbers():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU()).to("meta")
    graph = graph_of(model, torch.ones(4, 3, device="meta"))
    assert graph.replay().shape == (4, 2) and graph.tensor("1/relu").device.type == "meta"


def test_given_values_are_not_overwritten():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    graph, value = graph_of(model, torch.ones(1, 3)), -torch.ones(1, 3)
    assert torch.equal(graph.replay({"0/linear": value}), torch.zeros(1, 3))
    assert torch.equal(value, -torch.ones(1, 3))


def test_gradients_flow_through_a_replay():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.randn(2, 3, requires_grad=True)
    graph = graph_of(model, x)
    (wanted,) = torch.autograd.grad(model(x).sum(), x)
    (found,) = torch.autograd.grad(graph.replay(x).sum(), x)
    assert torch.equal(found, wanted)


def test_weights_count_as_they_are_now():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.randn(2, 3)
    graph = graph_of(model, x)
    with torch.no_grad():
        model[0].weight.mul_(2)
    assert torch.equal(graph.replay(), model(x))


class Branching(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x * 3


def test_a_number_that_decided_must_be_the_same():
    graph = graph_of(Branching(), torch.ones(3))
    assert torch.equal(graph.replay(torch.full((3,), 2.0)), torch.full((3,), 4.0))
    with pytest.raises(ReplayError, match="is_nonzero"):
        graph.replay(-torch.ones(3))


def test_what_is_not_seen_is_refused_unless_its_value_is_given():
    script = scripted()
    model, x = nn.Sequential(nn.Linear(3, 3), script, nn.Linear(3, 2)), torch.randn(4, 3)
    graph = graph_of(model, x)
    with pytest.raises(ReplayError, match=r"replay\(\{'2/untracked#0'"):
        graph.replay()
    value = script(model[0](x))
    assert torch.equal(graph.replay({"2/untracked": value}), model(x))
    with instrument(model) as probe, probe.track("*/untracked") as tracker:
        model(x)
    assert torch.equal(graph.replay(tracker.build_map()), model(x))
    with torch.no_grad():
        graph = graph_of(model, x)
    assert torch.equal(graph.replay(), model(x))
    assert torch.equal(graph.replay(x.clone()), model(x))
    with pytest.raises(ReplayError, match="not known what made 'unknown"):
        graph.replay(x + 1)
    value = script(model[0](x + 1))
    assert torch.equal(graph.replay({0: x + 1, "unknown[0]": value}), model(x + 1))


@cache
def table(size):
    """A tensor that outlives the pass, as transformers keeps tables of positions."""
    return torch.arange(float(size))


class Cached(nn.Module):
    def forward(self, x):
        return x * table(x.shape[-1])


def test_a_tensor_that_was_there_before_is_as_it_was_for_the_same_inputs():
    model, x = Cached(), torch.tensor([1.0, 3.0])
    model(x)
    graph = graph_of(model, x)
    assert graph.tensor("unknown[0]").kind == "unknown"
    assert torch.equal(graph.replay(x.clone()), model(x))
    with pytest.raises(ReplayError, match="not known what made 'unknown"):
        graph.replay(x + 1)


def test_bad_values():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.randn(2, 3)
    graph = graph_of(model, x)
    with pytest.raises(ShapeError, match=r"had shape \(2, 3\) in the pass, got \(4, 3\)"):
        graph.replay(torch.ones(4, 3))
    with pytest.raises(LayerError, match="0/linear"):
        graph.replay({"0/lineal": torch.ones(2, 3)})
    with pytest.raises(ArgumentError, match="expected a tensor"):
        graph.replay({"0/linear": 3})
    with pytest.raises(ReplayError, match="0/linear#0"):
        graph.replay(torch.ones(2, 3, dtype=torch.float64))
