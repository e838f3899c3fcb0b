"""A level of the graph as a picture of matplotlib."""

import pytest
import torch
from matplotlib import pyplot
from matplotlib.patches import FancyBboxPatch
from torch import nn

from toumei.core.errors import ArgumentError, LayerError
from toumei.instrument import instrument


@pytest.fixture(scope="module")
def graph():
    blocks = [nn.Sequential(nn.Linear(3, 3), nn.ReLU()) for _ in range(3)]
    model = nn.Sequential(*blocks, nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Tanh(), nn.Linear(3, 3))))
    with torch.no_grad(), instrument(model) as probe, probe.track(only=[]) as tracker:
        model(torch.ones(2, 3))
    return tracker.build_graph()


def texts(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


@pytest.mark.parametrize(
    ("module", "depth", "expected"),
    [
        ("", 1, ["0 \u2026 2", "3"]),
        ("3", 1, ["0", "1"]),
        ("3.1", 1, ["0", "1"]),
        ("1", 1, ["0", "1"]),
    ],
)
def test_closed_boxes_are_those_of_the_level(graph, module, depth, expected):
    ax = graph.plot(module=module, depth=depth)
    assert [title for title in expected if title in texts(ax)] == expected
    boxes = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    assert len(boxes) == len(expected) + 2 + 2 * (module == "")  # the input, the output, two boxes of the row


def test_with_more_depth_the_insides_are_drawn_where_the_boxes_are(graph):
    shown = texts(graph.plot(depth=9))
    assert sum(text.startswith("linear") for text in shown) == 5


def test_the_axes_of_the_user_are_drawn_on(graph):
    figure = pyplot.figure()
    ax = figure.add_subplot()
    assert graph.plot(ax) is ax and len(pyplot.get_fignums()) == 1
    figure.canvas.draw()


def test_what_cannot_be_drawn(graph):
    with pytest.raises(LayerError, match="no module '4' with several operations ran: there is"):
        graph.plot(module="4")
    with pytest.raises(ArgumentError, match="depth is a whole number from 1 on, got 0"):
        graph.plot(depth=0)
    with pytest.raises(ArgumentError, match="axes of matplotlib"):
        graph.plot("graph.png")


def test_names_are_no_formulas():
    model = nn.Sequential()
    model.add_module("a$b$_^", nn.ReLU())
    with instrument(model) as probe, probe.track() as tracker:
        model(torch.ones(1))
    ax = tracker.build_graph().plot()
    ax.figure.canvas.draw()
    assert "a$b$_^" in texts(ax)
