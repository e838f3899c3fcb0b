"""Passes that fail, that are empty, that nobody ran: graphs and trackers say so and leave nothing behind."""

import pytest
import torch
from matplotlib import pyplot
from torch import nn

import toumei.instrument as ins
from toumei.core.errors import (
    LayerError,
    ReplayError,
    ShapeError,
    ToumeiError,
    TrackingError,
)

X = torch.ones(2, 3)


class Nothing(nn.Module):
    """Takes nothing and returns nothing."""

    def forward(self):
        pass


class Half(nn.Module):
    """Fails between two layers, after so many passes."""

    def __init__(self, good=0):
        super().__init__()
        self.first, self.second, self.good = nn.Linear(3, 4), nn.Linear(4, 2), good

    def forward(self, x):
        x = self.first(x).relu()
        if not self.good:
            raise ZeroDivisionError("in the middle")
        self.good -= 1
        return self.second(x)


def tracked(model, *inputs, only=None):
    with ins.instrument(model) as probe, probe.track(only) as tracker:
        model(*inputs)
    return tracker


def failed(only=None):
    model = Half()
    with ins.instrument(model) as probe, probe.track(only) as tracker:
        with pytest.raises(ZeroDivisionError):
            model(X)
    return tracker


SEARCHES = (
    *(ins.find_activations, ins.find_linear, ins.find_normalizations, ins.find_residual_sums),
    *(ins.find_feed_forward, ins.find_multi_head_attention),
    lambda graph: ins.find(graph, ins.chain("linear", "relu")),
    lambda graph: ins.FindTransformerFFN(graph).search(),
)


@pytest.mark.parametrize(
    "model, inputs", [(nn.Identity(), (X,)), (Nothing(), ())], ids=["identity", "nothing"]
)
def test_every_method_of_a_graph_without_operations_works_or_says_it(model, inputs, tmp_path):
    tracker = tracked(model, *inputs)
    graph = tracker.build_graph()
    assert len(graph) == 0 and "0 operations" in repr(graph) and "operations: none" in str(graph)
    assert list(tracker.build_map()) == [] and "0 tensors" in repr(tracker.build_map())
    assert graph.networkx().number_of_edges() == 0 and graph.matching("*") == [] and graph.untracked == []
    for search in SEARCHES:
        assert list(search(graph)) == []
    graph.plot()
    pyplot.close("all")
    graph.save_html(tmp_path / "graph.html")
    graph.save_dot(tmp_path / "graph.dot", parameters=True)
    assert "digraph" in (tmp_path / "graph.dot").read_text() and "<iframe" in graph._repr_html_()
    for ask in (graph.tensor, graph.operation, graph.producer, graph.consumers):
        with pytest.raises(LayerError, match="it had"):
            ask("fc/linear")
    with pytest.raises(LayerError, match="none"):
        graph.plot(module="fc")
    for compare in (ins.compare_with_fx, ins.compare_with_export):
        assert not compare(graph) and compare(graph).both == 0


def test_a_graph_without_operations_returns_its_input_again():
    graph = tracked(nn.Identity(), X).build_graph()
    assert torch.equal(graph.replay(), X) and torch.equal(graph.replay(3 * X), 3 * X)
    assert torch.equal(graph.replay({"inputs[0]": 2 * X}), 2 * X)
    assert graph.outputs == graph.inputs and graph.consumers("inputs[0]") == []
    assert tracked(Nothing()).build_graph().replay() is None
    with pytest.raises(LayerError, match=r"'\*/relu' fits no tensor of the pass"):
        tracked(nn.Identity(), X, only="*/relu").build_map()


def test_a_pass_that_fails_has_the_graph_and_the_tensors_up_to_there(tmp_path):
    tracker = failed()
    graph = tracker.build_graph()
    assert list(graph.operations) == ["first/linear#0", "/relu#0"] and "ZeroDivisionError" in graph.error
    assert "failed" in repr(graph) and list(tracker.build_map()) == list(graph.operations)
    assert graph.outputs == () and len(list(ins.find_linear(graph))) == 1
    with pytest.raises(ReplayError, match=r"ZeroDivisionError: in the middle.*record="):
        graph.replay()
    found = graph.replay(record=["/relu"])["/relu#0"]
    assert torch.equal(found, tracker.build_map()["/relu#0"])
    graph.plot()
    pyplot.close("all")
    graph.save_html(tmp_path / "graph.html", tensors=tracker.build_map())
    assert "in the middle" in (tmp_path / "graph.html").read_text()
    graph.save_dot(tmp_path / "graph.dot")


@pytest.mark.parametrize("only", [None, ["first"]])
def test_of_several_passes_the_one_that_fails_is_not_among_the_tensors(only, tmp_path):
    for folder in (None, tmp_path / str(only)):
        model = Half(good=2)
        with ins.instrument(model) as probe, probe.track(only, batched=True, folder=folder) as tracker:
            model(X)
            model(2 * X)
            with pytest.raises(ZeroDivisionError):
                model(3 * X)
        kept = tracker.build_map().get_cat("first" if only else "first/linear#0")
        assert torch.equal(kept, torch.cat([model.first(X), model.first(2 * X)]))


def test_a_failed_pass_does_not_change_what_was_tracked_before_it():
    model = Half(good=9)
    with ins.instrument(model) as probe, probe.track() as tracker:
        output = model(X)
        with pytest.raises(TrackingError, match="batched=True"):
            model(2 * X)
    assert tracker.build_graph().error is None and torch.equal(tracker.build_graph().replay(), output)
    assert len(tracker.build_map()) == len(tracker.build_graph())


def test_nothing_was_tracked():
    model = nn.Linear(3, 2)
    for only in (None, [], ["/linear"]):
        with ins.instrument(model) as probe, probe.track(only) as tracker:
            pass
        for ask in (tracker.build_graph, tracker.build_map):
            with pytest.raises(TrackingError, match="no forward pass of the Linear ran"):
                ask()
    tracker = tracked(model, X, only=[])
    assert len(tracker.build_map()) == 0 and len(tracker.build_graph()) == 1


def test_a_name_that_did_not_run():
    model = Half(good=1)
    model.spare = nn.Linear(3, 3)
    with ins.instrument(model) as probe:
        with pytest.raises(ToumeiError, match="spare"), probe.track(["spare"]):
            model(X)
        with pytest.raises(LayerError, match=r"no layer 'frist'.*first"), probe.track(["frist"]):
            pass
        with probe.track("spare/*") as tracker, pytest.raises(ZeroDivisionError):
            model(X)
    with pytest.raises(LayerError, match=r"'spare/\*' fits no tensor of the pass: it had first/linear#0"):
        tracker.build_map()


def test_tracking_in_tracking_and_tracking_that_is_over():
    model = nn.Linear(3, 2)
    with ins.instrument(model) as probe:
        with probe.track(), pytest.raises(TrackingError, match="tracked already"), probe.track():
            pass
        with ins.instrument(model) as second, second.track() as inner, probe.track(["/linear"]) as outer:
            output = model(X)
        assert torch.equal(outer.build_map()["/linear"], output)
        assert torch.equal(inner.build_graph().replay(), output)
        block = probe.track()
        with block:
            model(X)
        with pytest.raises((RuntimeError, AttributeError)), block:  # Python: a context is entered once
            pass
        with probe.track() as again:
            model(X)
        assert len(again.build_map()) == 1


def test_lengths_that_differ_between_passes():
    model = nn.Linear(3, 2)
    with ins.instrument(model) as probe, probe.track(["/linear"], batched=True) as tracker:
        for length in (4, 6):
            model(torch.ones(1, length, 3))
    kept = tracker.build_map()
    assert [one.shape[1] for one in kept["/linear"]] == [4, 6]
    with pytest.raises(ShapeError, match=r"\(1, 4, 2\), \(1, 6, 2\)"):
        kept.get_cat("/linear")
    joined = kept.get_cat("/linear", pad=0)
    assert joined.shape == (2, 6, 2) and not joined[0, 4:].any()
    assert kept.get_cat("/linear", dim=1).shape == (1, 10, 2)
