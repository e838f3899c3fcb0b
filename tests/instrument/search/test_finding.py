import math

import pytest
import torch
from torch import nn
from tracked import Function, graph_of

from toumei.core.errors import ArgumentError
from toumei.instrument import instrument
from toumei.instrument.search.finding import find, largest, layer_numbers, layer_prefix
from toumei.instrument.search.patterns import Constant, Either, Skip, Step, Value, Weight, chain
from toumei.instrument.search.sources import source


def names(matches, group=None):
    return [match.operation.name if group is None else match[group].name for match in matches]


def test_a_chain_is_found_where_its_steps_follow_each_other():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    graph = graph_of(model, torch.ones(1, 3))
    matches = list(find(graph, chain(Step("linear", name="a"), "relu|gelu", Step("linear", name="b"))))
    assert [(one["a"].name, one["b"].name) for one in matches] == [("0/linear#0", "2/linear#0")]
    assert [one.name for one in matches[0].operations] == ["2/linear#0", "1/relu#0", "0/linear#0"]
    assert not list(find(graph, chain("relu", "tanh")))


def test_layout_casts_and_dropout_are_passed_over():
    def forward(x):
        y = nn.functional.dropout(x.exp().reshape(2, 6).double(), training=False)
        return y.t().contiguous().sin()

    graph = graph_of(Function(forward), torch.ones(3, 4))
    assert names(find(graph, chain("exp", "sin"))) == ["/sin#0"]
    assert source(graph, graph.tensor("/contiguous")).name == "/exp#0"


@pytest.mark.parametrize(("most", "found"), [(math.inf, True), (3, True), (2, False), (0, False)])
def test_skip_passes_over_as_many_operations_as_it_may(most, found):
    graph = graph_of(Function(lambda x: ((x.exp() * 2 + 1) / 3).sin()), torch.ones(2))
    assert bool(list(find(graph, chain("exp", Skip("mul|add|div", most=most), "sin")))) == found


def test_skip_looks_at_each_tensor_once():
    """Doubling sixty times has 2**60 paths back to the start."""

    def forward(x):
        y = x.exp()
        for _ in range(60):
            y = y * y.add(1)
        return y.sin()

    graph = graph_of(Function(forward), torch.ones(2))
    assert len(list(find(graph, chain("exp", Skip("mul|add"), "sin")))) == 1
    assert not list(find(graph, chain("cos", Skip("mul|add"), "sin")))


def test_sums_and_products_take_their_operands_in_any_order_and_grouping():
    x, y = Value("x"), Value("y")
    pattern = Step("mul", Step("sin", x), Step("cos", y), Constant(0.5))
    for forward in (
        lambda a, b: a.sin() * b.cos() * 0.5,
        lambda a, b: 0.5 * (b.cos() * a.sin()),
        lambda a, b: b.cos() * (0.5 * a.sin()),
    ):
        (match,) = find(graph_of(Function(forward), torch.ones(2), torch.ones(2)), pattern)
        assert (match["x"].name, match["y"].name) == ("inputs[0]", "inputs[1]")
    assert not list(
        find(graph_of(Function(lambda a, b: a.sin() / b.cos() / 0.5), *[torch.ones(2)] * 2), pattern)
    )


def test_one_name_is_one_tensor():
    square = Step("mul", Value("x"), Step("sigmoid", Value("x")))
    assert list(find(graph_of(Function(lambda x, _: x * x.sigmoid()), *torch.ones(2, 2)), square))
    assert not list(find(graph_of(Function(lambda x, y: x * y.sigmoid()), *torch.ones(2, 2)), square))
    again = Step("div", Step("exp", name="e"), Step("sum", Step("exp", name="e")))
    assert list(find(graph_of(Function(lambda x: (e := x.exp()) / e.sum()), torch.ones(2)), again))
    assert not list(find(graph_of(Function(lambda x: x.exp() / (2 * x).exp().sum()), torch.ones(2)), again))


def test_constants_weights_and_kinds_of_tensors():
    layer = nn.Linear(2, 2)
    graph = graph_of(Function(lambda x: (x @ layer.weight.t()) * 1.7021, layer=layer), torch.ones(1, 2))
    assert list(find(graph, Step("mul", Value(), Constant(1.702))))
    assert not list(find(graph, Step("mul", Value(), Constant(1.8))))
    (match,) = find(graph, Step("matmul", Value("x"), Weight("w")))
    assert (match["x"].name, match["w"].name) == ("inputs[0]", "layer.weight")
    assert not list(find(graph, Step("matmul", Value(computed=True), Value(computed=True))))
    (match,) = find(graph, Step("mul", Constant(name="scale"), Value()))
    assert match["scale"] == 1.7021


def test_operations_are_chosen_by_the_module_that_calls_them_and_by_a_function():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    graph = graph_of(model, torch.ones(1, 3))
    assert len(list(find(graph, Step("linear", module="Linear|Conv1d")))) == 2
    assert not list(find(graph, Step("linear", module="Conv1d")))
    narrow = Step("linear", where=lambda operation: operation.outputs[0].shape[-1] == 2)
    assert names(find(graph, narrow)) == ["1/linear#0"]


def test_branches_that_meet():
    def forward(x):
        return x.sin() * x.cos() + x.sin() * x.exp()

    graph = graph_of(Function(forward), torch.ones(2))
    gated = Step("mul", Step("sin", Value("x")), Step("exp|log", Value("x"), name="gate"))
    assert names(find(graph, gated), "gate") == ["/exp#0"]
    assert names(find(graph, chain("exp", Step("mul", Step("sin", Value()))))) == ["/mul#1"]
    either = Either(gated, Step("mul", Step("sin", Value("x")), Step("cos", Value("x"))))
    assert names(find(graph, either)) == ["/mul#0", "/mul#1"]


def test_a_match_that_is_a_part_of_another_one_is_left_out():
    graph = graph_of(Function(lambda x: x.relu().square() + x.relu()), torch.ones(2))
    x = Value("x")
    found = [
        match for one in (Step("relu", x), Step("square", Step("relu", x))) for match in find(graph, one)
    ]
    assert sorted(names(found)) == ["/relu#0", "/relu#1", "/square#0"]
    assert names(largest(graph, found)) == ["/square#0", "/relu#1"]


def test_what_is_no_graph_or_no_pattern_is_refused():
    graph = graph_of(nn.Identity(), torch.ones(2))
    assert not list(find(graph, Step("linear")))
    with pytest.raises(ArgumentError, match="graph is a OperationGraph, got 'graph.dot'"):
        find("graph.dot", Step("linear"))
    with pytest.raises(ArgumentError, match="pattern is a Pattern, got 'linear'"):
        find(graph, "linear")
    with pytest.raises(ArgumentError, match="expected functions or patterns as steps, got \\(\\)"):
        chain()
    with pytest.raises(ArgumentError, match="expected functions, Step or Skip after the first step"):
        chain("linear", Value())


def test_a_graph_of_a_pass_that_failed_is_searched_up_to_there():
    model = Function(lambda x: x.exp().sin() @ torch.ones(7, 7))
    with instrument(model) as probe, probe.track(only=[]) as tracker:
        with pytest.raises(RuntimeError):
            model(torch.ones(2, 2))
    assert names(find(tracker.build_graph(), chain("exp", "sin"))) == ["/sin#0"]


def test_layers_have_the_numbers_of_their_modules_if_these_tell_them_apart():
    assert layer_numbers(["model.layers.1.attn", "model.layers.5.attn"]) == [1, 5]
    assert layer_numbers(["encoder.layers.encoder_layer_0.mlp", "encoder.layers.encoder_layer_1.mlp"]) == [
        0,
        1,
    ]
    assert layer_numbers(["h.0.attn", "h.0.attn"]) == [0, 1]
    assert layer_numbers(["attn", "h.4.attn"]) == [0, 1]
    assert layer_numbers([]) == []
    assert layer_prefix("mlp.linear1") == layer_prefix("") == ""
    assert layer_prefix("0.fc") == "0"
